"""Whether a session may run: its cluster, its namespace, its codecs, and the token keys that admit to it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mafalda_operator.model import Codec, MediaCluster, MediaSession, Snapshot
from mafalda_operator.planning.codecs import DEFAULT_CODECS, codec_problem, resolve_codecs

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
    found: dict[str, str] = {}
    secrets = snapshot.token_keys.get(cluster.key, {})
    for key_set in cluster.key_sets:
        if not key_set.namespaces.allows(cluster.key.namespace, namespace, labels):
            continue
        secret = secrets.get(key_set.name)
        for kid, key in sorted(secret.keys.items()) if secret else ():
            if len(key) >= MINIMUM_KEY_BYTES:
                found.setdefault(kid, base64.b64encode(key).decode())
    return found
