"""The media server's pod: what it always has, what spec changes of it, and what a revision tells."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.model import MediaCluster, ObjectKey, PodView
from mafalda_operator.planning.podspec import (
    arguments,
    build_pod,
    build_pod_spec,
    build_server,
    client_ports,
    revision_of,
    worker_count,
)

KEY = ObjectKey("media", "main-x7f2q")


def cluster(**spec: Any) -> MediaCluster:
    metadata = {"namespace": "media", "name": "main", "uid": "u1", "generation": 1}
    return MediaCluster.parse({"metadata": metadata, "spec": spec})


def flag(arguments: list[str], name: str) -> list[str]:
    """Every value of a flag."""
    pairs = itertools.pairwise(arguments)
    return [value for given, value in pairs if given == name]


def test_the_pod_belongs_to_its_cluster_and_carries_its_labels() -> None:
    labels = {"team": "media", "mafalda.io/role": "other"}
    pod = build_pod(cluster(template={"metadata": {"labels": labels}}), KEY, "image:1")
    metadata = pod["metadata"]
    assert metadata["labels"] == {
        "team": "media",
        "mafalda.io/cluster": "main",
        "mafalda.io/role": "media-server",
        "mafalda.io/server": "main-x7f2q",
        "mafalda.io/revision": metadata["labels"]["mafalda.io/revision"],
    }
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("MediaCluster", "u1", True)
    assert owner["blockOwnerDeletion"]


def test_a_pod_has_no_token_and_no_privilege() -> None:
    spec = build_pod_spec(cluster(network={"type": "Pod"}), "image:1")
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in spec
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not any("hostPort" in port for port in container["ports"])
    assert {volume["name"] for volume in spec["volumes"]} == {"addresses", "tls", "state", "tmp"}


def test_the_whole_of_the_flags() -> None:
    assert arguments(cluster(workersPerServer=4, network={"announce": [{"type": "NodeExternalIP"}]})) == [
        *("--internal-listen", ":4000"),
        *("--participants-listen", ":4001"),
        *("--health-listen", ":4002"),
        *("--listen-address", "$(POD_IP)"),
        *("--client-address", "$(POD_IP)"),
        *("--client-port", "10000"),
        *("--pipe-address", "$(POD_IP)"),
        *("--pipe-ports", "20000-20999"),
        *("--workers", "4"),
        *("--announce-from", "NodeExternalIP"),
        *("--addresses-dir", "/etc/mafalda/addresses"),
        *("--node", "$(NODE_NAME)"),
        *("--server-name", "$(POD_NAME)"),
        *("--tls-dir", "/etc/mafalda/tls"),
        *("--state-dir", "/var/lib/mafalda"),
        *("--drain-timeout", "900000ms"),
    ]


def test_addresses_are_announced_in_their_order() -> None:
    announce = [
        {"type": "NodeInternalIP"},
        {"type": "Address", "address": "203.0.113.7"},
        {"type": "NodeExternalIP"},
    ]
    flags = [one for one in arguments(cluster(network={"announce": announce})) if "nnounce" in one]
    assert flags == ["--announce-from", "--announce", "--announce-from"]


def test_both_ip_families_are_listened_on_when_asked_for() -> None:
    found = arguments(cluster(network={"ipFamilies": ["IPv6", "IPv4"]}))
    assert flag(found, "--client-address") == ["$(POD_IPS)"]
    assert flag(found, "--ip-family") == ["IPv6", "IPv4"]


def test_on_host_network_pods_of_the_same_ports_keep_apart() -> None:
    rules: list[dict[str, Any]] = [{"topologyKey": "x"}]
    given_affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": rules}}
    made = cluster(workersPerServer=2, template={"spec": {"affinity": given_affinity}})
    spec = build_pod_spec(made, "image:1")
    assert spec["hostNetwork"] is True
    assert spec["dnsPolicy"] == "ClusterFirstWithHostNet"
    ports = {(port["hostPort"], port["protocol"]) for port in spec["containers"][0]["ports"]}
    assert ports == {
        *((port, "TCP") for port in (4000, 4001, 4002, 10000, 10001)),
        *((port, "UDP") for port in (10000, 10001)),
    }
    assert spec["affinity"] == given_affinity, "a rule of ours would keep off pods that share no port, too"


def test_the_template_is_taken_over() -> None:
    template = {
        "metadata": {"annotations": {"note": "x"}},
        "spec": {
            "nodeSelector": {"pool": "media"},
            "tolerations": [{"key": "media", "operator": "Exists"}],
            "topologySpreadConstraints": [
                {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
            ],
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "registry"}],
        },
    }
    resources = {"requests": {"cpu": "500m"}, "limits": {"memory": 1024}}
    pod = build_pod(cluster(template=template, resources=resources), KEY, "image:1")
    spec = pod["spec"]
    assert pod["metadata"]["annotations"] == {"note": "x"}
    assert spec["nodeSelector"] == {"pool": "media"}
    assert spec["tolerations"] == [{"key": "media", "operator": "Exists"}]
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    (spread,) = spec["topologySpreadConstraints"]
    assert spread["maxSkew"] == 2
    assert spread["labelSelector"]["matchLabels"]["mafalda.io/cluster"] == "main"
    assert spec["containers"][0]["resources"] == {"requests": {"cpu": "500m"}, "limits": {"memory": "1024"}}


def test_the_grace_period_covers_the_drain() -> None:
    assert build_pod_spec(cluster(drain={"timeout": "10m"}), "i")["terminationGracePeriodSeconds"] == 630
    assert build_pod_spec(cluster(drain={"timeout": "0s"}), "i")["terminationGracePeriodSeconds"] == 30


def test_a_given_certificate_is_mounted_instead_of_the_operators() -> None:
    def secret(made: MediaCluster) -> str:
        volumes = build_pod_spec(made, "i")["volumes"]
        return next(one["secret"]["secretName"] for one in volumes if one["name"] == "tls")

    assert secret(cluster()) == "main-tls"
    assert secret(cluster(tls={"secretRef": {"name": "given"}})) == "given"


@pytest.mark.parametrize(
    ("spec", "workers"),
    [
        ({}, None),
        ({"workersPerServer": 3}, 3),
        ({"resources": {"limits": {"cpu": "2500m"}}}, 3),
        ({"resources": {"limits": {"cpu": 4}}}, 4),
        ({"resources": {"limits": {"cpu": "100m"}}}, 1),
        ({"resources": {"limits": {"cpu": "1k"}}}, None),
    ],
)
def test_workers_as_far_as_spec_tells(spec: dict[str, Any], workers: int | None) -> None:
    made = cluster(**spec)
    assert worker_count(made) == workers
    assert len(client_ports(made)) == (128 if workers is None else workers)


ROLLS: list[dict[str, Any]] = [
    {"image": "image:2"},
    {"workersPerServer": 2},
    {"resources": {"limits": {"cpu": 1}}},
    {"template": {"metadata": {"labels": {"a": "b"}}}},
    {"template": {"metadata": {"annotations": {"a": "b"}}}},
    {"template": {"spec": {"priorityClassName": "high"}}},
    {"network": {"type": "Pod"}},
    {"network": {"clientPorts": {"port": 11000, "endPort": 11003}}},
    {"network": {"announce": [{"type": "NodeInternalIP"}]}},
    {"drain": {"timeout": "1m"}},
    {"tls": {"secretRef": {"name": "given"}}},
]
STAYS: list[dict[str, Any]] = [
    {"replicas": 7},
    {"publicURL": "wss://media.example.com"},
    {"update": {"type": "OnDelete"}},
    {"links": {"srtp": "Always"}},
    {"recovery": {"silenceTimeout": "5s"}},
    {"allowedSessions": {"namespaces": {"from": "All"}}},
    {"network": {"clientPorts": {"port": 10000, "endPort": 10127}}},
]


@pytest.mark.parametrize("spec", ROLLS, ids=str)
def test_what_a_pod_has_to_be_replaced_for(spec: dict[str, Any]) -> None:
    made = cluster(**spec)
    assert revision_of(made, made.image or "image:1") != revision_of(cluster(), "image:1")


@pytest.mark.parametrize("spec", STAYS, ids=str)
def test_what_a_pod_stays_for(spec: dict[str, Any]) -> None:
    assert revision_of(cluster(**spec), "image:1") == revision_of(cluster(), "image:1")


def test_an_operator_upgrade_must_not_change_the_revision_unseen() -> None:
    """If this fails, every pod of every cluster is drained and replaced when the operator is upgraded: make
    sure that the change of the pod is worth that, and write it into the changelog."""
    assert revision_of(cluster(), "image:1") == "c4761fe83a"


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.text("xyz", max_size=3)))
def test_the_order_of_labels_makes_no_revision(labels: dict[str, str]) -> None:
    turned = dict(reversed(list(labels.items())))
    made, other = (cluster(template={"metadata": {"labels": one}}) for one in (labels, turned))
    assert revision_of(made, "i") == revision_of(other, "i")


def test_the_media_server_goes_with_its_pod() -> None:
    pod = PodView(key=KEY, uid="p1", cluster=ObjectKey("media", "main"), revision="r", node="n1")
    server = build_server(cluster(), pod, "a")
    assert server["spec"] == {"clusterRef": {"name": "main"}, "zone": "a"}
    assert server["metadata"]["name"] == KEY.name
    assert server["metadata"]["ownerReferences"][0]["uid"] == "p1"
    assert "zone" not in build_server(cluster(), pod, "")["spec"]
