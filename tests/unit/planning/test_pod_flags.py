"""The flags that pods get are those that the media server takes, whatever the MediaCluster says."""

from __future__ import annotations

from typing import Any

import pytest
from mafalda_operator.model import MediaCluster, NodeView
from mafalda_operator.model.pods import NodeAddress
from mafalda_operator.planning.conditions import Conditions
from mafalda_operator.planning.pod_status import judge_pod_conditions
from mafalda_operator.planning.podspec import arguments
from unit.planning.podworld import PodWorld
from unit.test_network_options import parse, wanted

from mediaserver.config import ServerConfig

IPV4, IPV6 = "10.244.1.7", "fd00:10::7"


def started(spec: dict[str, Any], *ips: str) -> ServerConfig:
    """The settings of the media server in a pod that has those addresses, checked."""
    metadata = {"name": "main", "namespace": "media", "uid": "u", "generation": 1}
    cluster = MediaCluster.parse({"metadata": metadata, "spec": {"replicas": 1, **spec}})
    assert not cluster.problems
    fields = {"POD_IP": ips[0], "POD_IPS": ",".join(ips), "POD_NAME": "main-abcde", "NODE_NAME": "n1"}
    flags = arguments(cluster)
    for name, value in fields.items():
        flags = [flag.replace(f"$({name})", value) for flag in flags]
    assert not any("$(" in flag for flag in flags)
    where = flags.index("--tls-dir")
    credential, rest = f"--tls-dir={flags[where + 1]}", [*flags[:where], *flags[where + 2 :]]
    return parse(*rest, credential=credential)


def network(**fields: Any) -> dict[str, Any]:
    return {"network": fields}


@pytest.mark.parametrize("ips", [(IPV4,), (IPV6,), (IPV4, IPV6), (IPV6, IPV4)])
def test_a_cluster_that_says_nothing_of_its_network(ips: tuple[str, ...]) -> None:
    config = started({}, *ips)
    assert config.pool.client_hosts == ips[:1]
    assert config.pool.announced == ips[:1]
    assert config.pool.pipe_host == ips[0]
    assert {config.internal.host, config.participants.host, config.health.host} == {ips[0]}
    assert [config.internal.port, config.participants.port, config.health.port] == [4000, 4001, 4002]
    assert config.drain_timeout == 900


def test_a_dual_stack_prefers_the_family_that_is_named_first() -> None:
    config = started(network(type="Pod", ipFamilies=["IPv6", "IPv4"]), IPV4, IPV6)
    assert config.pool.client_hosts == config.pool.announced == (IPV6, IPV4)
    assert started(network(type="Pod", ipFamilies=["IPv6"]), IPV4, IPV6).pool.client_hosts == (IPV6,)


def test_announced_types_keep_their_order() -> None:
    types = ["NodeExternalIP", "Address", "NodeInternalIP", "PodIP"]
    announce = [{"type": one, **({"address": "a.example.com"} if one == "Address" else {})} for one in types]
    config = started(network(type="HostNetwork", announce=announce), IPV4)
    assert wanted(config) == ["NodeExternalIP", "a.example.com", "NodeInternalIP", "PodIP"]
    config = started(network(type="Pod", announce=[{"type": "LoadBalancer"}]), IPV4)
    assert config.addresses is not None
    assert config.addresses.files == ("server.main-abcde",)


def test_ports_workers_and_drain() -> None:
    spec = {
        **network(clientPorts={"port": 11000, "endPort": 11007}, pipePorts={"port": 12000, "endPort": 12099}),
        "workersPerServer": 8,
        "drain": {"timeout": "1.5s"},
    }
    config = started(spec, IPV4)
    assert (config.pool.client_port, config.pool.workers) == (11000, 8)
    assert (config.pool.pipe_port, config.pool.pipe_end_port) == (12000, 12099)
    assert config.drain_timeout == 1.5


# -- the operator tells of what the server waits for ------------------------------------------------------


@pytest.mark.parametrize(
    ("addresses", "families", "status", "words"),
    [
        ([("ExternalIP", "203.0.113.7")], None, "True", []),
        ([("ExternalIP", "203.0.113.7")], ["IPv4", "IPv6"], "True", []),
        ([("InternalIP", "10.0.0.5")], None, "False", ["has no ExternalIP", "NodeInternalIP"]),
        ([("ExternalIP", "2001:db8::7")], None, "False", ["no IPv4 address of type ExternalIP"]),
    ],
)
def test_a_node_without_an_address_that_the_server_can_announce(
    addresses: list[tuple[str, str]], families: list[str] | None, status: str, words: list[str]
) -> None:
    spec: dict[str, Any] = {"replicas": 1, **network(announce=[{"type": "NodeExternalIP"}])}
    if families:
        spec["network"]["ipFamilies"] = families
    world = PodWorld(spec=spec, nodes=1)
    found = tuple(NodeAddress(*each) for each in addresses)
    world.inventory.put_node("n0", NodeView(name="n0", zone="a", ready=True, addresses=found))
    world.turn()
    world.turn()
    world.schedule()
    (pod,) = world.pods
    world.put(pod, ips=(IPV4, IPV6))
    world.plan()
    assert world.judged is not None
    conditions = Conditions(world.cluster, world.wall_time)
    judge_pod_conditions(world.judged, world.snapshot(), conditions)
    (condition,) = [item for item in conditions.items if item["type"] == "AddressAvailable"]
    assert condition["status"] == status, condition
    for word in words:
        assert word in condition["message"]
