"""What a MediaCluster's status says of its pods, and that each message says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from mafalda_operator.model import (
    NodeAddress,
    NodeView,
    ObjectKey,
    ObjectRef,
    OwnedObject,
    Refusal,
    TlsSecret,
)
from mafalda_operator.planning.conditions import Conditions
from mafalda_operator.planning.pod_status import judge_pod_conditions, pod_fields, pods_not_ready
from mafalda_operator.planning.pods import judge_pods
from unit.planning.podworld import KEY, NAMESPACE, PodWorld

from mediaserver.control.contract import WorkerState


def told(world: PodWorld) -> dict[str, dict[str, Any]]:
    snapshot = world.snapshot()
    judged = judge_pods(world.cluster, snapshot, world.memory)
    conditions = Conditions(world.cluster, world.wall_time)
    judge_pod_conditions(judged, snapshot, conditions)
    return {item["type"]: item for item in conditions.items}


def fields(world: PodWorld) -> dict[str, Any]:
    return pod_fields(judge_pods(world.cluster, world.snapshot(), world.memory))


def running(replicas: int = 2, **spec: Any) -> PodWorld:
    world = PodWorld({"replicas": replicas, **spec}, nodes=8)
    world.run()
    return world


def assert_told(world: PodWorld, kind: str, reason: str, *words: str) -> None:
    condition = told(world)[kind]
    assert (condition["status"], condition["reason"]) == ("False", reason)
    for word in words:
        assert word in condition["message"]


def test_a_cluster_of_hosts_says_nothing_of_pods() -> None:
    world = PodWorld({"replicas": 0})
    assert told(world) == {}
    assert fields(world) == {}
    assert pods_not_ready(judge_pods(world.cluster, world.snapshot(), world.memory)) == 0


def test_all_is_well() -> None:
    world = running(2)
    conditions = told(world)
    assert {kind: one["status"] for kind, one in conditions.items()} == {
        "Progressing": "True",
        "AddressAvailable": "True",
        "PortsAvailable": "True",
    }
    assert conditions["Progressing"]["reason"] == "Complete"
    found = fields(world)
    assert found["selector"] == "mafalda.io/cluster=main,mafalda.io/role=media-server"
    assert (found["replicas"], found["readyReplicas"], found["updatedReplicas"]) == (2, 2, 2)
    assert found["currentRevision"] == found["updateRevision"]


def test_the_current_revision_stays_until_all_pods_are_updated() -> None:
    world = running(2)
    old = fields(world)["currentRevision"]
    world.status = {"currentRevision": old}
    world.change(image="image:2")
    found = fields(world)
    assert found["currentRevision"] == old
    assert found["updateRevision"] != old
    assert told(world)["Progressing"]["reason"] == "Updating"
    assert "2 pods of 2" in told(world)["Progressing"]["message"]


def test_what_is_under_way_is_told() -> None:
    world = PodWorld({"replicas": 2})
    assert told(world)["Progressing"]["reason"] == "Starting"
    world = running(2)
    for pod in world.pods:
        world.connect(pod.key, 1)
    world.change(replicas=1)
    world.turn()
    assert told(world)["Progressing"]["reason"] == "ScalingDown"
    world.deleting = True
    world.put_cluster()
    assert told(world)["Progressing"]["reason"] == "Draining"
    world = running(1, update={"type": "OnDelete"})
    world.change(image="image:2")
    assert "you delete it" in told(world)["Progressing"]["message"]


def test_pods_that_may_not_be_read_are_told() -> None:
    world = PodWorld({"replicas": 1})
    world.inventory.put_followed(NAMESPACE, None)
    assert told(world)["Progressing"]["status"] == "Unknown"
    world.inventory.put_followed(NAMESPACE, "may not list pods; add it to mediaNamespaces")
    assert_told(world, "Progressing", "PodsUnknown", "mediaNamespaces")


def test_a_missing_image_is_told() -> None:
    world = PodWorld({"replicas": 1}, default_image="")
    assert_told(world, "Progressing", "ImageMissing", "spec.image", "--default-image")


@pytest.mark.parametrize(
    ("kind", "name", "reason", "words"),
    [
        ("Pod", "main-xxxxx", "NotAdmitted", ("2 pods of 2 can't be made", "said", "quota", "Pod Security")),
        ("ConfigMap", "main-addresses", "AlreadyExists", ("ConfigMap media/main-addresses", "said")),
        ("Service", "main-media", "Forbidden", ("Service media/main-media", "mediaNamespaces")),
    ],
)
def test_what_the_api_server_refuses_is_told(
    kind: str, name: str, reason: str, words: tuple[str, ...]
) -> None:
    world = PodWorld({"replicas": 2})
    ref = ObjectRef(kind, ObjectKey(NAMESPACE, name))
    world.inventory.put_object_refusal(ref, Refusal(reason, "said", world.now + 5))
    assert_told(world, "Progressing", reason, *words)
    world.inventory.put_object_refusal(ref, Refusal(reason, "said", world.now + 5, passing=True))
    assert told(world)["Progressing"]["status"] == "True"
    world.inventory.put_object_refusal(ref, None)
    other = ObjectRef(kind, ObjectKey("elsewhere", name))
    world.inventory.put_object_refusal(other, Refusal(reason, "said", world.now + 5))
    assert told(world)["Progressing"]["status"] == "True"


def test_a_missing_certificate_is_told() -> None:
    world = PodWorld({"replicas": 1, "tls": {"secretRef": {"name": "given"}}})
    secret = ObjectKey(NAMESPACE, "given")
    world.inventory.put_tls(KEY, TlsSecret(secret, True, "Missing", "main.media"))
    assert_told(world, "Progressing", "TLSSecretMissing", "media/given", "spec.tls.secretRef")


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        (
            {"waiting": "ImagePullBackOff", "waiting_message": "no such image"},
            "ImagePullFailed",
            ("no such image", "--default-image"),
        ),
        (
            {"waiting": "CreateContainerConfigError", "waiting_message": "secret not found"},
            "CreateContainerConfigError",
            ("secret not found", "describe pod"),
        ),
        (
            {
                "waiting": "CrashLoopBackOff",
                "restarts": 4,
                "exit_code": 2,
                "exit_reason": "Error",
                "exit_message": "starting\nError: --workers: 300 is not from 1 to 256\n",
            },
            "CrashLooping",
            ("code 2 (Error)", "--workers: 300 is not from 1 to 256", "logs", "--previous"),
        ),
        (
            {"waiting": "ContainerCreating", "created": "2026-11-25T11:00:00Z"},
            "ContainerCreating",
            ("describe",),
        ),
    ],
)
def test_why_a_pod_does_not_start_is_told(
    changes: dict[str, Any], reason: str, words: tuple[str, ...]
) -> None:
    world = running(2)
    pod = world.put(world.pods[0], ready=False, **changes)
    assert_told(world, "Progressing", reason, pod.key.name, *words)
    world.put(pod, ready=True)
    assert told(world)["Progressing"]["status"] == "True"


def test_a_pod_without_a_node_is_told_with_the_schedulers_words() -> None:
    world = PodWorld({"replicas": 3}, nodes=2)
    world.run()
    assert_told(world, "Progressing", "Unschedulable", "free ports", "spec.replicas")
    assert_told(world, "PortsAvailable", "PortsTaken", "add nodes")
    world = PodWorld({"replicas": 3, "network": {"type": "Pod"}}, nodes=0)
    world.run()
    assert_told(world, "Progressing", "Unschedulable", "spec.resources")
    assert told(world)["PortsAvailable"]["status"] == "True"


def test_a_pod_that_waits_for_the_node_of_one_that_ends_is_no_trouble() -> None:
    world = PodWorld({"replicas": 2}, nodes=2)
    world.run()
    world.delete(world.pods[0].key)
    world.turn()
    world.schedule()
    assert [pod.unschedulable != "" for pod in world.live] == [False, True]
    assert told(world)["Progressing"]["reason"] == "Starting"
    assert told(world)["PortsAvailable"]["status"] == "Unknown"


def test_a_port_that_another_program_of_the_node_has_is_told() -> None:
    world = running(2)
    pod = world.pods[1]
    reason = (
        "no worker could be started: cannot listen on 10.0.0.5:10001 (UDP and TCP) for participants' media:"
        " address already in use; free the port, or choose others with --client-port or --client-address"
        " (3 times in a row)"
    )
    workers = world.views[pod.key].reported.workers
    workers[1] = WorkerState(slot=1, state="Failing", restarts=0, reason=reason)
    words = (pod.key.name, f"node {pod.node}", "worker 1", "10.0.0.5:10001", "in use", "network.clientPorts")
    assert_told(world, "PortsAvailable", "PortsTaken", *words)
    assert "--client-port" not in told(world)["PortsAvailable"]["message"]
    workers[1] = WorkerState(slot=1, state="Running", restarts=1)
    assert told(world)["PortsAvailable"]["status"] == "True"


def test_a_pod_that_a_kubelet_refused_its_ports_is_told() -> None:
    world = running(1)
    world.put(world.pods[0], phase="Failed", reason="NodePorts", message="Node didn't have free ports")
    assert_told(world, "PortsAvailable", "PortsTaken", "Node didn't have free ports")


def test_a_node_without_the_announced_address_is_told() -> None:
    world = running(1, network={"announce": [{"type": "NodeExternalIP"}]})
    node = world.pods[0].node
    assert_told(world, "AddressAvailable", "NodeAddressMissing", node, "ExternalIP", "NodeInternalIP")
    address = NodeAddress("ExternalIP", "203.0.113.7")
    world.inventory.put_node(node, NodeView(name=node, ready=True, addresses=(address,)))
    assert told(world)["AddressAvailable"]["status"] == "True"
    world.turn()
    addresses = world.inventory.owned[ObjectRef("ConfigMap", ObjectKey(NAMESPACE, "main-addresses"))]
    assert '"203.0.113.7"' in addresses.content["data"][f"node.{node}"]


def test_a_load_balancer_without_an_address_is_told() -> None:
    world = running(1, workersPerServer=2, network={"type": "Pod", "announce": [{"type": "LoadBalancer"}]})
    (pod,) = world.pods
    ref = ObjectRef("Service", pod.key)
    service = world.inventory.owned[ref]
    ports = {(port["protocol"], port["port"]) for port in service.content["spec"]["ports"]}
    assert ports == {("UDP", 10000), ("TCP", 10000), ("UDP", 10001), ("TCP", 10001)}
    assert service.owner_uid == pod.uid
    assert_told(world, "AddressAvailable", "LoadBalancerPending", str(pod.key), "describe service")
    ingress = {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}, {"hostname": "lb.example.com"}]}}
    world.inventory.put_owned(ref, OwnedObject("u", KEY, pod.uid, {**service.content, "status": ingress}))
    assert told(world)["AddressAvailable"]["status"] == "True"
    world.turn()
    addresses = world.inventory.owned[ObjectRef("ConfigMap", ObjectKey(NAMESPACE, "main-addresses"))]
    assert "198.51.100.9" in addresses.content["data"][f"server.{pod.key.name}"]
    assert "lb.example.com" in addresses.content["data"][f"server.{pod.key.name}"]


def test_a_missing_ip_family_is_told() -> None:
    world = running(1, network={"ipFamilies": ["IPv4", "IPv6"]})
    assert_told(world, "AddressAvailable", "IPFamilyMissing", "IPv6", "spec.network.ipFamilies")
    world.put(world.pods[0], ips=("10.0.0.1", "fd00::1"))
    assert told(world)["AddressAvailable"]["status"] == "True"


def test_pods_of_no_known_beginning_are_not_too_slow() -> None:
    world = running(1)
    world.put(world.pods[0], ready=False, waiting="ContainerCreating", created="")
    assert told(world)["Progressing"]["status"] == "True"


def test_counts_of_pods_that_are_not_known_stay_as_they_were() -> None:
    world = running(2)
    world.status = {"replicas": 2, "readyReplicas": 2, "currentRevision": "a"}
    world.put_cluster()
    world.inventory.put_followed(NAMESPACE, None)
    found = fields(world)
    assert (found["replicas"], found["readyReplicas"], found["currentRevision"]) == (2, 2, "a")
    assert replace(world.cluster).status == world.status
