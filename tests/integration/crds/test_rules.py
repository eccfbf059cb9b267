"""Each rule of the definitions on a real API server: what passes, what is refused, and what is said."""

from __future__ import annotations

from typing import Any

import pytest
from mafalda_operator.cli.local.errors import KubectlFailedError

SERVER: dict[str, Any] = {"clusterRef": {"name": "main"}, "endpoint": {"address": "media1.example.com:4000"}}
SESSION: dict[str, Any] = {"clusterRef": {"name": "main", "namespace": "media"}}

ACCEPTED: list[tuple[str, str, dict[str, Any]]] = [
    ("MediaCluster", "main", {}),
    ("MediaCluster", "a" * 40, {"publicURL": "wss://media.example.com/path"}),
    (
        "MediaCluster",
        "all",
        {
            "publicURL": "ws://127.0.0.1:8080",
            "mediaCodecs": [
                {"mimeType": "audio/opus", "clockRate": 48000, "channels": 2},
                {
                    "mimeType": "video/H264",
                    "parameters": {"packetization-mode": 1, "profile-level-id": "42e01f"},
                },
            ],
            "links": {"srtp": "Always", "rtx": False, "pruneDelay": "0s"},
            "recovery": {"silenceTimeout": "1m30s"},
            "allowedSessions": {
                "namespaces": {
                    "from": "Selector",
                    "selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                }
            },
            "tokens": {
                "keySets": [
                    {"name": "one", "secretRef": {"name": "one"}, "namespaces": {"from": "All"}},
                    {"name": "two", "secretRef": {"name": "two"}, "workers": True},
                ]
            },
        },
    ),
    (
        "MediaCluster",
        "pods",
        {
            "replicas": 3,
            "image": "registry.example.com:5000/mafalda/mafalda-operator:1.0.0",
            "workersPerServer": 4,
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": 4}},
            "template": {
                "metadata": {"labels": {"team": "media"}, "annotations": {"example.com/note": "any text"}},
                "spec": {
                    "nodeSelector": {"pool": "media"},
                    "tolerations": [{"key": "media", "operator": "Exists"}, {"operator": "Exists"}],
                    "affinity": {
                        "nodeAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": {
                                "nodeSelectorTerms": [
                                    {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}
                                ]
                            }
                        }
                    },
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "topology.kubernetes.io/zone",
                            "whenUnsatisfiable": "DoNotSchedule",
                            "labelSelector": {"matchLabels": {"team": "media"}},
                        }
                    ],
                    "priorityClassName": "high",
                    "imagePullSecrets": [{"name": "registry"}],
                },
            },
            "network": {
                "type": "HostNetwork",
                "ipFamilies": ["IPv4", "IPv6"],
                "clientPorts": {"port": 11000, "endPort": 11003},
                "pipePorts": {"port": 12000, "endPort": 12999},
                "announce": [{"type": "NodeExternalIP"}, {"type": "NodeInternalIP"}],
            },
            "drain": {"timeout": "0s"},
            "update": {"type": "OnDelete", "maxSurge": 0, "maxUnavailable": 2},
            "tls": {"secretRef": {"name": "given"}},
        },
    ),
    (
        "MediaCluster",
        "in-pods",
        {
            "replicas": 2,
            "workersPerServer": 4,
            "network": {"type": "Pod", "announce": [{"type": "LoadBalancer"}, {"type": "PodIP"}]},
            "update": {"maxSurge": 1, "maxUnavailable": 0},
        },
    ),
    (
        "MediaCluster",
        "one-address",
        {"replicas": 1, "network": {"announce": [{"type": "Address", "address": "203.0.113.7"}]}},
    ),
    ("MediaServer", "media1.example.com", SERVER),
    ("MediaServer", "of-a-pod", {"clusterRef": {"name": "main"}}),
    ("MediaServer", "six", {**SERVER, "endpoint": {"address": "[2001:db8::1]:4000"}, "zone": "a"}),
    ("MediaSession", "s" * 52, SESSION),
    ("MediaSession", "own", {"clusterRef": {"name": "main"}, "routers": {"min": 3}}),
    ("MediaRouter", "unbound", {"sessionName": "standup", "zone": "a"}),
    ("MediaRouter", "bound", {"sessionName": "standup", "serverName": "main-1", "workerSlot": 0}),
]

REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("MediaCluster", "a" * 41, {}, "at most 40 characters"),
    ("MediaCluster", "with.dot", {}, "of a-z, 0-9 and '-'"),
    ("MediaCluster", "c", {"publicURL": "https://x"}, "must begin with ws:// or wss://"),
    ("MediaCluster", "c", {"publicURL": "wss://x/"}, "nor slash at its end"),
    ("MediaCluster", "c", {"publicURL": "wss://x?a=b"}, "neither query"),
    ("MediaCluster", "c", {"mediaCodecs": []}, "should have at least 1 items"),
    ("MediaCluster", "c", {"mediaCodecs": [{"mimeType": "opus"}]}, "must be audio/NAME or video/NAME"),
    (
        "MediaCluster",
        "c",
        {"mediaCodecs": [{"mimeType": "video/VP8", "channels": 2}]},
        "for audio codecs only",
    ),
    ("MediaCluster", "c", {"links": {"srtp": "Sometimes"}}, "BetweenServers"),
    ("MediaCluster", "c", {"links": {"pruneDelay": "10"}}, "pruneDelay must be a duration from 0s to 1h"),
    ("MediaCluster", "c", {"links": {"pruneDelay": "2h"}}, "pruneDelay must be a duration from 0s to 1h"),
    ("MediaCluster", "c", {"recovery": {"silenceTimeout": "1s"}}, "from 2s to 10m"),
    ("MediaCluster", "c", {"recovery": {"silenceTimeout": "11m"}}, "from 2s to 10m"),
    (
        "MediaCluster",
        "c",
        {"allowedSessions": {"namespaces": {"from": "All", "selector": {}}}},
        "selector goes with from: Selector",
    ),
    (
        "MediaCluster",
        "c",
        {"allowedSessions": {"namespaces": {"from": "Selector"}}},
        "selector goes with from: Selector",
    ),
    (
        "MediaCluster",
        "c",
        {
            "allowedSessions": {
                "namespaces": {
                    "from": "Selector",
                    "selector": {"matchExpressions": [{"key": "a", "operator": "In"}]},
                }
            }
        },
        "values go with In and NotIn",
    ),
    ("MediaCluster", "c", {"tokens": {"keySets": [{"name": "one"}]}}, "secretRef"),
    (
        "MediaCluster",
        "c",
        {"tokens": {"keySets": [{"name": "one", "secretRef": {"name": "a"}, "workers": "yes"}]}},
        "workers",
    ),
    (
        "MediaCluster",
        "c",
        {"tokens": {"keySets": [{"name": "one", "secretRef": {"name": "a"}}] * 2}},
        "Duplicate value",
    ),
    ("MediaCluster", "c", {"replicas": -1}, "greater than or equal to 0"),
    ("MediaCluster", "c", {"replicas": 1001}, "less than or equal to 1000"),
    ("MediaCluster", "c", {"image": "two words"}, "without blanks"),
    ("MediaCluster", "c", {"workersPerServer": 0}, "greater than or equal to 1"),
    ("MediaCluster", "c", {"workersPerServer": 129}, "one port for each worker"),
    (
        "MediaCluster",
        "c",
        {"workersPerServer": 3, "network": {"clientPorts": {"port": 10000, "endPort": 10001}}},
        "one port for each worker",
    ),
    ("MediaCluster", "c", {"resources": {"limits": {"cpu": "four"}}}, "should match"),
    (
        "MediaCluster",
        "c",
        {"template": {"metadata": {"labels": {"mafalda.io/cluster": "other"}}}},
        "are set by the operator",
    ),
    (
        "MediaCluster",
        "c",
        {"template": {"metadata": {"annotations": {"mafalda.io/x": "y"}}}},
        "are set by the operator",
    ),
    ("MediaCluster", "c", {"template": {"spec": {"hostNetwork": True}}}, "unknown field"),
    ("MediaCluster", "c", {"template": {"spec": {"affinity": {"podAfinity": {}}}}}, "unknown field"),
    (
        "MediaCluster",
        "c",
        {"template": {"spec": {"tolerations": [{"effect": "NoSchedule"}]}}},
        "needs operator: Exists",
    ),
    (
        "MediaCluster",
        "c",
        {"template": {"spec": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}}},
        "takes no value",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"clientPorts": {"port": 30000, "endPort": 40000}}},
        "less than or equal to 32767",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"clientPorts": {"port": 11000, "endPort": 10999}}},
        "endPort must not be below port",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"clientPorts": {"port": 4002, "endPort": 4100}}},
        "4000, 4001 and 4002 are the media server's own",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"pipePorts": {"port": 3000, "endPort": 5000}}},
        "4000, 4001 and 4002 are the media server's own",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"clientPorts": {"port": 20500, "endPort": 20600}}},
        "clientPorts and pipePorts overlap",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"pipePorts": {"port": 10127, "endPort": 10999}}},
        "clientPorts and pipePorts overlap",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"announce": [{"type": "Address"}]}},
        "address goes with type: Address",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"announce": [{"type": "PodIP", "address": "203.0.113.7"}]}},
        "address goes with type: Address",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"announce": [{"type": "Address", "address": "203.0.113.7:10000"}]}},
        "without port or brackets",
    ),
    (
        "MediaCluster",
        "c",
        {"replicas": 2, "network": {"announce": [{"type": "Address", "address": "203.0.113.7"}]}},
        "replicas must be 0 or 1",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"type": "Pod", "announce": [{"type": "NodeExternalIP"}]}},
        "go with type: HostNetwork",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"announce": [{"type": "LoadBalancer"}]}},
        "LoadBalancer goes with type: Pod",
    ),
    (
        "MediaCluster",
        "c",
        {"network": {"type": "Pod", "announce": [{"type": "LoadBalancer"}]}},
        "needs workersPerServer or resources.limits.cpu",
    ),
    ("MediaCluster", "c", {"network": {"ipFamilies": ["IPv4", "IPv4"]}}, "Duplicate value"),
    ("MediaCluster", "c", {"drain": {"timeout": "25h"}}, "from 0s to 24h"),
    ("MediaCluster", "c", {"update": {"maxSurge": 1}}, "maxSurge must be 0 or absent"),
    ("MediaCluster", "c", {"update": {"maxUnavailable": 0}}, "maxUnavailable must be 1 or more"),
    (
        "MediaCluster",
        "c",
        {"network": {"type": "Pod"}, "update": {"maxSurge": 0, "maxUnavailable": 0}},
        "can't both be 0",
    ),
    ("MediaCluster", "c", {"tls": {"secretRef": {}}}, "name"),
    ("MediaServer", "s" * 64, SERVER, "at most 63 characters"),
    ("MediaServer", "s", {"endpoint": {"address": "media1.example.com:4000"}}, "clusterRef"),
    ("MediaServer", "s", {**SERVER, "endpoint": {"address": "media1.example.com"}}, "must be HOST:PORT"),
    ("MediaServer", "s", {**SERVER, "endpoint": {"address": "media1:70000"}}, "port from 1 to 65535"),
    ("MediaServer", "s", {**SERVER, "endpoint": {"address": "2001:db8::1:4000"}}, "IPv6 address in brackets"),
    ("MediaSession", "s" * 53, SESSION, "at most 52 characters"),
    ("MediaSession", "with.dot", SESSION, "of a-z, 0-9 and '-'"),
    ("MediaSession", "s", {}, "clusterRef"),
    ("MediaSession", "s", {**SESSION, "routers": {"min": 0}}, "remove it to let the operator choose"),
    ("MediaSession", "s", {**SESSION, "routers": {"min": 4}}, "more than 3 routers arrive with the cascade"),
    ("MediaSession", "s", {**SESSION, "routers": {"max": 3}}, "unknown field"),
    ("MediaSession", "s", {**SESSION, "maxParticipants": 10}, "unknown field"),
    ("MediaRouter", "r" * 64, {"sessionName": "standup"}, "at most 63 characters"),
    ("MediaRouter", "r", {"sessionName": "standup", "workerSlot": 1}, "workerSlot needs serverName"),
    ("MediaRouter", "r", {}, "sessionName"),
]

CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], str | None]] = [
    ("MediaServer", SERVER, {**SERVER, "zone": "b"}, None),
    ("MediaServer", SERVER, {**SERVER, "clusterRef": {"name": "other"}}, "clusterRef can't be changed"),
    ("MediaSession", SESSION, {**SESSION, "routers": {"min": 2}}, None),
    (
        "MediaSession",
        SESSION,
        {"clusterRef": {"name": "other", "namespace": "media"}},
        "clusterRef can't be changed",
    ),
    ("MediaSession", SESSION, {"clusterRef": {"name": "main"}}, "clusterRef can't be changed"),
    (
        "MediaSession",
        SESSION,
        {**SESSION, "mediaCodecs": [{"mimeType": "audio/opus"}]},
        "mediaCodecs can't be changed",
    ),
    (
        "MediaSession",
        {**SESSION, "mediaCodecs": [{"mimeType": "audio/opus", "parameters": {"a": 1}}]},
        {**SESSION, "mediaCodecs": [{"mimeType": "audio/opus", "parameters": {"a": 2}}]},
        "mediaCodecs can't be changed",
    ),
    (
        "MediaSession",
        {**SESSION, "mediaCodecs": [{"mimeType": "audio/opus"}]},
        SESSION,
        "mediaCodecs can't be changed",
    ),
    (
        "MediaRouter",
        {"sessionName": "standup"},
        {"sessionName": "standup", "serverName": "main-1", "workerSlot": 1},
        None,
    ),
    ("MediaRouter", {"sessionName": "standup"}, {"sessionName": "other"}, "sessionName can't be changed"),
    (
        "MediaRouter",
        {"sessionName": "standup", "serverName": "main-1"},
        {"sessionName": "standup", "serverName": "main-2"},
        "serverName can't be changed once set",
    ),
    (
        "MediaRouter",
        {"sessionName": "standup", "serverName": "main-1"},
        {"sessionName": "standup"},
        "serverName can't be changed once set",
    ),
    (
        "MediaRouter",
        {"sessionName": "standup", "serverName": "main-1", "workerSlot": 0},
        {"sessionName": "standup", "serverName": "main-1"},
        "workerSlot can't be changed once set",
    ),
    (
        "MediaRouter",
        {"sessionName": "standup", "zone": "a"},
        {"sessionName": "standup", "zone": "b"},
        "zone can't be changed once set",
    ),
]


def test_what_is_right_is_accepted(api: Any) -> None:
    for kind, name, spec in ACCEPTED:
        assert api.apply(kind, name, spec)["metadata"]["name"] == name


def test_what_is_wrong_is_refused_with_the_remedy(api: Any) -> None:
    for kind, name, spec, said in REFUSED:
        message = api.refused(kind, name, spec)
        assert said in message, f"{kind} {spec}: {message}"


def test_what_is_set_once_stays(api: Any) -> None:
    for number, (kind, before, after, said) in enumerate(CHANGES):
        name = f"change-{number}"
        api.apply(kind, name, before)
        if said is None:
            assert api.apply(kind, name, after)["metadata"]["generation"] == 2
        else:
            message = api.refused(kind, name, after)
            assert said in message, f"{kind} {after}: {message}"


@pytest.mark.parametrize("kind", ["MediaCluster", "MediaServer", "MediaSession", "MediaRouter"])
def test_unknown_fields_are_pruned_when_not_refused(api: Any, kind: str) -> None:
    spec = {"MediaCluster": {}, "MediaServer": SERVER, "MediaSession": SESSION}.get(
        kind, {"sessionName": "s"}
    )
    stored = api.apply(kind, "pruned", {**spec, "unknown": {"deep": 1}}, strict=False)
    assert "unknown" not in stored["spec"]


def test_no_tuning_is_stored_for_the_user(api: Any) -> None:
    key_set = {"name": "one", "secretRef": {"name": "one"}}
    stored = api.apply(
        "MediaCluster",
        "plain",
        {
            "links": {},
            "recovery": {},
            "allowedSessions": {"namespaces": {}},
            "tokens": {"keySets": [key_set]},
            "network": {},
            "drain": {},
            "update": {},
        },
    )
    assert stored["spec"] == {
        "replicas": 0,
        "network": {"type": "HostNetwork"},
        "drain": {},
        "update": {"type": "RollingDrain"},
        "links": {},
        "recovery": {},
        "allowedSessions": {"namespaces": {"from": "Same"}},
        "tokens": {"keySets": [key_set]},
    }


def test_scaling_goes_by_the_subresource_and_by_the_rules(api: Any) -> None:
    api.apply("MediaCluster", "scaled", {"replicas": 1})
    api.kubectl("scale", "mediacluster", "scaled", "--replicas=4")
    assert api.kubectl("get", "mfc", "scaled", "-o", "jsonpath={.spec.replicas}") == "4"
    one = {"replicas": 1, "network": {"announce": [{"type": "Address", "address": "203.0.113.7"}]}}
    api.apply("MediaCluster", "single", one)
    with pytest.raises(KubectlFailedError) as caught:
        api.kubectl("scale", "mediacluster", "single", "--replicas=2")
    assert "replicas must be 0 or 1" in caught.value.stderr
