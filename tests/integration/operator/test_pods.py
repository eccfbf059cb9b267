"""A MediaCluster's pods on a real API server. Nothing runs pods there: tests play scheduler and kubelet."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from integration.operator.world import World
from mafalda_operator.effects.api import (
    BUDGETS,
    CLUSTERS,
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PODS,
    SERVERS,
    SERVICES,
    Object,
    Resource,
)
from mafalda_operator.effects.errors import NotFound

from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.listen import ListenAddress

BINDINGS = Resource("Binding", "bindings")
QUOTAS = Resource("ResourceQuota", "resourcequotas")
_hosts = itertools.count(1)
HOST_NETWORK = {"type": "HostNetwork", "announce": [{"type": "NodeExternalIP"}]}


@pytest.fixture
async def world(world: World) -> World:
    """Pods need the account that Kubernetes' controllers would have made."""
    accounts = Resource("ServiceAccount", "serviceaccounts")
    await world.api.create(accounts, world.name, {"metadata": {"name": "default"}})
    return world


class Nodes:
    """Nodes of this test, and what scheduler and kubelet do on them."""

    def __init__(self, world: World) -> None:
        self.world, self.api = world, world.api
        self.names: list[str] = []

    async def add(self, zone: str, external: str | None = "203.0.113.7") -> str:
        name = f"{self.world.name}-n{len(self.names)}"
        self.names.append(name)
        metadata = {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}
        await self.api.create(NODES, None, {"metadata": metadata})
        addresses = [{"type": "InternalIP", "address": "10.0.0.1"}]
        addresses += [{"type": "ExternalIP", "address": external}] if external else []
        await self.api.patch(NODES, None, name, {"status": {"addresses": addresses}}, subresource="status")
        return name

    async def remove_all(self) -> None:
        for name in self.names:
            node = await self.api.get(NODES, None, name)
            await self.api.delete(NODES, None, name, uid=node["metadata"]["uid"])

    async def bind(self, pod: str, node: str) -> None:
        body = {"metadata": {"name": pod}, "target": {"apiVersion": "v1", "kind": "Node", "name": node}}
        await self.api.create(BINDINGS, self.world.name, body)

    async def run(self, pod: str) -> FakeMediaServer:
        """A media server in the pod: 127.1.0.x:4000."""
        host = f"127.1.0.{next(_hosts)}"
        fake = FakeMediaServer(self.world.key, network=self.world.network, workers=2)
        fake.address = ListenAddress(host, 4000)
        await fake.start()
        self.world.servers[pod] = fake
        status = {
            "phase": "Running",
            "podIP": host,
            "podIPs": [{"ip": host}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await self.api.patch(PODS, self.world.name, pod, {"status": status}, subresource="status")
        return fake

    async def end(self, pod: str) -> None:
        """The pod's processes are gone: the kubelet lets it go."""
        fake = self.world.servers.pop(pod, None)
        if fake is not None:
            await fake.close()
        path = PODS.path(self.world.name, pod)
        await self.api._request("delete", PODS, "DELETE", path, body={"gracePeriodSeconds": 0})


async def pods(world: World) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in (await world.api.list(PODS, world.name)).items}


async def live(world: World) -> dict[str, Object]:
    return {
        name: pod for name, pod in (await pods(world)).items() if "deletionTimestamp" not in pod["metadata"]
    }


async def there_are(world: World, count: int) -> dict[str, Object]:
    async def counted() -> bool:
        return len(await live(world)) == count

    await world.eventually(counted, f"{count} pods")
    return await live(world)


async def running(world: World, nodes: Nodes, replicas: int, **spec: Any) -> list[str]:
    await world.cluster(replicas=replicas, image="image:1", **spec)
    await world.operator()
    names = sorted(await there_are(world, replicas))
    for number, name in enumerate(names):
        await nodes.bind(name, nodes.names[number])
        await nodes.run(name)
    await world.connected(*names)
    return names


async def scale(world: World, replicas: int) -> None:
    scaled = {"spec": {"replicas": replicas}}
    await world.api.patch(CLUSTERS, world.name, "main", scaled, subresource="scale")


async def test_pods_and_their_media_servers_come_and_are_connected(world: World) -> None:
    nodes = Nodes(world)
    for zone in ("a", "b"):
        await nodes.add(zone)
    try:
        names = await running(world, nodes, 2, network=HOST_NETWORK)
        pod = (await pods(world))[names[0]]
        server = await world.api.get(SERVERS, world.name, names[0])
        assert server["spec"] == {"clusterRef": {"name": "main"}, "zone": "a"}
        assert server["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
        cluster = await world.api.get(CLUSTERS, world.name, "main")
        assert cluster["metadata"]["finalizers"] == ["mafalda.io/drain"]
        addresses = await world.api.get(CONFIG_MAPS, world.name, "main-addresses")
        assert f"node.{nodes.names[0]}" in addresses["data"]
        assert '"203.0.113.7"' in addresses["data"][f"node.{nodes.names[0]}"]

        async def told() -> bool:
            status = (await world.api.get(CLUSTERS, world.name, "main"))["status"]
            reasons = {one["type"]: one["reason"] for one in status["conditions"]}
            return (
                status.get("readyReplicas") == 2
                and reasons["Progressing"] == "Complete"
                and reasons["AddressAvailable"] == "AddressAvailable"
                and reasons["PortsAvailable"] == "PortsAvailable"
                and status["currentRevision"] == status["updateRevision"]
            )

        await world.eventually(told, "status of the pods")
        await world.session("standup", routers=2)
        await world.ready("standup")
    finally:
        await nodes.remove_all()


async def test_scaling_down_drains_the_emptiest_and_deletes_it(world: World) -> None:
    nodes = Nodes(world)
    for zone in ("a", "b"):
        await nodes.add(zone)
    try:
        names = await running(world, nodes, 2)
        await world.session("standup", routers=1)
        await world.ready("standup")
        ((_, busy, _),) = (await world.routers()).values()
        await scale(world, 1)
        left = await there_are(world, 1)
        assert list(left) == [busy]
        (gone,) = set(names) - {busy}
        server = await world.api.get(SERVERS, world.name, gone)
        assert server["status"]["drain"]["reason"] in ("ScaleDown", "PodDeleting")
        await nodes.end(gone)

        async def forgotten() -> bool:
            return [one["metadata"]["name"] for one in (await world.api.list(SERVERS, world.name)).items] == [
                busy
            ]

        await world.eventually(forgotten, "its MediaServer goes with the pod")
    finally:
        await nodes.remove_all()


async def test_an_update_replaces_one_pod_after_the_other(world: World) -> None:
    nodes = Nodes(world)
    for zone in ("a", "b", "a", "b"):
        await nodes.add(zone)
    try:
        old = set(await running(world, nodes, 2))
        await world.api.patch(CLUSTERS, world.name, "main", {"spec": {"image": "image:2"}})
        for number in (2, 3):

            async def replaced() -> bool:
                present = await pods(world)
                ending = [name for name, pod in present.items() if "deletionTimestamp" in pod["metadata"]]
                return len(ending) == 1 and len(present) == 3

            await world.eventually(replaced, "one pod ends, one is new")
            present = await pods(world)
            (ending,) = [name for name, pod in present.items() if "deletionTimestamp" in pod["metadata"]]
            assert ending in old
            (new,) = [name for name, pod in present.items() if not pod["spec"].get("nodeName")]
            assert present[new]["spec"]["containers"][0]["image"] == "image:2"
            await nodes.end(ending)
            await nodes.bind(new, nodes.names[number])
            await nodes.run(new)
            await world.connected(new)
        assert not old & (await there_are(world, 2)).keys()
    finally:
        await nodes.remove_all()


async def test_what_belongs_to_a_cluster_is_put_right(world: World) -> None:
    await world.cluster(replicas=1, image="image:1")
    await world.operator()
    await there_are(world, 1)
    for resource, name, change in (
        (CONFIG_MAPS, "main-addresses", {"data": {"node.other": "[]"}}),
        (BUDGETS, "main", {"spec": {"minAvailable": 3}}),
        (SERVICES, "main-media", {"spec": {"ports": [{"name": "health", "port": 4003}]}}),
    ):
        found = await world.api.get(resource, world.name, name)
        wanted = {key: found.get(key) for key in ("data", "spec") if key in found}
        assert found["metadata"]["ownerReferences"][0]["kind"] == "MediaCluster"
        await world.api.patch(resource, world.name, name, change)

        async def right(
            resource: Resource = resource, name: str = name, wanted: dict[str, Any] = wanted
        ) -> bool:
            held = await world.api.get(resource, world.name, name)
            return {key: held.get(key) for key in ("data", "spec") if key in held} == wanted

        await world.eventually(right, f"{name} is put right")
        await world.api.delete(resource, world.name, name, uid=found["metadata"]["uid"])

        uid = found["metadata"]["uid"]

        async def again(resource: Resource = resource, name: str = name, uid: str = uid) -> bool:
            try:
                return bool((await world.api.get(resource, world.name, name))["metadata"]["uid"] != uid)
            except NotFound:
                return False

        await world.eventually(again, f"{name} is made again")


async def test_a_deleted_pod_is_made_again_and_a_deleted_cluster_lets_go_of_all(world: World) -> None:
    await world.cluster(replicas=2, image="image:1")
    await world.operator()
    before = await there_are(world, 2)
    name, pod = next(iter(before.items()))
    await world.api.delete(PODS, world.name, name, uid=pod["metadata"]["uid"])

    async def replaced() -> bool:
        names = (await live(world)).keys()
        return len(names) == 2 and name not in names

    await world.eventually(replaced, "another pod takes its place")
    cluster = await world.api.get(CLUSTERS, world.name, "main")
    await world.api.delete(CLUSTERS, world.name, "main", uid=cluster["metadata"]["uid"])

    async def gone() -> bool:
        return not await pods(world) and not (await world.api.list(CLUSTERS, world.name)).items

    await world.eventually(gone, "pods and cluster gone")


async def test_what_keeps_pods_from_being_made_is_told(world: World) -> None:
    hard = {"count/pods": "1"}
    quota = await world.api.create(QUOTAS, world.name, {"metadata": {"name": "few"}, "spec": {"hard": hard}})
    used = {"hard": hard, "used": {"count/pods": "0"}}
    await world.api.patch(QUOTAS, world.name, "few", {"status": used}, subresource="status")
    await world.cluster(replicas=2)
    await world.operator()

    async def reason(wanted: str) -> bool:
        condition = await world.condition(CLUSTERS, "main", "Progressing")
        return condition.get("reason") == wanted and condition["status"] == "False"

    await world.eventually(lambda: reason("ImageMissing"), "ImageMissing")
    assert not await pods(world)
    await world.api.patch(CLUSTERS, world.name, "main", {"spec": {"image": "image:1"}})
    await world.eventually(lambda: reason("NotAdmitted"), "NotAdmitted")
    told = await world.condition(CLUSTERS, "main", "Progressing")
    assert "1 pod of 2 can't be made" in told["message"]
    assert "exceeded quota: few" in told["message"]
    await world.api.delete(QUOTAS, world.name, "few", uid=quota["metadata"]["uid"])
    await there_are(world, 2)


async def test_pods_keep_to_the_pod_security_level_restricted(world: World) -> None:
    """In Pod mode; on HostNetwork the status says which level is needed."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await world.api.patch(NAMESPACES, None, world.name, {"metadata": {"labels": labels}})
    await world.cluster(replicas=1, image="image:1", network={"type": "Pod"})
    await world.operator()
    await there_are(world, 1)
    await world.api.patch(CLUSTERS, world.name, "main", {"spec": {"network": {"type": "HostNetwork"}}})
    await scale(world, 2)

    async def told() -> bool:
        condition = await world.condition(CLUSTERS, "main", "Progressing")
        return condition.get("reason") == "NotAdmitted" and "privileged" in condition["message"]

    await world.eventually(told, "the level that pods need")


async def test_a_namespace_with_pods_ends(world: World) -> None:
    await world.cluster(replicas=2, image="image:1")
    await world.operator()
    await there_are(world, 2)
    await world.delete_namespace()

    async def gone() -> bool:
        try:
            await world.api.get(Resource("Namespace", "namespaces", namespaced=False), None, world.name)
        except NotFound:
            return True
        return False

    await world.eventually(gone, "namespace gone", timeout=60)
