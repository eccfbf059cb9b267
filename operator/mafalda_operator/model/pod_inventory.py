"""The part of the inventory that clusters with pods need: pods, nodes, and what clusters own beside them."""

from __future__ import annotations

from collections.abc import Mapping

from mafalda_operator.model.keys import ObjectKey
from mafalda_operator.model.pods import NodeView, ObjectRef, OwnedObject, PodView
from mafalda_operator.model.resources import MediaCluster, MediaServer
from mafalda_operator.model.scope import NOTHING, Scope, unindex
from mafalda_operator.model.views import Refusal

INTERNAL_PORT = 4000
"""Of the internal listener of every media server pod."""


def pod_address(server: MediaServer, pods: Mapping[ObjectKey, PodView]) -> str:
    """HOST:PORT of the internal listener of a server's pod; empty while that has no address."""
    pod = pods.get(server.key)
    if pod is None or pod.uid != server.pod_uid or not pod.ips:
        return ""
    host = f"[{pod.ips[0]}]" if ":" in pod.ips[0] else pod.ips[0]
    return f"{host}:{INTERNAL_PORT}"


class PodInventory:
    """Each change returns the scope to plan anew; empty when nothing changed."""

    def __init__(self) -> None:
        self.clusters: dict[ObjectKey, MediaCluster] = {}
        self.pods: dict[ObjectKey, PodView] = {}
        self.nodes: dict[str, NodeView] = {}
        self.owned: dict[ObjectRef, OwnedObject] = {}
        self.followed: dict[str, str] = {}
        self.object_refusals: dict[ObjectRef, Refusal] = {}
        self.default_image = ""
        self.pods_by_cluster: dict[ObjectKey, dict[ObjectKey, None]] = {}

    def put_pod(self, pod: PodView) -> Scope:
        old = self.pods.get(pod.key)
        if old == pod:
            return NOTHING
        self.pods[pod.key] = pod
        if old is not None and old.cluster != pod.cluster:
            unindex(self.pods_by_cluster, old.cluster, pod.key)
        self.pods_by_cluster.setdefault(pod.cluster, {})[pod.key] = None
        return Scope(servers=frozenset({pod.key}), clusters=frozenset({pod.cluster}))

    def remove_pod(self, key: ObjectKey) -> Scope:
        pod = self.pods.pop(key, None)
        if pod is None:
            return NOTHING
        unindex(self.pods_by_cluster, pod.cluster, key)
        return Scope(servers=frozenset({key}), clusters=frozenset({pod.cluster}))

    def put_node(self, name: str, node: NodeView | None) -> Scope:
        """Set or (None) remove a node: all clusters that have pods, or want some, are concerned."""
        if self.nodes.get(name) == node:
            return NOTHING
        if node is None:
            del self.nodes[name]
        else:
            self.nodes[name] = node
        return Scope(clusters=frozenset(key for key in self.clusters if self.wants_pods(key)))

    def put_owned(self, ref: ObjectRef, owned: OwnedObject | None) -> Scope:
        """Set or (None) remove an object that carries a cluster's label."""
        old = self.owned.get(ref)
        if old == owned:
            return NOTHING
        if owned is None:
            del self.owned[ref]
        else:
            self.owned[ref] = owned
        return Scope(clusters=frozenset(one.cluster for one in (old, owned) if one is not None))

    def put_followed(self, namespace: str, problem: str | None) -> Scope:
        """Whether the pods of a namespace are known (empty text), or why not; None: nobody wants them."""
        if self.followed.get(namespace) == problem:
            return NOTHING
        if problem is None:
            del self.followed[namespace]
        else:
            self.followed[namespace] = problem
        return Scope(clusters=frozenset(key for key in self.clusters if key.namespace == namespace))

    def put_object_refusal(self, ref: ObjectRef, refusal: Refusal | None) -> None:
        """Remember that the API server would not make this object; None: it has. The planner's wake-up
        retries it."""
        if refusal is None:
            self.object_refusals.pop(ref, None)
        else:
            self.object_refusals[ref] = refusal

    def is_starting(self, server: MediaServer) -> bool:
        """Whether a server's pod is known to run nothing yet, so that nobody would answer there."""
        pod = self.pods.get(server.key)
        return pod is not None and pod.uid == server.pod_uid and pod.phase == "Pending"

    def wants_pods(self, cluster: ObjectKey) -> bool:
        """Whether a cluster has pods, wants some, or is to be let go once it has none."""
        held = self.clusters.get(cluster)
        if held is None:
            return False
        return held.replicas > 0 or held.drain_finalizer or cluster in self.pods_by_cluster

    def forget_object_refusals(self, now: float) -> None:
        """Drop those whose time to retry has come and gone by a minute."""
        for ref in [ref for ref, refusal in self.object_refusals.items() if refusal.retry_at + 60 < now]:
            del self.object_refusals[ref]
