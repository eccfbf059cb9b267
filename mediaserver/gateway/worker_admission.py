"""Whether an application may have a worker: the token for a new one, the ticket for one that it has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from mediaserver.gateway.errors import KeysUnavailable, Refused
from mediaserver.gateway.keys import TokenKeys, WorkerKeys
from mediaserver.gateway.resources import Cluster
from mediaserver.gateway.worker_handshake import Handshake
from mediaserver.wire import signed, worker_tokens
from mediaserver.wire.errors import TokenError
from mediaserver.wire.worker_tokens import Ticket, WorkerClaims

ClaimsT = TypeVar("ClaimsT", bound=WorkerClaims | Ticket)

_NEW_TOKEN = "make a token with `mafalda worker-token` and set MAFALDA_TOKEN"
_CHECK_CLUSTER = "check that the token was made for the MediaCluster behind MAFALDA_URL"
_REMEDIES: Final = {
    "malformed": "check MAFALDA_TOKEN",
    "unknownKey": _CHECK_CLUSTER,
    "forged": _CHECK_CLUSTER,
    "wrongIssuer": _CHECK_CLUSTER,
    "wrongAudience": "a participant's token starts no worker: " + _NEW_TOKEN,
    "notYetValid": "check the clocks, or wait",
    "expired": _NEW_TOKEN,
    "revoked": _NEW_TOKEN,
}
_NOT_MINE = ("unknownKey", "forged")
"""A MediaCluster says so of a token that may well be of another one of that name."""


@dataclass(frozen=True)
class Admitted:
    """A new worker may be started."""

    cluster: Cluster
    claims: WorkerClaims


@dataclass(frozen=True)
class Returning:
    """A worker's application may come back to it."""

    cluster: Cluster
    ticket: Ticket


class Admission:
    """Reads tokens and tickets by the keys of the MediaClusters that they name."""

    def __init__(self, keys: TokenKeys, *, wall_clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._wall_clock = wall_clock

    async def new(self, handshake: Handshake, clusters: Iterable[Cluster]) -> Admitted:
        """Raises Refused: 401, or 503 when keys cannot be read."""
        if not handshake.token:
            text = f"the dial has no Authorization: Bearer TOKEN: {_NEW_TOKEN}"
            raise Refused(401, "noToken", text, final=True)

        def verify(cluster: Cluster, found: WorkerKeys) -> WorkerClaims:
            return worker_tokens.verify(
                handshake.token,
                found.keys,
                cluster.issuers,
                revoked=found.revoked,
                now=self._wall_clock(),
            )

        try:
            return Admitted(*await self._verified(handshake.token, clusters, verify))
        except TokenError as error:
            remedy = _REMEDIES.get(error.reason, _NEW_TOKEN)
            text = f"the token is refused ({error.reason}): {error}; {remedy}"
            raise Refused(401, error.reason, text, final=True) from error

    async def returning(self, handshake: Handshake, clusters: Iterable[Cluster]) -> Returning:
        """Raises Refused: 401, or 503 when keys cannot be read."""

        def verify(cluster: Cluster, found: WorkerKeys) -> Ticket:
            return worker_tokens.verify_ticket(
                handshake.ticket, found.keys, cluster.issuers, revoked=found.revoked
            )

        try:
            return Returning(*await self._verified(handshake.ticket, clusters, verify))
        except TokenError as error:
            text = f"the worker cannot be come back to, its ticket is refused ({error.reason}): {error}"
            raise Refused(401, error.reason, text, final=True) from error

    async def _verified(
        self,
        token: str,
        clusters: Iterable[Cluster],
        verify: Callable[[Cluster, WorkerKeys], ClaimsT],
    ) -> tuple[Cluster, ClaimsT]:
        """The first MediaCluster that the token names and whose keys verify it.

        Raises TokenError, or Refused when keys cannot be read.
        """
        kid, issuer = signed.key_id(token), signed.issuer(token)
        errors: list[TokenError] = []
        unreadable = False
        for cluster in clusters:
            if issuer not in cluster.issuers:
                continue
            try:
                return cluster, verify(cluster, await self._of(cluster, kid))
            except KeysUnavailable:
                unreadable = True
            except TokenError as error:
                if error.reason not in _NOT_MINE:
                    raise
                errors.append(error)
        if unreadable:
            text = "the gateway cannot read the token keys from the Kubernetes API at the moment"
            raise Refused(503, "keysUnavailable", text, final=False)
        if not errors:
            raise TokenError("wrongIssuer", f"its iss {issuer!r} is no MediaCluster of this gateway")
        raise errors[0]

    async def _of(self, cluster: Cluster, kid: str) -> WorkerKeys:
        if not any(key_set.workers for key_set in cluster.key_sets):
            message = f"MediaCluster {cluster.key} has no key set with workers: true"
            raise TokenError("unknownKey", message)
        return await self._keys.of_workers(cluster, kid)
