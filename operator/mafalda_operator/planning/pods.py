"""Which pods of a MediaCluster come and go.

First it is judged which servers should be drained (`judge_pods`), since placement must know; what is drained
then goes, and what is missing is made (`pod_actions`). The operator makes pods itself, for a Deployment can't
be told which pod to take, nor to wait for a drain, nor to let the old pod of a node go before the new comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mafalda_operator.model import MediaCluster, ObjectKey, ObjectRef, PodView, Snapshot
from mafalda_operator.planning.actions import CreatePod, CreateServer, DeletePod, PodAction, SetFinalizer
from mafalda_operator.planning.draining import Drain, judge_drains
from mafalda_operator.planning.memory import Memory, Wish
from mafalda_operator.planning.names import free_pod_name
from mafalda_operator.planning.podspec import addresses_name, build_pod, build_server, revision_of
from mafalda_operator.planning.recovery import ClusterStanding, Standing, judge_cluster

_WHY: Mapping[Wish, str] = {
    "ScaleDown": "its MediaCluster has more replicas than it asks for",
    "Update": "a pod of the newest revision takes its place",
    "ClusterDeleting": "its MediaCluster is being deleted",
}


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What planning wants of one cluster's pods. ``pods`` are all of them, ordered by name."""

    cluster: MediaCluster
    pods: tuple[PodView, ...]
    known: bool
    """Whether the pods are all known: else nothing is made or deleted."""
    problem: str
    """Why they are not known; empty: they are, or are being read."""
    image: str
    """Empty: there is none, so no pod can be made."""
    revision: str
    wishes: Mapping[ObjectKey, Wish] = field(default_factory=dict)
    """Servers that should be drained and then go."""
    missing: int = 0
    """Pods to be made, those included that were tried already."""

    @property
    def live(self) -> list[PodView]:
        """Those that count as replicas."""
        return [pod for pod in self.pods if pod.live]

    @property
    def concerned(self) -> bool:
        """Whether the cluster has anything to do with pods, or may have."""
        unread = self.cluster.drain_finalizer and not self.known
        return bool(self.cluster.replicas or self.pods or unread)


def judge_all_pods(snapshot: Snapshot, memory: Memory) -> dict[ObjectKey, PodPlan]:
    """Of every cluster, ordered by name; those without pods cost next to nothing."""
    drains = judge_drains(snapshot, memory, wishes=memory.wishes) if snapshot.pods else None
    return {
        key: judge_pods(snapshot.clusters[key], snapshot, memory, drains) for key in sorted(snapshot.clusters)
    }


def wishes_of(plans: Mapping[ObjectKey, PodPlan]) -> dict[ObjectKey, Wish]:
    """Why servers should be drained, by server."""
    return {key: wish for judged in plans.values() for key, wish in judged.wishes.items()}


def judge_pods(
    cluster: MediaCluster,
    snapshot: Snapshot,
    memory: Memory,
    drains: Mapping[ObjectKey, Drain] | None = None,
) -> PodPlan:
    """Which servers should go, and how many pods are missing. ``drains`` are those of the last plan."""
    pods = tuple(
        pod
        for key in sorted(snapshot.pods_by_cluster.get(cluster.key, ()))
        if (pod := snapshot.pods[key]).owner_uid == cluster.uid
    )
    problem = snapshot.followed.get(cluster.key.namespace)
    image = (cluster.image or snapshot.default_image) if pods or cluster.replicas else ""
    judged = PodPlan(
        cluster=cluster,
        pods=pods,
        known=problem == "",
        problem=problem or "",
        image=image,
        revision=revision_of(cluster, image) if image else "",
    )
    if not judged.concerned:
        return judged
    servers = [snapshot.servers[key] for key in snapshot.servers_by_cluster.get(cluster.key, ())]
    standing = judge_cluster(cluster, servers, snapshot, memory, drains)
    return _Judge(judged, standing, snapshot, memory).run()


class _Judge:
    def __init__(
        self, judged: PodPlan, standing: ClusterStanding, snapshot: Snapshot, memory: Memory
    ) -> None:
        self.judged, self.cluster, self.standing = judged, judged.cluster, standing
        self.servers: Mapping[ObjectKey, Standing] = standing.servers
        self.snapshot, self.memory = snapshot, memory

    def run(self) -> PodPlan:
        wishes: dict[ObjectKey, Wish] = {}
        missing = 0
        if not self.judged.known:
            wishes = dict(self._chosen())
        elif self.cluster.deleting:
            wishes = {pod.key: "ClusterDeleting" for pod in self.judged.live}
        else:
            wishes, missing = self._adjust()
        return replace(self.judged, wishes=wishes, missing=missing)

    def _adjust(self) -> tuple[dict[ObjectKey, Wish], int]:
        """Scale and update: no more than replicas + maxSurge, no less than replicas - maxUnavailable."""
        live, policy = self.judged.live, self.cluster.update
        old = [pod for pod in live if self._old(pod)]
        rolling = policy.type == "RollingDrain"
        surge = min(policy.max_surge, len(old)) if rolling and self.cluster.replicas else 0
        target = self.cluster.replicas + surge
        victims = self._by_rank(live)[: max(0, len(live) - target)]
        wishes: dict[ObjectKey, Wish] = {pod.key: "ScaleDown" for pod in victims}
        if rolling:
            rest = [pod for pod in live if pod.key not in wishes]
            wishes.update((pod.key, "Update") for pod in self._to_update(rest))
        return wishes, max(0, target - len(live))

    def _to_update(self, pods: list[PodView]) -> Iterator[PodView]:
        """Old pods that should go now; those chosen before stay chosen."""
        old = [pod for pod in self._by_rank(pods) if self._old(pod)]
        chosen = [pod for pod in old if self._chosen_for(pod.key) == "Update"]
        yield from chosen
        if self.standing.frozen:
            return
        going = {pod.key for pod in chosen}
        staying = [pod for pod in pods if pod.key not in going and self._available(pod)]
        budget = len(staying) - (self.cluster.replicas - self.cluster.update.max_unavailable)
        for pod in old:
            if pod.key in going:
                continue
            if self._broken(pod):
                yield pod
            elif self._available(pod) and budget > 0:
                budget -= 1
                yield pod

    def _by_rank(self, pods: Iterable[PodView]) -> list[PodView]:
        """The one that is to go first comes first: chosen before, unscheduled, not ready, of an old revision,
        with fewest participants, with fewest routers, newest."""
        newest = sorted(pods, key=lambda pod: (pod.created, pod.key), reverse=True)
        return sorted(newest, key=self._rank)

    def _rank(self, pod: PodView) -> tuple[bool, bool, bool, bool, int, int]:
        standing = self.servers.get(pod.key)
        load = standing.view.load if standing is not None else None
        participants = sum(one.participants for one in load.routers.values()) if load else 0
        return (
            self._chosen_for(pod.key) is None,
            bool(pod.node),
            self._available(pod),
            not self._old(pod),
            participants,
            len(self.snapshot.routers_by_server.get(pod.key, ())),
        )

    def _old(self, pod: PodView) -> bool:
        """Without an image there is no newest revision, so nothing is old."""
        return bool(self.judged.image) and pod.revision != self.judged.revision

    def _available(self, pod: PodView) -> bool:
        standing = self.servers.get(pod.key)
        return pod.ready and standing is not None and standing.state == "Connected"

    def _broken(self, pod: PodView) -> bool:
        """Neither Kubernetes nor the operator finds it at work."""
        standing = self.servers.get(pod.key)
        return not pod.ready and (standing is None or standing.state != "Connected")

    def _chosen(self) -> Iterator[tuple[ObjectKey, Wish]]:
        for key in self.servers:
            wish = self._chosen_for(key)
            if wish is not None:
                yield key, wish

    def _chosen_for(self, key: ObjectKey) -> Wish | None:
        """Why the server was chosen to go, by an earlier plan or (its status says) an earlier leader."""
        wish = self.memory.wishes.get(key)
        if wish is not None:
            return wish
        standing = self.servers.get(key)
        drain = standing.server.drain_status if standing is not None else None
        if drain is None:
            return None
        match drain.reason:
            case "ScaleDown" | "Update" | "ClusterDeleting":
                return drain.reason
            case _:
                return None


@dataclass(frozen=True, slots=True)
class PodActions:
    """``names`` are those of pods that were asked for and are not seen yet: they are tried again, so that one
    replica never becomes two pods. ``retry_at`` is when something is to be tried again."""

    actions: tuple[PodAction, ...]
    names: tuple[ObjectKey, ...]
    retry_at: float | None = None


def pod_actions(
    judged: PodPlan, snapshot: Snapshot, memory: Memory, drained: Callable[[ObjectKey], bool]
) -> PodActions:
    """What to make and delete now; ``drained`` says whether nothing is left on a server that should go."""
    if judged.cluster.deleting and _terminating(judged.cluster, snapshot):
        return PodActions(tuple(_let_go(judged.cluster)), ())
    if not judged.known:
        return PodActions((), asked(judged.cluster, memory))
    actions: list[PodAction] = list(_finalizer(judged, snapshot))
    actions += _deletions(judged, snapshot, drained)
    retries: list[float] = []
    names = _names(judged, snapshot, memory)
    if _may_create(judged, snapshot):
        for key in names[: judged.missing]:
            refusal = snapshot.object_refusals.get(ObjectRef("Pod", key))
            if refusal is None or refusal.retry_at <= snapshot.now:
                actions.append(_create(judged, key))
            else:
                retries.append(refusal.retry_at)
        actions += _servers(judged, snapshot, retries)
    return PodActions(tuple(actions), names, min(retries, default=None))


def _finalizer(judged: PodPlan, snapshot: Snapshot) -> Iterator[SetFinalizer]:
    cluster = judged.cluster
    wanted = bool(judged.pods) or (cluster.replicas > 0 and not cluster.deleting)
    if wanted == cluster.drain_finalizer or (wanted and cluster.deleting):
        return  # none can be added to what is being deleted
    if wanted and _terminating(cluster, snapshot):
        return
    reason = "PodsToDrain" if wanted else "NoPodLeft"
    message = "its deletion waits for its pods to be drained" if wanted else "it has no pods, so it may go"
    yield SetFinalizer(cluster.key, cluster.uid, wanted, reason, message)


def _let_go(cluster: MediaCluster) -> Iterator[SetFinalizer]:
    """Its namespace ends: the servers' objects go at once, Kubernetes ends the pods, and the right to see
    them, which is bound there, goes as well. So nothing is drained, and nothing may hold the namespace up."""
    if cluster.drain_finalizer:
        message = "its namespace is being deleted, pods and all"
        yield SetFinalizer(cluster.key, cluster.uid, False, "NamespaceTerminating", message)


def _terminating(cluster: MediaCluster, snapshot: Snapshot) -> bool:
    namespace = snapshot.namespaces.get(cluster.key.namespace)
    return namespace is not None and namespace.terminating


def _may_create(judged: PodPlan, snapshot: Snapshot) -> bool:
    """Not before a deletion would wait for it, and the addresses that it is to announce can be read there."""
    cluster = judged.cluster
    addresses = ObjectRef("ConfigMap", ObjectKey(cluster.key.namespace, addresses_name(cluster.key)))
    return (
        bool(judged.image)
        and cluster.drain_finalizer
        and not cluster.deleting
        and not _terminating(cluster, snapshot)
        and addresses in snapshot.owned
    )


def _deletions(
    judged: PodPlan, snapshot: Snapshot, drained: Callable[[ObjectKey], bool]
) -> Iterator[DeletePod]:
    for pod in judged.pods:
        if pod.deleting:
            continue
        if pod.finished:
            why = pod.message or pod.reason or f"it ended: {pod.exit_reason or pod.phase}"
            yield DeletePod(pod.key, pod.uid, judged.cluster.key, pod.reason or "PodFailed", why)
            continue
        wish = judged.wishes.get(pod.key)
        if wish is not None and (pod.key not in snapshot.servers or drained(pod.key)):
            yield DeletePod(pod.key, pod.uid, judged.cluster.key, wish, _WHY[wish])


def asked(cluster: MediaCluster, memory: Memory) -> tuple[ObjectKey, ...]:
    """Pods that were asked for and had not been seen by the last plan."""
    return tuple(sorted(key for key, uid in memory.pod_names.items() if uid == cluster.uid))


def _names(judged: PodPlan, snapshot: Snapshot, memory: Memory) -> tuple[ObjectKey, ...]:
    """At least as many as pods are missing: those asked for before first, for they may exist unseen."""
    before = asked(judged.cluster, memory)
    names = [key for key in before if key not in snapshot.pods and not _taken(key, snapshot)]
    used: Collection[ObjectKey] = {*snapshot.pods, *snapshot.servers, *memory.pod_names}
    for number in range(judged.missing - len(names)):
        seed = f"{judged.cluster.uid}/{snapshot.wall_time}/{snapshot.now}/{number}"
        key = free_pod_name(judged.cluster.key, seed, {*used, *names})
        names.append(key)
    return tuple(names)


def _taken(key: ObjectKey, snapshot: Snapshot) -> bool:
    """Whether something that isn't ours has the name."""
    refusal = snapshot.object_refusals.get(ObjectRef("Pod", key))
    return refusal is not None and refusal.reason == "AlreadyExists"


def _create(judged: PodPlan, key: ObjectKey) -> CreatePod:
    cluster = judged.cluster
    return CreatePod(
        key=key,
        cluster=cluster.key,
        cluster_uid=cluster.uid,
        body=build_pod(cluster, key, judged.image),
        reason="ReplicaMissing",
        message=f"MediaCluster {cluster.key} asks for {cluster.replicas} replicas",
    )


def _servers(judged: PodPlan, snapshot: Snapshot, retries: list[float]) -> Iterator[CreateServer]:
    """MediaServers of pods that have a node."""
    for pod in judged.live:
        if not pod.node or pod.key in snapshot.servers:
            continue
        refusal = snapshot.object_refusals.get(ObjectRef("MediaServer", pod.key))
        if refusal is not None and refusal.retry_at > snapshot.now:
            retries.append(refusal.retry_at)
            continue
        node = snapshot.nodes.get(pod.node)
        body = build_server(judged.cluster, pod, node.zone if node else "")
        message = f"the pod runs on node {pod.node}"
        yield CreateServer(pod.key, judged.cluster.key, pod.uid, body, "PodScheduled", message)
