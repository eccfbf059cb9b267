"""Whether a session may run: its cluster, its namespace, its codecs, and the token keys that admit to it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mafalda_operator.model import Codec, KeySecret, KeySet, MediaCluster, MediaSession, Snapshot
from mafalda_operator.planning.codecs import DEFAULT_CODECS, codec_problem, resolve_codecs
from mediaserver.control.contract import WorkerTokens

MINIMUM_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Access:
    """The answer to a session. ``codecs`` are resolved, and empty unless ``accepted``."""

    accepted: bool
    reason: str
    message: str
    cluster: MediaCluster | None = None
    codecs: tuple[dict[str, Any], ...] = ()


def judge_access(session: MediaSession, snapshot: Snapshot) -> Access:
    """The same answer for a cluster that doesn't exist and one that forbids, so that none can be probed."""
    cluster = snapshot.clusters.get(session.cluster)
    if cluster is None or not _allowed(session, cluster, snapshot):
        return Access(
            False,
            "ClusterNotFoundOrForbidden",
            f"there is no MediaCluster {session.cluster} that admits sessions of namespace "
            f"{session.key.namespace}; correct spec.clusterRef, or have the cluster's spec.allowedSessions "
            "name the namespace",
        )
    if session.resolved_codecs:
        codecs, where = session.resolved_codecs, "status.mediaCodecs"
    elif session.media_codecs:
        codecs, where = session.media_codecs, "spec.mediaCodecs"
    elif cluster.media_codecs:
        codecs, where = cluster.media_codecs, f"spec.mediaCodecs of MediaCluster {cluster.key}"
    else:
        codecs, where = DEFAULT_CODECS, ""
    problem = codec_problem(codecs)
    if problem is not None:
        return Access(False, "UnsupportedCodec", f"{where}: {problem}", cluster)
    return Access(True, "Accepted", f"MediaCluster {cluster.key} admits it", cluster, _resolved(codecs))


def _allowed(session: MediaSession, cluster: MediaCluster, snapshot: Snapshot) -> bool:
    namespace = snapshot.namespaces.get(session.key.namespace)
    labels = namespace.labels if namespace else None
    return cluster.allowed.allows(cluster.key.namespace, session.key.namespace, labels)


_resolutions: dict[tuple[Codec, ...], tuple[dict[str, Any], ...]] = {}
_RESOLUTIONS = 64


def _resolved(codecs: tuple[Codec, ...]) -> tuple[dict[str, Any], ...]:
    """Sessions mostly share a few lists of codecs, and resolving is the same every time; bounded."""
    resolution = _resolutions.get(codecs)
    if resolution is None:
        if len(_resolutions) >= _RESOLUTIONS:
            _resolutions.clear()
        resolution = _resolutions[codecs] = tuple(resolve_codecs(codecs))
    return resolution


def token_keys(cluster: MediaCluster, namespace: str, snapshot: Snapshot) -> Mapping[str, str]:
    """Valid keys for the sessions of a namespace: key id to base64.

    Of key sets that share a kid the first counts; keys that are too short count nowhere (the cluster's Ready
    says so).
    """
    info = snapshot.namespaces.get(namespace)
    labels = info.labels if info else None
    sets = (
        key_set
        for key_set in cluster.key_sets
        if key_set.namespaces.allows(cluster.key.namespace, namespace, labels)
    )
    return _valid_keys(sets, snapshot.token_keys.get(cluster.key, {}))


def worker_tokens(cluster: MediaCluster, snapshot: Snapshot) -> WorkerTokens | None:
    """Whose tokens admit applications' workers; None when no key set is for them.

    As with ``token_keys``, the first set of a kid counts. What one set's Secret revokes counts no more
    whatever key signed it.
    """
    sets = [key_set for key_set in cluster.key_sets if key_set.workers]
    if not sets:
        return None
    secrets = snapshot.token_keys.get(cluster.key, {})
    revoked = {jti for key_set in sets if key_set.name in secrets for jti in secrets[key_set.name].revoked}
    return WorkerTokens(issuers=issuers(cluster), keys=_valid_keys(sets, secrets), revoked=sorted(revoked))


def awaits_worker_keys(cluster: MediaCluster, snapshot: Snapshot) -> bool:
    """Whether a Secret that an earlier leader read, and whose keys admit workers, is still to be read.

    Until then nobody knows which keys count, and servers would end every worker whose key they are not told.
    """
    secrets, seen = snapshot.token_keys.get(cluster.key, {}), seen_secrets(cluster)
    return any(
        key_set.workers and key_set.name not in secrets and (key_set.name, key_set.secret_name) in seen
        for key_set in cluster.key_sets
    )


def issuers(cluster: MediaCluster) -> list[str]:
    """What tokens may call the cluster in `iss`."""
    return [cluster.uid, str(cluster.key), cluster.key.name]


def seen_secrets(cluster: MediaCluster) -> set[tuple[str, str]]:
    """Key sets and their Secrets that existed once, as the stored status tells."""
    listed = cluster.status.get("keySets")
    return {
        (str(item.get("name")), str(item.get("secretName")))
        for item in (listed if isinstance(listed, list | tuple) else ())
        if isinstance(item, Mapping)
    }


def _valid_keys(key_sets: Iterable[KeySet], secrets: Mapping[str, KeySecret]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key_set in key_sets:
        secret = secrets.get(key_set.name)
        for kid, key in sorted(secret.keys.items()) if secret else ():
            if len(key) >= MINIMUM_KEY_BYTES:
                found.setdefault(kid, base64.b64encode(key).decode())
    return found
