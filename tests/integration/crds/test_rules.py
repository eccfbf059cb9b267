"""Each rule of the definitions on a real API server: what passes, what is refused, and what is said."""

from __future__ import annotations

from typing import Any

import pytest

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
    ("MediaServer", "media1.example.com", SERVER),
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
    ("MediaServer", "s" * 64, SERVER, "at most 63 characters"),
    ("MediaServer", "s", {"clusterRef": {"name": "main"}}, "endpoint"),
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
        },
    )
    assert stored["spec"] == {
        "links": {},
        "recovery": {},
        "allowedSessions": {"namespaces": {"from": "Same"}},
        "tokens": {"keySets": [key_set]},
    }
