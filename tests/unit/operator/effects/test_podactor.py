"""Pods, MediaServers and owned objects as they are written: each action may come twice, or too late."""

from __future__ import annotations

from typing import Any, cast

import pytest
from mafalda_operator.effects.api import CLUSTERS, CONFIG_MAPS, PODS, KubeApi, Object, Resource
from mafalda_operator.effects.errors import Conflict, NotFound
from mafalda_operator.effects.podactor import PodActor, subject
from mafalda_operator.model import DRAIN_FINALIZER, ObjectKey, ObjectRef
from mafalda_operator.planning.actions import (
    ApplyObject,
    CreatePod,
    CreateServer,
    DeletePod,
    SetFinalizer,
)

KEY = ObjectKey("media", "main-x7f2q")
MAIN = ObjectKey("media", "main")
ADDRESSES = ObjectRef("ConfigMap", ObjectKey("media", "main-addresses"))
Name = tuple[str, str, str]


class Cluster:
    """The API server, and the store."""

    def __init__(self) -> None:
        self.objects: dict[Name, Object] = {}
        self.patches: list[Object] = []
        self.conflicts = 0
        """How many patches are refused."""
        self.held: dict[tuple[str, ObjectKey], str] = {}
        """What the store has, by UID."""

    def seed(self, resource: Resource, name: str, **metadata: Any) -> Object:
        full = {"name": name, "namespace": "media", "uid": f"uid-{name}", "resourceVersion": "1", **metadata}
        self.objects[resource.plural, "media", name] = {"kind": resource.kind, "metadata": full}
        return self.objects[resource.plural, "media", name]

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        if (resource.plural, namespace, name) in self.objects:
            raise Conflict(409, "AlreadyExists", f"{name} exists")
        obj = {"kind": resource.kind, **body, "metadata": {"uid": f"uid-{name}", **body["metadata"]}}
        self.objects[resource.plural, namespace, name] = obj
        return obj

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        try:
            return self.objects[resource.plural, namespace, name]
        except KeyError as error:
            raise NotFound(404, "NotFound", name) from error

    async def patch(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        self.patches.append(body)
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict(409, "Conflict", "changed meanwhile")
        obj = await self.get(resource, namespace, name)
        obj["metadata"] = {**obj["metadata"], **body["metadata"]}
        return obj

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> Object:
        obj = await self.get(resource, namespace, name)
        if obj["metadata"]["uid"] != uid:
            raise Conflict(409, "Conflict", "another UID")
        return obj

    # -- the store ----------------------------------------------------------------------------------------

    def put(self, kind: str, obj: Object) -> None:
        metadata = obj["metadata"]
        self.held[kind, ObjectKey(metadata.get("namespace", "media"), metadata["name"])] = metadata["uid"]

    def forget(self, kind: str, key: ObjectKey, uid: str) -> None:
        self.held.pop((kind, key), None)


class Store:
    def __init__(self, cluster: Cluster) -> None:
        self.put, self.delete = cluster.put, cluster.forget


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def actor(cluster: Cluster) -> PodActor:
    return PodActor(cast(KubeApi, cluster), Store(cluster))


def owned_by(uid: str) -> list[dict[str, Any]]:
    return [{"uid": uid, "controller": True}]


def create_pod() -> CreatePod:
    metadata = {"name": KEY.name, "namespace": "media", "ownerReferences": owned_by("c1")}
    return CreatePod(KEY, MAIN, "c1", {"metadata": metadata, "spec": {}}, "r", "m")


async def test_a_pod_is_made_once(cluster: Cluster, actor: PodActor) -> None:
    await actor.carry_out(create_pod())
    assert cluster.held == {("Pod", KEY): f"uid-{KEY.name}"}
    cluster.held.clear()
    await actor.carry_out(create_pod())  # the answer to the first was lost
    assert cluster.held == {("Pod", KEY): f"uid-{KEY.name}"}


async def test_a_pod_of_somebody_else_is_left_alone(cluster: Cluster, actor: PodActor) -> None:
    cluster.seed(PODS, KEY.name, ownerReferences=owned_by("c2"))
    with pytest.raises(Conflict, match="does not belong to this MediaCluster; delete or rename it"):
        await actor.carry_out(create_pod())
    assert cluster.held == {}


async def test_a_media_server_is_made_for_its_pod(cluster: Cluster, actor: PodActor) -> None:
    metadata = {"name": KEY.name, "namespace": "media", "ownerReferences": owned_by("p1")}
    action = CreateServer(KEY, MAIN, "p1", {"metadata": metadata, "spec": {}}, "r", "m")
    await actor.carry_out(action)
    await actor.carry_out(action)
    assert cluster.held == {("MediaServer", KEY): f"uid-{KEY.name}"}


async def test_a_pod_that_ends_within_its_grace_period_stays_known(cluster: Cluster, actor: PodActor) -> None:
    cluster.seed(PODS, KEY.name, deletionGracePeriodSeconds=930)
    await actor.carry_out(DeletePod(KEY, f"uid-{KEY.name}", MAIN, "r", "m"))
    assert cluster.held == {("Pod", KEY): f"uid-{KEY.name}"}


@pytest.mark.parametrize("case", ["at once", "gone", "another"])
async def test_a_pod_that_is_gone_is_forgotten(cluster: Cluster, actor: PodActor, case: str) -> None:
    cluster.held["Pod", KEY] = "p1"
    if case == "at once":
        cluster.seed(PODS, KEY.name, uid="p1", deletionGracePeriodSeconds=0)
    elif case == "another":
        cluster.seed(PODS, KEY.name, uid="p2")
    await actor.carry_out(DeletePod(KEY, "p1", MAIN, "r", "m"))
    assert cluster.held == {}


def apply(uid: str = "", **body: Any) -> ApplyObject:
    metadata = {
        "name": "main-addresses",
        "namespace": "media",
        "labels": {"mafalda.io/cluster": "main"},
        "ownerReferences": owned_by("c1"),
    }
    return ApplyObject(
        ADDRESSES, MAIN, "c1", uid, body or {"metadata": metadata, "data": {"a": "b"}}, "r", "m"
    )


async def test_an_owned_object_is_made_and_changed(cluster: Cluster, actor: PodActor) -> None:
    await actor.carry_out(apply())
    assert cluster.held == {("ConfigMap", ADDRESSES.key): "uid-main-addresses"}
    await actor.carry_out(apply("uid-main-addresses", data={"a": "c"}))
    assert cluster.patches == [{"data": {"a": "c"}, "metadata": {"uid": "uid-main-addresses"}}]


async def test_an_owned_object_that_was_not_seen_is_put_right(cluster: Cluster, actor: PodActor) -> None:
    cluster.seed(CONFIG_MAPS, "main-addresses", ownerReferences=owned_by("c1"))  # somebody took its label
    await actor.carry_out(apply())
    (patch,) = cluster.patches
    assert patch["data"] == {"a": "b"}
    assert patch["metadata"] == {"uid": "uid-main-addresses", "labels": {"mafalda.io/cluster": "main"}}


async def test_an_object_of_somebody_else_is_never_touched(cluster: Cluster, actor: PodActor) -> None:
    cluster.seed(CONFIG_MAPS, "main-addresses")
    with pytest.raises(Conflict, match="ConfigMap media/main-addresses exists"):
        await actor.carry_out(apply())
    assert cluster.patches == []


async def test_an_owned_object_that_is_gone_is_forgotten(cluster: Cluster, actor: PodActor) -> None:
    cluster.held["ConfigMap", ADDRESSES.key] = "u"
    await actor.carry_out(apply("u", data={}))
    assert cluster.held == {}


def finalizer(present: bool) -> SetFinalizer:
    return SetFinalizer(MAIN, "uid-main", present, "r", "m")


async def test_the_finalizer_stands_beside_those_of_others(cluster: Cluster, actor: PodActor) -> None:
    cluster.seed(CLUSTERS, "main", finalizers=["other"])
    await actor.carry_out(finalizer(True))
    await actor.carry_out(finalizer(True))
    (patch,) = cluster.patches
    assert patch["metadata"]["finalizers"] == ["other", DRAIN_FINALIZER]
    assert patch["metadata"]["resourceVersion"] == "1"
    await actor.carry_out(finalizer(False))
    assert cluster.objects["mediaclusters", "media", "main"]["metadata"]["finalizers"] == ["other"]


async def test_the_last_finalizer_lets_the_cluster_go(cluster: Cluster, actor: PodActor) -> None:
    cluster.held["MediaCluster", MAIN] = "uid-main"
    cluster.seed(CLUSTERS, "main", finalizers=[DRAIN_FINALIZER], deletionTimestamp="2026-11-25T12:00:00Z")
    await actor.carry_out(finalizer(False))
    assert cluster.held == {}


@pytest.mark.parametrize(("conflicts", "works"), [(2, True), (3, False)])
async def test_a_change_between_reading_and_writing_is_tried_again(
    cluster: Cluster, actor: PodActor, conflicts: int, works: bool
) -> None:
    cluster.seed(CLUSTERS, "main")
    cluster.conflicts = conflicts
    if works:
        await actor.carry_out(finalizer(True))
    else:
        with pytest.raises(Conflict):
            await actor.carry_out(finalizer(True))


@pytest.mark.parametrize("there", [True, False])
async def test_a_cluster_that_is_gone_needs_no_finalizer(
    cluster: Cluster, actor: PodActor, there: bool
) -> None:
    if there:
        cluster.seed(CLUSTERS, "main", uid="another")
    await actor.carry_out(finalizer(True))
    assert cluster.patches == []


def test_what_actions_are_about() -> None:
    assert subject(create_pod()) == ObjectRef("Pod", KEY)
    assert subject(apply()) == ADDRESSES
    assert subject(finalizer(True)) == ObjectRef("MediaCluster", MAIN)
