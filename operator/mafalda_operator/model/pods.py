"""Pods and nodes as the operator sees them: what planning needs, and no more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mafalda_operator.model.fields import Raw, Reader
from mafalda_operator.model.keys import LABEL_CLUSTER, LABEL_REVISION, ObjectKey

OWNED_KINDS = ("ConfigMap", "Service", "PodDisruptionBudget")
"""Kinds of what a MediaCluster owns beside its pods."""

ZONE_LABEL = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """One media server pod. Times are RFC 3339 strings; what is not known is empty."""

    key: ObjectKey
    uid: str
    cluster: ObjectKey
    """By its label, in the pod's namespace."""
    owner_uid: str = ""
    """UID of the MediaCluster that controls it."""
    revision: str = ""
    created: str = ""
    node: str = ""
    """Empty: not scheduled yet."""
    ips: tuple[str, ...] = ()
    phase: str = "Pending"
    ready: bool = False
    deleting: bool = False
    deletion_deadline: str = ""
    """When Kubernetes kills it: deletionTimestamp, which the grace period is part of."""
    unschedulable: str = ""
    """Why no node takes it, in the scheduler's words."""
    waiting: str = ""
    """Why the container isn't running, such as ContainerCreating, ImagePullBackOff or CrashLoopBackOff."""
    waiting_message: str = ""
    exit_code: int | None = None
    """Of the container's last end; None: it has not ended."""
    exit_reason: str = ""
    """Error, OOMKilled, Completed, …"""
    exit_message: str = ""
    restarts: int = 0
    reason: str = ""
    """Of a failed pod: Evicted, NodeAffinity, Preempting, …"""
    message: str = ""

    @property
    def finished(self) -> bool:
        """It runs no more and never will again."""
        return self.phase in ("Failed", "Succeeded")

    @property
    def live(self) -> bool:
        """It counts as one of the replicas."""
        return not self.deleting and not self.finished

    @classmethod
    def parse(cls, obj: Raw) -> PodView:
        """From a Pod as the API server gives it; never raises."""
        metadata = Reader(obj.get("metadata"), "metadata", [])
        status = Reader(obj.get("status"), "status", [])
        namespace = metadata.text("namespace") or ""
        labels = metadata.string_map("labels")
        conditions = {one.text("type"): one for one in status.items("conditions")}
        container = next(iter(status.items("containerStatuses")), Reader(None, "", []))
        state, last = container.child("state"), container.child("lastState")
        ended = state.child("terminated") if state.raw.get("terminated") else last.child("terminated")
        ips = tuple(item.text("ip") or "" for item in status.items("podIPs"))
        scheduled = conditions.get("PodScheduled")
        unscheduled = scheduled is not None and scheduled.text("status") == "False"
        ready = conditions.get("Ready")
        deadline = metadata.text("deletionTimestamp") or ""
        return cls(
            key=ObjectKey(namespace, metadata.text("name") or ""),
            uid=metadata.text("uid") or "",
            cluster=ObjectKey(namespace, labels.get(LABEL_CLUSTER, "")),
            owner_uid=controller_uid(metadata, "MediaCluster"),
            revision=labels.get(LABEL_REVISION, ""),
            created=metadata.text("creationTimestamp") or "",
            node=Reader(obj.get("spec"), "spec", []).text("nodeName") or "",
            ips=ips or tuple(one for one in (status.text("podIP"),) if one),
            phase=status.text("phase") or "Pending",
            ready=ready is not None and ready.text("status") == "True",
            deleting=bool(deadline),
            deletion_deadline=deadline,
            unschedulable=(scheduled.text("message") or "") if scheduled and unscheduled else "",
            waiting=state.child("waiting").text("reason") or "",
            waiting_message=state.child("waiting").text("message") or "",
            exit_code=ended.integer("exitCode"),
            exit_reason=ended.text("reason") or "",
            exit_message=ended.text("message") or "",
            restarts=container.integer("restartCount") or 0,
            reason=status.text("reason") or "",
            message=status.text("message") or "",
        )


class NodeAddress(NamedTuple):
    """An entry of a Node's status.addresses: InternalIP, ExternalIP, …"""

    type: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    name: str
    zone: str = ""
    addresses: tuple[NodeAddress, ...] = ()
    ready: bool = False
    unschedulable: bool = False

    @classmethod
    def parse(cls, obj: Raw) -> NodeView:
        """From a Node as the API server gives it; never raises."""
        metadata = Reader(obj.get("metadata"), "metadata", [])
        status = Reader(obj.get("status"), "status", [])
        return cls(
            name=metadata.text("name") or "",
            zone=metadata.string_map("labels").get(ZONE_LABEL, ""),
            addresses=tuple(
                NodeAddress(item.text("type") or "", item.text("address") or "")
                for item in status.items("addresses")
            ),
            ready=any(
                one.text("type") == "Ready" and one.text("status") == "True"
                for one in status.items("conditions")
            ),
            unschedulable=bool(Reader(obj.get("spec"), "spec", []).boolean("unschedulable")),
        )


class ObjectRef(NamedTuple):
    """An object of a kind that is not ours: Pod, ConfigMap, Service, …"""

    kind: str
    key: ObjectKey

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"


@dataclass(frozen=True, slots=True)
class OwnedObject:
    """A ConfigMap, Service or PodDisruptionBudget with a cluster's label, as the API server has it."""

    uid: str
    cluster: ObjectKey
    owner_uid: str
    """UID of what controls it, whatever its kind."""
    content: Mapping[str, Any]
    """Its labels (in `metadata`), data, spec and, of a Service, status."""

    @classmethod
    def parse(cls, obj: Raw) -> OwnedObject:
        """From the object as the API server gives it; never raises."""
        metadata = Reader(obj.get("metadata"), "metadata", [])
        labels = metadata.string_map("labels")
        content = {name: obj[name] for name in ("data", "spec") if name in obj}
        balancer = Reader(obj.get("status"), "status", []).child("loadBalancer").raw
        return cls(
            uid=metadata.text("uid") or "",
            cluster=ObjectKey(metadata.text("namespace") or "", labels.get(LABEL_CLUSTER, "")),
            owner_uid=controller_uid(metadata),
            content={
                "metadata": {"labels": labels},
                **content,
                **({"status": {"loadBalancer": balancer}} if balancer else {}),
            },
        )


def controller_uid(metadata: Reader, kind: str | None = None) -> str:
    """UID of the controlling owner, of that kind; empty: there is none."""
    for owner in metadata.items("ownerReferences"):
        if owner.boolean("controller") and kind in (None, owner.text("kind")):
            return owner.text("uid") or ""
    return ""
