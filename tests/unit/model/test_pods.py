"""Pods, nodes and owned objects as read from the API server, whole or in part or broken."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.model import (
    NOTHING,
    Inventory,
    MediaCluster,
    MediaServer,
    NodeAddress,
    NodeView,
    ObjectKey,
    ObjectRef,
    OwnedObject,
    PodView,
    pod_address,
)

POD: dict[str, Any] = {
    "metadata": {
        "namespace": "media",
        "name": "main-x7f2q",
        "uid": "p1",
        "creationTimestamp": "2026-11-25T12:00:00Z",
        "labels": {"mafalda.io/cluster": "main", "mafalda.io/revision": "r1"},
        "ownerReferences": [{"kind": "MediaCluster", "uid": "c1", "controller": True}],
    },
    "spec": {"nodeName": "n1"},
    "status": {
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
        "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {
                "restartCount": 2,
                "state": {"running": {}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "end"}},
            }
        ],
    },
}


def test_a_running_pod() -> None:
    pod = PodView.parse(POD)
    assert pod == PodView(
        key=ObjectKey("media", "main-x7f2q"),
        uid="p1",
        cluster=ObjectKey("media", "main"),
        owner_uid="c1",
        revision="r1",
        created="2026-11-25T12:00:00Z",
        node="n1",
        ips=("10.0.0.1", "fd00::1"),
        phase="Running",
        ready=True,
        exit_code=137,
        exit_reason="OOMKilled",
        exit_message="end",
        restarts=2,
    )
    assert pod.live
    assert not pod.finished


def test_a_pod_without_a_node() -> None:
    said = "0/3 nodes are available"
    conditions = [{"type": "PodScheduled", "status": "False", "message": said}]
    pod = PodView.parse({**POD, "spec": {}, "status": {"conditions": conditions}})
    assert (pod.node, pod.phase, pod.ready, pod.unschedulable, pod.ips) == ("", "Pending", False, said, ())


def test_a_pod_that_waits_and_one_that_is_deleted() -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    metadata = {**POD["metadata"], "deletionTimestamp": "2026-11-25T12:15:00Z"}
    pod = PodView.parse({**POD, "metadata": metadata, "status": {"containerStatuses": [waiting]}})
    assert (pod.waiting, pod.waiting_message) == ("ImagePullBackOff", "no such image")
    assert pod.deleting
    assert pod.deletion_deadline == "2026-11-25T12:15:00Z"
    assert not pod.live


def test_an_evicted_pod() -> None:
    pod = PodView.parse({**POD, "status": {"phase": "Failed", "reason": "Evicted", "message": "no memory"}})
    assert pod.finished
    assert (pod.reason, pod.message) == ("Evicted", "no memory")


def test_an_older_api_has_one_address_only() -> None:
    assert PodView.parse({**POD, "status": {"podIP": "10.0.0.1"}}).ips == ("10.0.0.1",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["metadata", "status", "spec", "name", "conditions", "addresses", "labels", "state"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["metadata", "spec", "status", "data"]), JSON))
def test_reading_never_fails(obj: dict[str, Any]) -> None:
    PodView.parse(obj)
    NodeView.parse(obj)
    OwnedObject.parse(obj)


def test_a_node() -> None:
    node = NodeView.parse(
        {
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "a"}},
            "spec": {"unschedulable": True},
            "status": {
                "addresses": [{"type": "ExternalIP", "address": "203.0.113.7"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    address = NodeAddress("ExternalIP", "203.0.113.7")
    assert node == NodeView(name="n1", zone="a", addresses=(address,), ready=True, unschedulable=True)


def test_an_owned_object_keeps_what_is_compared() -> None:
    owned = OwnedObject.parse(
        {
            "metadata": {
                "namespace": "media",
                "name": "main-media",
                "uid": "s1",
                "resourceVersion": "7",
                "labels": {"mafalda.io/cluster": "main"},
                "ownerReferences": [{"kind": "Pod", "uid": "p1", "controller": True}],
            },
            "spec": {"ports": []},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}, "conditions": []},
        }
    )
    assert (owned.uid, owned.owner_uid, owned.cluster) == ("s1", "p1", ObjectKey("media", "main"))
    assert owned.content["spec"] == {"ports": []}
    assert owned.content["status"] == {"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}}
    assert owned.content["metadata"] == {"labels": {"mafalda.io/cluster": "main"}}


@pytest.mark.parametrize(
    ("ips", "address"), [(("10.0.0.1",), "10.0.0.1:4000"), (("fd00::1",), "[fd00::1]:4000"), ((), "")]
)
def test_where_the_server_of_a_pod_is_dialled(ips: tuple[str, ...], address: str) -> None:
    key = ObjectKey("media", "main-x7f2q")
    pods = {key: PodView(key=key, uid="p1", cluster=ObjectKey("media", "main"), ips=ips)}
    metadata = {"namespace": "media", "name": key.name, "uid": "s1"}
    metadata["ownerReferences"] = [{"kind": "Pod", "uid": "p1", "controller": True}]  # type: ignore[assignment]
    server = MediaServer.parse({"metadata": metadata, "spec": {"clusterRef": {"name": "main"}}})
    assert pod_address(server, pods) == address
    other = {key: PodView(key=key, uid="p2", cluster=ObjectKey("media", "main"), ips=ips)}
    assert pod_address(server, other) == ""


def cluster(**spec: Any) -> MediaCluster:
    metadata = {"namespace": "media", "name": "main", "uid": "c1", "generation": 1}
    return MediaCluster.parse({"metadata": metadata, "spec": spec})


def test_pods_concern_their_cluster_and_their_server() -> None:
    inventory = Inventory()
    inventory.put(cluster(replicas=0))
    main = ObjectKey("media", "main")
    assert not inventory.wants_pods(main)
    pod = PodView.parse(POD)
    scope = inventory.put_pod(pod)
    assert (scope.clusters, scope.servers) == (frozenset({main}), frozenset({pod.key}))
    assert inventory.put_pod(pod) == NOTHING
    assert inventory.wants_pods(main)
    assert inventory.remove_pod(pod.key).clusters == frozenset({main})
    assert inventory.remove_pod(pod.key) == NOTHING
    assert not inventory.wants_pods(main)
    assert not inventory.wants_pods(ObjectKey("media", "other"))


def test_a_server_is_starting_until_its_pod_runs() -> None:
    inventory = Inventory()
    metadata: dict[str, Any] = {"namespace": "media", "name": "main-x7f2q", "uid": "s1"}
    host = MediaServer.parse({"metadata": metadata, "spec": {"clusterRef": {"name": "main"}}})
    metadata["ownerReferences"] = [{"kind": "Pod", "uid": "p1", "controller": True}]
    server = MediaServer.parse({"metadata": metadata, "spec": {"clusterRef": {"name": "main"}}})
    assert not inventory.is_starting(server)
    inventory.put_pod(PodView.parse({**POD, "status": {}}))
    assert inventory.is_starting(server)
    assert not inventory.is_starting(host)
    inventory.put_pod(PodView.parse(POD))
    assert not inventory.is_starting(server)


def test_nodes_concern_clusters_with_pods_only() -> None:
    inventory = Inventory()
    inventory.put(cluster(replicas=0))
    node = NodeView(name="n1", zone="a")
    assert inventory.put_node("n1", node) == NOTHING
    inventory.put(cluster(replicas=1))
    assert inventory.put_node("n1", node) == NOTHING
    assert inventory.put_node("n1", None).clusters == frozenset({ObjectKey("media", "main")})


def test_what_a_cluster_owns_concerns_it() -> None:
    inventory = Inventory()
    main = ObjectKey("media", "main")
    ref = ObjectRef("ConfigMap", ObjectKey("media", "main-addresses"))
    owned = OwnedObject("u", main, "c1", {})
    assert inventory.put_owned(ref, owned).clusters == frozenset({main})
    assert inventory.put_owned(ref, owned) == NOTHING
    assert inventory.put_owned(ref, None).clusters == frozenset({main})
    assert str(ref) == "ConfigMap media/main-addresses"


def test_parts_of_a_cluster() -> None:
    host = cluster()
    assert (host.network.host, host.update.max_surge, host.update.max_unavailable) == (True, 0, 1)
    assert host.network.announces("PodIP")
    assert host.tls_secret == "main-tls"
    pod = cluster(network={"type": "Pod"})
    assert (pod.network.host, pod.update.max_surge, pod.update.max_unavailable) == (False, 1, 0)
    both = cluster(network={"type": "Pod"}, update={"maxSurge": 0})
    assert (both.update.max_surge, both.update.max_unavailable) == (0, 1)
    stored = cluster(update={"maxSurge": 3, "maxUnavailable": 0})  # older than the rule that refuses it
    assert (stored.update.max_surge, stored.update.max_unavailable) == (0, 1)
    broken = cluster(replicas="3", network={"type": "Wifi", "announce": [{"type": "Carrier"}]})
    assert [problem.field for problem in broken.problems] == [
        "spec.network.announce[0].type",
        "spec.network.type",
        "spec.replicas",
    ]
