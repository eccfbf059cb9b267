"""What a MediaCluster owns beside its pods: addresses, disruption budget, Services. Desired against seen.

Nothing is deleted here: all of it goes with its owner, the MediaCluster or (load balancers) the pod.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mafalda_operator.model import (
    API_VERSION,
    LABEL_CLUSTER,
    LABEL_ROLE,
    LABEL_SERVER,
    ROLE_MEDIA_SERVER,
    MediaCluster,
    ObjectKey,
    ObjectRef,
    OwnedObject,
    PodView,
    Snapshot,
)
from mafalda_operator.planning.actions import ApplyObject
from mafalda_operator.planning.pods import PodPlan
from mafalda_operator.planning.podspec import (
    HEALTH_PORT,
    addresses_name,
    client_ports,
    selector_labels,
)

ANNOUNCED_OF_NODES = {"NodeExternalIP": "ExternalIP", "NodeInternalIP": "InternalIP"}
"""What spec.network.announce names, as a Node's status.addresses has it."""

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Wanted:
    ref: ObjectRef
    owner: Object
    content: Object
    """What it must hold beside its metadata; may hold more, save in ``exact``."""
    why: str
    exact: str | None = None
    """A top-level field that must hold nothing else."""


def owned_actions(judged: PodPlan, snapshot: Snapshot, retries: list[float]) -> Iterator[ApplyObject]:
    """What to make or to put right; ``retries`` gets when something that was refused is to be tried again."""
    cluster = judged.cluster
    namespace = snapshot.namespaces.get(cluster.key.namespace)
    if not judged.known or cluster.deleting or (namespace is not None and namespace.terminating):
        return
    if not judged.concerned:
        return
    for wanted in _wanted(judged, snapshot):
        refusal = snapshot.object_refusals.get(wanted.ref)
        if refusal is not None and refusal.retry_at > snapshot.now:
            retries.append(refusal.retry_at)
            continue
        seen = snapshot.owned.get(wanted.ref)
        if seen is not None and seen.owner_uid not in ("", wanted.owner["uid"]):
            seen = None  # another's: making it will be refused, and the refusal is what the user reads
        if seen is None:
            body = {"metadata": _metadata(wanted, cluster), **wanted.content}
            reason, message = "ObjectMissing", f"MediaCluster {cluster.key} needs it {wanted.why}"
        elif body := _repair(wanted, cluster, seen):
            reason, message = "ObjectChanged", f"it is not what MediaCluster {cluster.key} needs {wanted.why}"
        else:
            continue
        uid = seen.uid if seen is not None else ""
        yield ApplyObject(wanted.ref, cluster.key, wanted.owner["uid"], uid, body, reason, message)


def node_addresses(cluster: MediaCluster, snapshot: Snapshot) -> dict[str, str]:
    """Data of the ConfigMap: the addresses of every node and of every pod's load balancer, as far as the
    cluster announces such."""
    data: dict[str, str] = {}
    network = cluster.network
    if network.announces("NodeExternalIP", "NodeInternalIP"):
        for name in sorted(snapshot.nodes):
            addresses = [
                {"type": one.type, "address": one.address}
                for one in snapshot.nodes[name].addresses
                if one.type in ("ExternalIP", "InternalIP")
            ]
            data[f"node.{name}"] = json.dumps(addresses)
    if network.announces("LoadBalancer"):
        for key in sorted(snapshot.pods_by_cluster.get(cluster.key, ())):
            found = balancer_addresses(key, snapshot)
            if found:
                data[f"server.{key.name}"] = json.dumps(
                    [{"type": "LoadBalancer", "address": address} for address in found]
                )
    return data


def balancer_addresses(pod: ObjectKey, snapshot: Snapshot) -> list[str]:
    """What the load balancer of a pod answers at; nothing while it has no address."""
    service = snapshot.owned.get(ObjectRef("Service", pod))
    if service is None:
        return []
    status = service.content.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or []
    return [address for one in ingress if (address := one.get("ip") or one.get("hostname"))]


def _wanted(judged: PodPlan, snapshot: Snapshot) -> Iterator[_Wanted]:
    cluster = judged.cluster
    name, namespace = cluster.key.name, cluster.key.namespace
    owner = {
        "apiVersion": API_VERSION,
        "kind": "MediaCluster",
        "name": name,
        "uid": cluster.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    selector = selector_labels(cluster.key)
    yield _Wanted(
        ObjectRef("ConfigMap", ObjectKey(namespace, addresses_name(cluster.key))),
        owner,
        {"data": node_addresses(cluster, snapshot)},
        "for its pods to read the addresses that they announce",
        exact="data",
    )
    # Not maxUnavailable, for which Kubernetes must find our scale subresource: a budget that it meets before
    # it knows our kinds lets no pod go until it is changed.
    enough = {"minAvailable": max(0, cluster.replicas - 1), "selector": {"matchLabels": selector}}
    yield _Wanted(
        ObjectRef("PodDisruptionBudget", cluster.key),
        owner,
        {"spec": enough},
        "so that its pods are evicted one after the other",
        exact="spec",  # minAvailable and maxUnavailable exclude each other
    )
    health = {"name": "health", "port": HEALTH_PORT, "targetPort": HEALTH_PORT, "protocol": "TCP"}
    yield _Wanted(
        ObjectRef("Service", ObjectKey(namespace, f"{name}-media")),
        owner,
        {"spec": {"clusterIP": "None", "selector": selector, "ports": [health]}},
        "for metrics and DNS",
    )
    if cluster.network.announces("LoadBalancer"):
        for pod in judged.live:
            yield _balancer(cluster, pod)


def _balancer(cluster: MediaCluster, pod: PodView) -> _Wanted:
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod.key.name,
        "uid": pod.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
    ports = [
        {"name": f"{protocol.lower()}-{port}", "protocol": protocol, "port": port, "targetPort": port}
        for port in client_ports(cluster)
        for protocol in ("UDP", "TCP")
    ]
    spec = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "publishNotReadyAddresses": True,
        "selector": {LABEL_SERVER: pod.key.name, **selector_labels(cluster.key)},
        "ports": ports,
    }
    return _Wanted(ObjectRef("Service", pod.key), owner, {"spec": spec}, "to reach that pod from outside")


def _metadata(wanted: _Wanted, cluster: MediaCluster) -> Object:
    return {
        "name": wanted.ref.key.name,
        "namespace": wanted.ref.key.namespace,
        "labels": {LABEL_CLUSTER: cluster.key.name, LABEL_ROLE: ROLE_MEDIA_SERVER},
        "ownerReferences": [wanted.owner],
    }


def _repair(wanted: _Wanted, cluster: MediaCluster, seen: OwnedObject) -> Object:
    """The merge patch that puts right what is seen; empty when it is right."""
    labels = _metadata(wanted, cluster)["labels"]
    body: Object = {}
    for field, value in wanted.content.items():
        held = seen.content.get(field) or {}
        surplus = [name for name in held if name not in value] if wanted.exact == field else []
        if surplus or not covers(held, value):
            body[field] = {**value, **dict.fromkeys(surplus)}
    held_labels = (seen.content.get("metadata") or {}).get("labels") or {}
    if not covers(held_labels, labels):
        body["metadata"] = {"labels": labels}
    if not seen.owner_uid:
        body.setdefault("metadata", {})["ownerReferences"] = [wanted.owner]
    return body


def covers(held: Any, wanted: Any) -> bool:
    """Whether ``held`` has all that ``wanted`` has; objects may have more, lists may not."""
    if isinstance(wanted, Mapping):
        return isinstance(held, Mapping) and all(
            name in held and covers(held[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list | tuple):
        return (
            isinstance(held, list | tuple)
            and len(held) == len(wanted)
            and all(covers(one, other) for one, other in zip(held, wanted, strict=True))
        )
    return bool(held == wanted)
