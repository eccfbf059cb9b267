"""The status of a MediaCluster, and the Secrets of its key sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mafalda_operator.model import KeySecret, MediaCluster, ObjectKey, Snapshot
from mafalda_operator.planning.access import MINIMUM_KEY_BYTES, seen_secrets
from mafalda_operator.planning.actions import CreateTokenKeys, StatusUpdate
from mafalda_operator.planning.capacity import accepting_reason
from mafalda_operator.planning.certificates import tls_fault
from mafalda_operator.planning.codecs import codec_problem
from mafalda_operator.planning.conditions import PROGRESS, Conditions, status_update
from mafalda_operator.planning.pod_status import judge_pod_conditions, pod_fields, pods_not_ready
from mafalda_operator.planning.pods import PodPlan
from mafalda_operator.planning.recovery import ClusterStanding
from mediaserver.wire.worker_tokens import REVOKED

_FROZEN = {
    "NotFrozen": "routers are moved when their server is lost",
    "NoServerConnected": "none of its servers is connected, so nothing is moved; check the operator's "
    "network, and the servers",
    "ServersSilent": "more than half of its servers fell silent at once, so nothing is moved for a minute; "
    "check the network between operator and servers",
}


def key_set_actions(cluster: MediaCluster, snapshot: Snapshot) -> list[CreateTokenKeys]:
    """Secrets to make: those that were looked for, don't exist, and were never seen before."""
    secrets = snapshot.token_keys.get(cluster.key, {})
    seen = seen_secrets(cluster)
    return [
        CreateTokenKeys(
            cluster=cluster.key,
            cluster_uid=cluster.uid,
            key_set=key_set.name,
            secret=ObjectKey(cluster.key.namespace, key_set.secret_name),
            kid=snapshot.wall_time[:10],
            reason="TokenKeysMade",
            message=f"key set {key_set.name} of MediaCluster {cluster.key} had no Secret",
        )
        for key_set in cluster.key_sets
        if key_set.name in secrets
        and not secrets[key_set.name].exists
        and (key_set.name, key_set.secret_name) not in seen
        and not cluster.deleting
    ]


def cluster_status(
    cluster: MediaCluster, standing: ClusterStanding, snapshot: Snapshot, judged: PodPlan
) -> StatusUpdate | None:
    """None when nothing changed, or while a new leader waits for servers that an earlier one knew."""
    servers = standing.servers.values()
    if any(server.unknown or (server.awaited and server.view.connected) for server in servers):
        return None
    ready = sum(1 for server in servers if accepting_reason(server) is None)
    secrets = snapshot.token_keys.get(cluster.key, {})
    conditions = Conditions(cluster, snapshot.wall_time)
    if ready:
        conditions.add(
            "Available", True, "Available", f"{ready} of {len(standing.servers)} servers take routers"
        )
    elif standing.servers:
        conditions.add("Available", False, "NoServerReady", "see the conditions of its MediaServers")
    else:
        conditions.add("Available", False, "NoServers", _no_servers(cluster))
    judge_pod_conditions(judged, snapshot, conditions)
    conditions.add("Frozen", standing.frozen, standing.frozen_reason, _FROZEN[standing.frozen_reason])
    fault = _fault(cluster, standing, secrets, snapshot, conditions, judged)
    if fault is None:
        conditions.add("Ready", True, "Ready", "all of spec holds and every server is ready")
    else:
        conditions.add("Ready", False, *fault)
    fields: dict[str, Any] = pod_fields(judged) | {
        "servers": len(standing.servers),
        "readyServers": ready,
        "keySets": [
            _key_set(name, secret_name, secrets) for name, secret_name in _known_secrets(cluster, secrets)
        ],
    }
    awaited = any(server.awaited for server in servers)
    return status_update("MediaCluster", cluster, fields, conditions, PROGRESS if awaited else 0.0)


def _no_servers(cluster: MediaCluster) -> str:
    if cluster.replicas:
        return "no pod of it has a node yet; see Progressing"
    return "set spec.replicas to have pods, or create MediaServers that name it in spec.clusterRef"


def _fault(
    cluster: MediaCluster,
    standing: ClusterStanding,
    secrets: Mapping[str, KeySecret],
    snapshot: Snapshot,
    conditions: Conditions,
    judged: PodPlan,
) -> tuple[str, str] | None:
    """The first thing that keeps the cluster from being Ready: reason and message."""
    if cluster.problems:
        return cluster.problems[0].reason, cluster.problems[0].message
    codec = codec_problem(cluster.media_codecs or ())
    if codec is not None:
        return "UnsupportedCodec", f"spec.mediaCodecs: {codec}"
    if standing.frozen:
        return standing.frozen_reason, _FROZEN[standing.frozen_reason]
    keys = _key_fault(cluster, secrets) or tls_fault(snapshot.tls.get(cluster.key), snapshot.wall_time)
    if keys is not None:
        return keys
    for kind in ("Progressing", "AddressAvailable", "PortsAvailable"):
        failing = conditions.failing(kind)
        if failing is not None:
            return failing
    if not standing.servers:
        return "NoServers", _no_servers(cluster)
    away = [key.name for key, server in standing.servers.items() if accepting_reason(server) is not None]
    if away:
        named = ", ".join(away[:5]) + (" and more" if len(away) > 5 else "")
        return "ServersNotReady", f"{len(away)} of {len(standing.servers)} servers are not ready: {named}"
    starting = pods_not_ready(judged)
    if starting:
        return "PodsNotReady", f"{starting} of {cluster.replicas} pods are not ready; see Progressing"
    return None


def _key_fault(cluster: MediaCluster, secrets: Mapping[str, KeySecret]) -> tuple[str, str] | None:
    for key_set in cluster.key_sets:
        secret = secrets.get(key_set.name)
        where = f"Secret {cluster.key.namespace}/{key_set.secret_name} of key set {key_set.name}"
        if secret is None:
            return "TokenKeysPending", (
                f"{where} has not been read yet; if that stays so, allow get, list and watch of this Secret"
                " to the operator's account"
            )
        if not secret.exists:
            return "TokenKeysMissing", (
                f"{where} is missing, so its tokens are refused; restore it, or name another Secret: what "
                "was there once is not made again, since that would silently end the validity of every token"
            )
        if not secret.revoked_readable:
            return "TokenRevocationsUnreadable", (
                f"{where}: its data key {REVOKED} is no UTF-8 text throughout, so tokens that it should"
                " revoke may still count; write token ids (jti) there, one a line"
            )
        short = sorted(kid for kid, key in secret.keys.items() if len(key) < MINIMUM_KEY_BYTES)
        if short:
            return "TokenKeyTooShort", (
                f"{where}: key {short[0]} has fewer than {MINIMUM_KEY_BYTES} bytes and isn't used; replace it"
            )
        if not secret.keys:
            return "TokenKeysMissing", f"{where} holds no key; add one of {MINIMUM_KEY_BYTES} bytes or more"
    return None


def _known_secrets(cluster: MediaCluster, secrets: Mapping[str, KeySecret]) -> list[tuple[str, str]]:
    """Key sets that exist or have existed: only these are listed, so that a listed one is never made anew."""
    seen = seen_secrets(cluster)
    return sorted(
        (key_set.name, key_set.secret_name)
        for key_set in cluster.key_sets
        if (key_set.name in secrets and secrets[key_set.name].exists)
        or (key_set.name, key_set.secret_name) in seen
    )


def _key_set(name: str, secret_name: str, secrets: Mapping[str, KeySecret]) -> dict[str, Any]:
    secret = secrets.get(name)
    valid = [kid for kid, key in secret.keys.items() if len(key) >= MINIMUM_KEY_BYTES] if secret else []
    return {"name": name, "secretName": secret_name, "keyIDs": sorted(valid)[:64]}
