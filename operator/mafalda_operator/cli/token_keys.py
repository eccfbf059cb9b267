"""Which key signs for a session: MediaSession ▸ MediaCluster ▸ key set for its namespace ▸ Secret."""

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
from mafalda_operator.model import REVOKED, KeySet, MediaCluster, MediaSession, ObjectKey
from mediaserver.wire.tokens import MIN_KEY_BYTES, ParticipantClaims, mint


class NoTokenKey(Exception):  # noqa: N818  named for what is missing
    """No key signs for the session; the message names the object and the remedy."""


@dataclass(frozen=True)
class SigningKey:
    """A key with its id, and the `iss` that goes with it."""

    issuer: str
    kid: str
    key: bytes

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
        key_set = await _key_set(api, cluster, session)
        kid, key = _greatest(await _secret(api, cluster, key_set), f"Secret {_name(cluster, key_set)}")
        return SigningKey(cluster.uid, kid, key)
    finally:
        await api.close()


async def _cluster_of(api: KubeApi, session: ObjectKey) -> MediaCluster:
    try:
        found = MediaSession.parse(await api.get(SESSIONS, *session))
    except NotFound as error:
        raise NoTokenKey(f"there is no MediaSession {session}") from error
    try:
        return MediaCluster.parse(await api.get(CLUSTERS, *found.cluster))
    except NotFound as error:
        raise NoTokenKey(
            f"MediaSession {session} names MediaCluster {found.cluster}; there is none"
        ) from error


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


async def _secret(api: KubeApi, cluster: MediaCluster, key_set: KeySet) -> Object:
    try:
        return await api.get(SECRETS, cluster.key.namespace, key_set.secret_name)
    except NotFound as error:
        raise NoTokenKey(
            f"there is no Secret {_name(cluster, key_set)}; the operator makes it once it runs"
        ) from error


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


def _name(cluster: MediaCluster, key_set: KeySet) -> str:
    return f"{cluster.key.namespace}/{key_set.secret_name}"
