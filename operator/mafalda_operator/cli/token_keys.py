"""Which key signs a token.

For a participant: MediaSession ▸ MediaCluster ▸ key set for its namespace ▸ Secret. For an application's
workers: MediaCluster ▸ key set with `workers: true` ▸ Secret.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from mafalda_operator.effects.api import CLUSTERS, NAMESPACES, SECRETS, SESSIONS, KubeApi, Object
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import NotFound
from mafalda_operator.model import KeySet, MediaCluster, MediaSession, ObjectKey
from mediaserver.wire.tokens import MIN_KEY_BYTES, ParticipantClaims, mint
from mediaserver.wire.worker_tokens import REVOKED


class NoTokenKey(Exception):  # noqa: N818  named for what is missing
    """No key signs for that; the message names the object and the remedy."""


@dataclass(frozen=True)
class SigningKey:
    """A key with its id, and the `iss` that goes with it."""

    issuer: str
    kid: str
    key: bytes
    secret: ObjectKey | None = None
    """The Secret that holds it; None for one of a file."""

    def sign(
        self,
        session: ObjectKey,
        participant: str,
        *,
        seconds: float,
        publish: bool = True,
        subscribe: bool = True,
    ) -> str:
        """A participant's token, accepted when dialling for `seconds` from now. Raises TokenError."""
        now = time.time()
        claims = ParticipantClaims(
            iss=self.issuer,
            sub=participant,
            session=str(session),
            publish=publish,
            subscribe=subscribe,
            nbf=int(now),
            exp=int(now + seconds),
            jti=secrets.token_hex(16),
        )
        return mint(claims, self.kid, self.key)

    def __repr__(self) -> str:
        return f"SigningKey(issuer={self.issuer!r}, kid={self.kid!r}, key=<secret>)"


async def key_of_session(session: ObjectKey, kubeconfig: Path | None) -> SigningKey:
    """The key of the greatest id in the first key set that counts for the session's namespace.

    Raises NoTokenKey, or KubeError when the API server can't be asked.
    """
    api = KubeApi(Credentials(kubeconfig))
    try:
        cluster = await _cluster_of(api, session)
        return await _key_of(api, cluster, await _key_set(api, cluster, session))
    finally:
        await api.close()


async def key_for_workers(cluster: ObjectKey, kubeconfig: Path | None) -> SigningKey:
    """The key of the greatest id in the cluster's first key set with `workers: true`.

    Raises NoTokenKey, or KubeError when the API server can't be asked.
    """
    api = KubeApi(Credentials(kubeconfig))
    try:
        found = await _cluster(api, cluster, f"there is no MediaCluster {cluster}")
        key_set = next((key_set for key_set in found.key_sets if key_set.workers), None)
        if key_set is None:
            raise NoTokenKey(
                f"no key set of MediaCluster {cluster} admits applications' workers; set workers: true in one"
                " of its spec.tokens.keySets"
            )
        return await _key_of(api, found, key_set)
    finally:
        await api.close()


async def _key_of(api: KubeApi, cluster: MediaCluster, key_set: KeySet) -> SigningKey:
    name = ObjectKey(cluster.key.namespace, key_set.secret_name)
    try:
        secret = await api.get(SECRETS, *name)
    except NotFound as error:
        raise NoTokenKey(f"there is no Secret {name}; the operator makes it once it runs") from error
    kid, key = _greatest(secret, f"Secret {name}")
    return SigningKey(cluster.uid, kid, key, name)


async def _cluster_of(api: KubeApi, session: ObjectKey) -> MediaCluster:
    try:
        found = MediaSession.parse(await api.get(SESSIONS, *session))
    except NotFound as error:
        raise NoTokenKey(f"there is no MediaSession {session}") from error
    missing = f"MediaSession {session} names MediaCluster {found.cluster}; there is none"
    return await _cluster(api, found.cluster, missing)


async def _cluster(api: KubeApi, key: ObjectKey, missing: str) -> MediaCluster:
    try:
        return MediaCluster.parse(await api.get(CLUSTERS, *key))
    except NotFound as error:
        raise NoTokenKey(missing) from error


async def _key_set(api: KubeApi, cluster: MediaCluster, session: ObjectKey) -> KeySet:
    own = cluster.key.namespace
    needs_labels = any(key_set.namespaces.source == "Selector" for key_set in cluster.key_sets)
    labels: dict[str, str] | None = None
    if needs_labels:
        namespace = await api.get(NAMESPACES, None, session.namespace)
        labels = namespace.get("metadata", {}).get("labels") or {}
    for key_set in cluster.key_sets:
        if key_set.namespaces.allows(own, session.namespace, labels):
            return key_set
    raise NoTokenKey(
        f"no key set of MediaCluster {cluster.key} counts for namespace {session.namespace}; add one to its"
        " spec.tokens.keySets whose namespaces include it"
    )


def _greatest(secret: Object, name: str) -> tuple[str, bytes]:
    data = {kid: key for kid, key in (secret.get("data") or {}).items() if kid != REVOKED}
    if not data:
        raise NoTokenKey(f"{name} holds no key; add one of {MIN_KEY_BYTES} bytes or more")
    kid = max(data)
    try:
        key = base64.b64decode(data[kid], validate=True)
    except binascii.Error as error:
        raise NoTokenKey(f"{name}: key {kid} is not base64") from error
    if len(key) < MIN_KEY_BYTES:
        raise NoTokenKey(f"{name}: key {kid} has {len(key)} bytes, at least {MIN_KEY_BYTES} are needed")
    return kid, key
