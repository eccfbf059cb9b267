"""A MediaCluster's pods in memory: an API server, a scheduler and kubelets that do as tests say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mafalda_operator.model import (
    DRAIN_FINALIZER,
    Inventory,
    MediaCluster,
    MediaServer,
    NamespaceInfo,
    NodeView,
    ObjectKey,
    ObjectRef,
    OwnedObject,
    PodView,
    Refusal,
    ServerView,
    Snapshot,
)
from mafalda_operator.planning.actions import (
    Action,
    ApplyObject,
    CreatePod,
    CreateServer,
    DeletePod,
    SetFinalizer,
)
from mafalda_operator.planning.memory import Memory
from mafalda_operator.planning.owned import owned_actions
from mafalda_operator.planning.pods import PodPlan, judge_pods, pod_actions

from mediaserver.control.contract import Load, RouterLoad

NAMESPACE = "media"
KEY = ObjectKey(NAMESPACE, "main")
START = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@dataclass
class PodWorld:
    """``spec`` is the MediaCluster's; ``nodes`` are as many as there are."""

    spec: dict[str, Any] = field(default_factory=dict)
    nodes: int = 3
    default_image: str = "image:1"
    host_conflicts: bool = True
    """Whether the scheduler keeps pods of HostNetwork apart."""

    def __post_init__(self) -> None:
        self.inventory = Inventory()
        self.inventory.default_image = self.default_image
        self.inventory.put_namespace(NAMESPACE, NamespaceInfo({}))
        self.inventory.put_followed(NAMESPACE, "")
        self.memory = Memory()
        self.now = 1000.0
        self.generation = 1
        self.finalizers: list[str] = []
        self.deleting = False
        self.status: dict[str, Any] = {}
        self.views: dict[ObjectKey, ServerView] = {}
        self.participants: dict[ObjectKey, int] = {}
        self.lose_answers = False
        """Creates happen, but nobody hears of it."""
        self.unanswered: list[PodView] = []
        self.refuse: tuple[str, str] | None = None
        self.judged: PodPlan | None = None
        self.made: list[ObjectKey] = []
        self.deleted: list[tuple[ObjectKey, str]] = []
        for number in range(self.nodes):
            self.inventory.put_node(f"n{number}", NodeView(name=f"n{number}", zone="a", ready=True))
        self.put_cluster()

    # -- what the user does -------------------------------------------------------------------------------

    def change(self, **spec: Any) -> None:
        self.spec |= spec
        self.generation += 1
        self.put_cluster()

    def put_cluster(self) -> None:
        metadata = {
            "name": KEY.name,
            "namespace": NAMESPACE,
            "uid": "cluster-uid",
            "generation": self.generation,
            "finalizers": self.finalizers,
            "creationTimestamp": "2026-11-25T11:00:00Z",
        }
        if self.deleting:
            metadata["deletionTimestamp"] = "2026-11-25T12:00:00Z"
        self.inventory.put(
            MediaCluster.parse({"metadata": metadata, "spec": self.spec, "status": self.status})
        )

    @property
    def cluster(self) -> MediaCluster:
        return self.inventory.clusters[KEY]

    # -- what planning does -------------------------------------------------------------------------------

    @property
    def wall_time(self) -> str:
        return (START + timedelta(seconds=self.now - 1000)).strftime("%Y-%m-%dT%H:%M:%SZ")

    def snapshot(self) -> Snapshot:
        return self.inventory.snapshot(
            views=self.views, now=self.now, wall_time=self.wall_time, leading_since=0.0
        )

    def plan(self) -> list[Action]:
        snapshot = self.snapshot()
        judged = judge_pods(self.cluster, snapshot, self.memory)
        self.judged = judged
        retries: list[float] = []
        done = pod_actions(judged, snapshot, self.memory, self.drained)
        actions: list[Action] = [*owned_actions(judged, snapshot, retries), *done.actions]
        names = dict.fromkeys(done.names, self.cluster.uid)
        self.memory = replace(self.memory, wishes=judged.wishes, pod_names=names)
        return actions

    def drained(self, server: ObjectKey) -> bool:
        return not self.participants.get(server)

    def turn(self) -> list[Action]:
        """Plan and carry out."""
        actions = self.plan()
        for action in actions:
            self.carry_out(action)
        self.now += 1
        return actions

    def carry_out(self, action: Action) -> None:
        match action:
            case CreatePod():
                self.create(action)
            case CreateServer():
                self.inventory.put(
                    MediaServer.parse({**action.body, "metadata": {**action.body["metadata"], "uid": "s"}})
                )
            case DeletePod():
                assert self.inventory.pods[action.key].uid == action.uid
                self.deleted.append((action.key, action.reason))
                self.delete(action.key)
            case ApplyObject():
                self.apply(action)
            case SetFinalizer():
                self.finalizers = [DRAIN_FINALIZER] if action.present else []
                if self.deleting and not self.finalizers:
                    self.inventory.remove("MediaCluster", KEY)
                else:
                    self.put_cluster()

    def create(self, action: CreatePod) -> None:
        if self.refuse is not None:
            refusal = Refusal(*self.refuse, self.now + 5)
            self.inventory.put_object_refusal(ObjectRef("Pod", action.key), refusal)
            return
        metadata = {**action.body["metadata"], "uid": f"uid-{action.key.name}"}
        metadata["creationTimestamp"] = self.wall_time
        pod = PodView.parse(
            {"metadata": metadata, "spec": action.body["spec"], "status": {"phase": "Pending"}}
        )
        known = {pod.key for pod in self.unanswered} | self.inventory.pods.keys()
        if pod.key not in known:
            self.made.append(pod.key)
            if self.lose_answers:
                self.unanswered.append(pod)
                return
        self.deliver(pod)

    def deliver(self, pod: PodView) -> None:
        """The watch tells of it, or an answer."""
        self.unanswered = [one for one in self.unanswered if one.key != pod.key]
        self.inventory.put_pod(pod)

    def apply(self, action: ApplyObject) -> None:
        held = self.inventory.owned.get(action.ref)
        content: Mapping[str, Any] = held.content if held is not None else {}
        merged = {**content, **{k: v for k, v in action.body.items() if k != "metadata"}}
        labels = {**(content.get("metadata") or {}), **action.body.get("metadata", {})}.get("labels", {})
        merged["metadata"] = {"labels": labels}
        owned = OwnedObject(f"uid-{action.ref}", KEY, action.owner_uid, merged)
        self.inventory.put_owned(action.ref, owned)

    # -- what nodes do ------------------------------------------------------------------------------------

    @property
    def pods(self) -> list[PodView]:
        return [self.inventory.pods[key] for key in sorted(self.inventory.pods)]

    @property
    def live(self) -> list[PodView]:
        return [pod for pod in self.pods if pod.live]

    def put(self, pod: PodView, **changes: Any) -> PodView:
        changed = replace(pod, **changes)
        self.inventory.put_pod(changed)
        return changed

    def schedule(self) -> None:
        """Give pods nodes, on HostNetwork one each."""
        for pod in self.pods:
            if pod.node or not pod.live:
                continue
            used = {one.node for one in self.pods if one.node}
            every = [f"n{number}" for number in range(self.nodes)]
            free = [node for node in every if node not in used]
            apart = self.host_conflicts and self.cluster.network.host
            nodes = free if apart else free or every
            if nodes:
                self.put(pod, node=nodes[0], ips=("10.0.0.1",), unschedulable="")
            else:
                said = (
                    "0/3 nodes are available: 3 node(s) didn't have free ports for the requested pod ports."
                )
                self.put(pod, unschedulable=said)

    def start(self, *keys: ObjectKey) -> None:
        """These pods, or all that have a node, become ready and connected."""
        for pod in self.pods:
            if pod.node and pod.live and (not keys or pod.key in keys):
                self.put(pod, phase="Running", ready=True)
                self.connect(pod.key)

    def connect(self, key: ObjectKey, participants: int | None = None) -> None:
        if participants is not None:
            self.participants[key] = participants
        count = self.participants.get(key, 0)
        load = Load(
            workers=[],
            routers={"r": RouterLoad(participants=count, producers=0, consumers=0)} if count else {},
            peers=[],
            free_pipe_ports=100,
        )
        self.views[key] = ServerView(key=key, connected=True, load=load, load_at=self.now)

    def delete(self, key: ObjectKey) -> None:
        """Begin to delete: the pod is gone at once when it has no node."""
        pod = self.inventory.pods[key]
        if pod.node and not pod.finished:
            self.put(pod, deleting=True, ready=False)
        else:
            self.gone(key)

    def gone(self, *keys: ObjectKey) -> None:
        """Pods that are being deleted, or these, have ended; what they own goes with them."""
        for key in keys or [pod.key for pod in self.pods if pod.deleting]:
            self.inventory.remove_pod(key)
            self.inventory.remove("MediaServer", key)
            self.views.pop(key, None)
            self.participants.pop(key, None)

    def run(self, turns: int = 12) -> None:
        """Everything does its work, until nothing changes any more or so many turns have passed."""
        quiet = 0
        for _ in range(turns):
            quiet = 0 if self.turn() else quiet + 1
            self.schedule()
            self.start()
            self.gone()
            if quiet > 1:
                return
