"""Whose tokens count on this media server, and the tickets that it gives to those who have one."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mediaserver.control.contract import WorkerTokens
from mediaserver.remote.errors import CannotStart, Refused
from mediaserver.wire import worker_tokens
from mediaserver.wire.errors import TokenError
from mediaserver.wire.signed import key_id
from mediaserver.wire.worker_tokens import Ticket, WorkerClaims


@dataclass(frozen=True)
class Bearer:
    """An application whose token was verified."""

    claims: WorkerClaims
    kid: str
    key: bytes = field(repr=False)
    """What the token was signed with, and tickets are: another key under the same id is not it."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Who a worker is for."""

    id: str
    bearer: Bearer
    version: str
    ticket: str

    @property
    def subject(self) -> str:
        return self.bearer.claims.sub

    @property
    def token(self) -> str:
        """Its id."""
        return self.bearer.claims.jti


class Tokens:
    """Without any set, nobody is admitted."""

    def __init__(
        self, *, instance_id: str, server_name: Callable[[], str], clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` is wall-clock time."""
        self._instance = instance_id
        self._server_name = server_name
        self._clock = clock
        self._known: WorkerTokens | None = None
        self._keys: Mapping[str, bytes] = {}

    def set(self, tokens: WorkerTokens | None) -> bool:
        """Whose tokens count from now on; whether that is something else than before."""
        if tokens == self._known:
            return False
        self._known = tokens
        encoded = tokens.keys if tokens is not None else {}
        self._keys = {kid: base64.b64decode(key) for kid, key in encoded.items()}
        return True

    def lapsed(self, bearer: Bearer) -> str | None:
        """Why a token that counted counts no more; None: it still does. Its time is of no matter."""
        if self._keys.get(bearer.kid) != bearer.key:
            return f"the key {bearer.kid!r} that its token was signed with does not count any more"
        if self._known is not None and bearer.claims.jti in self._known.revoked:
            return "its token has been revoked"
        return None

    def verify(self, token: str) -> Bearer:
        """Who comes with an application's token. Raises Refused."""
        known = self._get_known()
        try:
            claims = worker_tokens.verify(
                token, self._keys, known.issuers, revoked=known.revoked, now=self._clock()
            )
            kid = key_id(token)
        except TokenError as error:
            raise Refused(401, f"the token is refused ({error.reason}): {error}") from error
        return Bearer(claims, kid, self._keys[kid])

    def ticket(self, bearer: Bearer, worker: str) -> str:
        """What the application comes back to this worker with. Raises CannotStart."""
        reason = self.lapsed(bearer)
        if reason is not None:
            raise CannotStart(f"no worker is started: {reason}")
        claims = bearer.claims
        ticket = Ticket(
            iss=claims.iss,
            sub=claims.sub,
            server=self._server_name(),
            instance=self._instance,
            worker=worker,
            token=claims.jti,
        )
        return worker_tokens.mint_ticket(ticket, bearer.kid, bearer.key)

    def verify_ticket(self, text: str) -> tuple[Ticket, str]:
        """What a ticket of this server's says, and its key's id. Raises Refused."""
        known = self._get_known()
        try:
            ticket = worker_tokens.verify_ticket(text, self._keys, known.issuers, revoked=known.revoked)
        except TokenError as error:
            raise Refused(401, f"the ticket is refused ({error.reason}): {error}") from error
        if ticket.instance != self._instance:
            raise gone()
        return ticket, key_id(text)

    def _get_known(self) -> WorkerTokens:
        if self._known is None:
            raise Refused(
                401,
                "the media server admits no applications' workers: a key set of its MediaCluster needs "
                "workers: true (spec.tokens.keySets)",
            )
        return self._known


def gone() -> Refused:
    """A worker that was here."""
    return Refused(410, "the worker is gone: its media server ended it, or was started anew")
