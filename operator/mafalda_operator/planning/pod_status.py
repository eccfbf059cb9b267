"""What the status of a MediaCluster says of its pods: counts, revisions, why pods are not ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from mafalda_operator.model import MediaCluster, ObjectKey, ObjectRef, PodView, Refusal, Snapshot
from mafalda_operator.planning.certificates import tls_fault
from mafalda_operator.planning.conditions import Conditions, counted
from mafalda_operator.planning.owned import ANNOUNCED_OF_NODES, balancer_addresses
from mafalda_operator.planning.pods import PodPlan
from mafalda_operator.planning.podspec import addresses_name, selector_labels
from mediaserver.control.contract import CANNOT_LISTEN

SLOW_START = 60.0
"""Seconds after which a container that is still being created is a problem."""

_IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_REMEDIES = {
    "NotAdmitted": "; raise the quota, or allow the namespace what it names (HostNetwork needs the Pod"
    " Security level privileged: label pod-security.kubernetes.io/enforce)",
    "Forbidden": "; allow it to the operator's account (chart: add the namespace to mediaNamespaces)",
    "Invalid": "; correct it in spec of the MediaCluster",
}
_CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a pod isn't ready, or can't be made: ``reason`` is one word, ``message`` says the remedy."""

    reason: str
    message: str


def pod_fields(judged: PodPlan) -> dict[str, Any]:
    """Fields of the status; none for a cluster that has nothing to do with pods."""
    if not judged.concerned:
        return {}
    selector = ",".join(f"{name}={value}" for name, value in selector_labels(judged.cluster.key).items())
    fields: dict[str, Any] = {"selector": selector}
    if not judged.known:
        kept = ("replicas", "readyReplicas", "updatedReplicas", "currentRevision", "updateRevision")
        return fields | {name: judged.cluster.status.get(name) for name in kept}
    live = judged.live
    updated = [pod for pod in live if pod.revision == judged.revision]
    return fields | {
        "replicas": sum(1 for pod in judged.pods if not pod.finished),
        "readyReplicas": sum(1 for pod in live if pod.ready),
        "updatedReplicas": len(updated),
        "currentRevision": _current_revision(judged, len(updated) == len(live)) or None,
        "updateRevision": judged.revision or None,
    }


def _current_revision(judged: PodPlan, all_updated: bool) -> str:
    """The revision that all pods had last."""
    stored = str(judged.cluster.status.get("currentRevision") or "")
    if all_updated or not stored:
        return judged.revision if all_updated else next((pod.revision for pod in judged.live), "")
    return stored


def judge_pod_conditions(judged: PodPlan, snapshot: Snapshot, conditions: Conditions) -> None:
    """Add Progressing, AddressAvailable and PortsAvailable; for a cluster without pods none of them."""
    if not judged.concerned:
        return
    trouble = _trouble(judged, snapshot)
    if trouble is not None:
        conditions.add("Progressing", False, trouble.reason, trouble.message)
    elif not judged.known:
        conditions.add("Progressing", None, "Reading", "the operator is reading which pods there are")
    else:
        conditions.add("Progressing", True, *_progress(judged))
    conditions.add("AddressAvailable", *_addresses(judged, snapshot))
    conditions.add("PortsAvailable", *_ports(judged, snapshot))


def pods_not_ready(judged: PodPlan) -> int:
    """Replicas that are missing or not ready."""
    if not judged.concerned:
        return 0
    return max(0, judged.cluster.replicas - sum(1 for pod in judged.live if pod.ready))


def _progress(judged: PodPlan) -> tuple[str, str]:
    cluster, live = judged.cluster, judged.live
    going = sum(1 for pod in judged.pods if pod.deleting)
    wishes = list(judged.wishes.values())
    if cluster.deleting:
        return "Draining", f"{counted(len(judged.pods), 'pod')} to be drained before it is deleted"
    old = sum(1 for pod in live if pod.revision != judged.revision)
    if old and cluster.update.type == "RollingDrain":
        draining = f", {wishes.count('Update')} of them drained now" if "Update" in wishes else ""
        return (
            "Updating",
            f"{counted(old, 'pod')} of {len(live)} to be replaced by revision {judged.revision}{draining}",
        )
    if "ScaleDown" in wishes:
        return "ScalingDown", f"{counted(wishes.count('ScaleDown'), 'pod')} drained, then deleted"
    starting = judged.missing + sum(1 for pod in live if not pod.ready)
    if starting:
        return "Starting", f"{counted(starting, 'pod')} of {cluster.replicas} not ready yet"
    ends = f"; {counted(going, 'pod')} of earlier ones still ending" if going else ""
    if old:
        return (
            "WaitingForDelete",
            f"{counted(old, 'pod')} of an earlier revision; with update type OnDelete a pod is replaced when"
            f" you delete it{ends}",
        )
    return "Complete", f"all {cluster.replicas} pods run revision {judged.revision}{ends}"


# -- what is wrong ------------------------------------------------------------------------------------------


def _trouble(judged: PodPlan, snapshot: Snapshot) -> Trouble | None:
    """What keeps pods from coming, the first thing first; None: nothing that won't pass by itself."""
    cluster = judged.cluster
    if judged.problem:
        return Trouble("PodsUnknown", judged.problem)
    if not judged.known or cluster.deleting:
        return None
    if cluster.replicas and not judged.image:
        message = "spec.image is absent and the operator has no --default-image; set one of them"
        return Trouble("ImageMissing", message)
    return (
        _refused(judged, snapshot)
        or _tls_trouble(cluster, snapshot)
        or _several(judged, list(_stuck(judged, snapshot)))
    )


def _refused(judged: PodPlan, snapshot: Snapshot) -> Trouble | None:
    """What the API server would not make."""
    namespace = judged.cluster.key.namespace
    mine = {pod.key for pod in judged.pods}
    found: list[tuple[ObjectRef, Refusal]] = []
    for ref, refusal in snapshot.object_refusals.items():
        told = ref.key.namespace == namespace and not refusal.passing
        if told and _is_of(ref, judged.cluster, mine):
            found.append((ref, refusal))
    if not found:
        return None
    ref, refusal = min(found)
    if ref.kind == "Pod" and judged.missing:
        what = f"{counted(judged.missing, 'pod')} of {judged.cluster.replicas} can't be made"
    elif ref.kind == "Pod":
        return None
    else:
        what = f"{ref} can't be made or changed"
    remedy = _REMEDIES.get(refusal.reason, "")
    return Trouble(refusal.reason, f"{what}: {refusal.message}{remedy}")


def _is_of(ref: ObjectRef, cluster: MediaCluster, pods: set[ObjectKey]) -> bool:
    """Whether an object has the name of something that the cluster owns."""
    name = cluster.key.name
    own = (name, f"{name}-media", addresses_name(cluster.key))
    return ref.key.name in own or ref.key in pods or (ref.kind == "Pod" and _base(ref.key.name) == name)


def _base(pod: str) -> str:
    return pod.rpartition("-")[0]


def _tls_trouble(cluster: MediaCluster, snapshot: Snapshot) -> Trouble | None:
    """What of the pods' certificate keeps them from starting; the rest of its faults is told by Ready."""
    secret = snapshot.tls.get(cluster.key)
    fault = tls_fault(secret, snapshot.wall_time)
    if fault is None or secret is None or secret.state in ("Good", "Pending", "Off"):
        return None
    return Trouble(*fault)


def _stuck(judged: PodPlan, snapshot: Snapshot) -> Iterator[tuple[PodView, Trouble]]:
    for pod in judged.live:
        trouble = (
            None if pod.ready or _waits_for_node(pod, judged) else _pod_trouble(pod, judged.cluster, snapshot)
        )
        if trouble is not None:
            yield pod, trouble


def _waits_for_node(pod: PodView, judged: PodPlan) -> bool:
    """On HostNetwork, for that of a pod that ends."""
    return (
        bool(pod.unschedulable) and judged.cluster.network.host and any(one.deleting for one in judged.pods)
    )


def _several(judged: PodPlan, stuck: list[tuple[PodView, Trouble]]) -> Trouble | None:
    if not stuck:
        return None
    pod, trouble = stuck[0]
    more = "" if len(stuck) == 1 else f" (one of {len(stuck)} pods that are not ready)"
    return Trouble(trouble.reason, f"pod {pod.key.name}{more}: {trouble.message}")


def _pod_trouble(pod: PodView, cluster: MediaCluster, snapshot: Snapshot) -> Trouble | None:
    describe = f"kubectl -n {pod.key.namespace} describe pod {pod.key.name}"
    if pod.unschedulable:
        remedy = (
            "on HostNetwork a node holds one pod of the cluster: add nodes, lower spec.replicas, or use"
            " network type Pod"
            if cluster.network.host
            else "add nodes, or change spec.resources or spec.template.spec"
        )
        return Trouble("Unschedulable", f"{pod.unschedulable.rstrip('.')}; {remedy}")
    if pod.waiting in _IMAGE_REASONS:
        where = "spec.image" if cluster.image else "the operator's --default-image"
        return Trouble(
            "ImagePullFailed",
            f"{pod.waiting}: {pod.waiting_message}; correct {where}, or name a pull secret in"
            " spec.template.spec.imagePullSecrets",
        )
    if pod.waiting in _CONFIG_REASONS:
        return Trouble(pod.waiting, f"{pod.waiting_message}; see {describe}")
    if pod.waiting == "CrashLoopBackOff" or (pod.restarts > 1 and not pod.waiting and pod.exit_code):
        said = f": {_last_line(pod.exit_message)}" if pod.exit_message.strip() else ""
        return Trouble(
            "CrashLooping",
            f"its media server ends again and again, with code {pod.exit_code} ({pod.exit_reason}){said}; see"
            f" kubectl -n {pod.key.namespace} logs {pod.key.name} --previous",
        )
    if pod.waiting and _age(pod, snapshot) > SLOW_START:
        return Trouble(pod.waiting, f"its container does not start; see {describe}")
    return None


def _last_line(text: str) -> str:
    """The last line of what a container said, which tells of its end."""
    return text.strip().splitlines()[-1][-500:]


def _age(pod: PodView, snapshot: Snapshot) -> float:
    """Seconds since it was made; 0 when that can't be told."""
    try:
        made, now = datetime.fromisoformat(pod.created), datetime.fromisoformat(snapshot.wall_time)
        return (now - made).total_seconds()
    except (ValueError, TypeError):
        return 0.0


# -- addresses and ports ------------------------------------------------------------------------------------


def _addresses(judged: PodPlan, snapshot: Snapshot) -> tuple[bool | None, str, str]:
    if not judged.known:
        return None, "Reading", "the operator is reading which pods and nodes there are"
    placed = [pod for pod in judged.live if pod.node]
    troubles = [trouble for pod in placed for trouble in _address_troubles(pod, judged.cluster, snapshot)]
    if troubles:
        first = troubles[0]
        more = f" (and {len(troubles) - 1} more)" if len(troubles) > 1 else ""
        return False, first.reason, first.message + more
    if not placed:
        return None, "NoPodScheduled", "no pod has a node yet, whose addresses could be looked at"
    return True, "AddressAvailable", "every pod has the addresses that it announces"


def _address_troubles(pod: PodView, cluster: MediaCluster, snapshot: Snapshot) -> Iterator[Trouble]:
    listened = _listened(pod, cluster)
    for announce in cluster.network.announce:
        wanted = ANNOUNCED_OF_NODES.get(announce.type)
        node = snapshot.nodes.get(pod.node)
        there = [one.address for one in (node.addresses if node else ()) if one.type == wanted]
        if wanted is not None and not any(_family(address) in listened for address in there):
            other = "NodeInternalIP" if wanted == "ExternalIP" else "PodIP"
            kind = f"{' or '.join(sorted(listened))} address of type {wanted}" if there else wanted
            yield Trouble(
                "NodeAddressMissing",
                f"node {pod.node}, where pod {pod.key.name} is, has no {kind} in its status.addresses; have"
                f" the node's cloud provider or administrator set one, or announce {other} in"
                " spec.network.announce",
            )
        if announce.type == "LoadBalancer" and not balancer_addresses(pod.key, snapshot):
            yield Trouble(
                "LoadBalancerPending",
                f"Service {pod.key} has no address; is there a controller for load balancers? See kubectl -n"
                f" {pod.key.namespace} describe service {pod.key.name}",
            )
    have = {_family(address) for address in pod.ips}
    lacking = [family for family in cluster.network.ip_families if pod.ips and family not in have]
    if lacking:
        yield Trouble(
            "IPFamilyMissing",
            f"pod {pod.key.name} has no {lacking[0]} address, which spec.network.ipFamilies asks for; remove"
            " it there, or give the cluster's nodes and pods both families",
        )


def _listened(pod: PodView, cluster: MediaCluster) -> set[str]:
    """The IP families that its workers listen on; both while its addresses are not known."""
    chosen = cluster.network.ip_families or [_family(address) for address in pod.ips[:1]]
    return set(chosen) or {"IPv4", "IPv6"}


def _family(address: str) -> str:
    """IPv4 or IPv6; empty for what is no IP address."""
    try:
        return f"IPv{ip_address(address).version}"
    except ValueError:
        return ""


def _ports(judged: PodPlan, snapshot: Snapshot) -> tuple[bool | None, str, str]:
    """The scheduler tells in words only that a node's ports are taken, and knows of those of pods alone."""
    if not judged.known:
        return None, "Reading", "the operator is reading which pods there are"
    if not judged.cluster.network.host:
        return True, "PortsAvailable", "pods have addresses, and so ports, of their own"
    for pod in judged.pods:
        if pod.deleting or _waits_for_node(pod, judged):
            continue
        taken = pod.finished and pod.reason == "NodePorts"
        if taken or "free ports" in pod.unschedulable:
            said = pod.message if taken else pod.unschedulable
            return (
                False,
                "PortsTaken",
                f"pod {pod.key.name}: {said.rstrip('.')}; a node holds one pod of a MediaCluster, and of"
                " clusters whose ports are the same: add nodes, lower spec.replicas, or give the clusters"
                " nodes of their own by spec.template.spec.nodeSelector",
            )
    for pod in judged.live:
        why = _cannot_listen(pod, snapshot)
        if why:
            return (
                False,
                "PortsTaken",
                f"pod {pod.key.name} on node {pod.node}: {why}; end what has the port on that node, or change"
                " spec.network.clientPorts",
            )
    if any(not pod.node for pod in judged.live):
        return None, "NotScheduled", "there are pods without a node, where ports could be looked at"
    return True, "PortsAvailable", "every pod has its ports on its node"


def _cannot_listen(pod: PodView, snapshot: Snapshot) -> str:
    """What a worker of the pod says of a port that some program of its node has; empty: none says so."""
    view = snapshot.views.get(pod.key)
    workers = view.workers if view is not None and view.connected else {}
    for slot in sorted(workers):
        worker = workers[slot]
        if worker.state != "Running" and CANNOT_LISTEN in worker.reason:
            said = worker.reason[worker.reason.index(CANNOT_LISTEN) :].partition(";")[0]
            return f"worker {slot} {said}"
    return ""
