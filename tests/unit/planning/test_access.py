"""Who may use a cluster, with which codecs and keys."""

from typing import Any

import pytest
from mafalda_operator.model import KeySecret, NamespaceInfo, ObjectKey
from mafalda_operator.planning import CreateTokenKeys

from mediaserver.control.contract import RouterEntry, SessionEntry

SESSION = ObjectKey("shop", "standup")
CLUSTER = ObjectKey("media", "main")


def test_a_missing_and_a_forbidden_cluster_give_one_answer(make_world: Any) -> None:
    world = make_world()
    world.cluster(allowedSessions={"namespaces": {"from": "Same"}})
    world.server("main-1")
    world.session("forbidden")
    world.session("missing", clusterRef={"name": "none", "namespace": "media"})
    world.session("fine", namespace="media", clusterRef={"name": "main"})
    world.settle()
    forbidden = world.condition("MediaSession", ObjectKey("shop", "forbidden"), "Accepted")
    missing = world.condition("MediaSession", ObjectKey("shop", "missing"), "Accepted")
    assert forbidden[:2] == missing[:2] == ("False", "ClusterNotFoundOrForbidden")
    assert forbidden[2].replace("media/main", "X") == missing[2].replace("media/none", "X")
    assert world.condition("MediaSession", ObjectKey("media", "fine"), "Ready")[0] == "True"
    assert "url" not in world.status("MediaSession", ObjectKey("shop", "forbidden"))


def test_a_selector_follows_the_namespace_s_labels(make_world: Any) -> None:
    world = make_world()
    selector = {
        "matchLabels": {"team": "av"},
        "matchExpressions": [
            {"key": "stage", "operator": "In", "values": ["test", "live"]},
            {"key": "closed", "operator": "DoesNotExist"},
        ],
    }
    world.cluster(allowedSessions={"namespaces": {"from": "Selector", "selector": selector}})
    world.server("main-1")
    world.session()
    world.settle()
    assert world.condition("MediaSession", SESSION, "Accepted")[0] == "False"
    world.scope |= world.inventory.put_namespace("shop", NamespaceInfo({"team": "av", "stage": "live"}))
    world.settle()
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"
    closed = NamespaceInfo({"team": "av", "stage": "live", "closed": ""})
    world.scope |= world.inventory.put_namespace("shop", closed)
    world.settle()
    assert world.condition("MediaSession", SESSION, "Accepted")[0] == "False"
    assert world.routers_of(SESSION) == [], "a session that is not admitted any more ends"


@pytest.mark.parametrize(
    ("codec", "said"),
    [
        ({"mimeType": "video/H266"}, "use one of audio/CN"),
        ({"mimeType": "audio/opus", "clockRate": 44100}, "clockRate of 48000"),
        ({"mimeType": "audio/opus", "channels": 1}, "has 2 channels"),
    ],
)
def test_an_unknown_codec_is_refused_with_what_there_is(world: Any, codec: dict[str, Any], said: str) -> None:
    world.session(mediaCodecs=[codec])
    world.settle()
    status, reason, message = world.condition("MediaSession", SESSION, "Accepted")
    assert (status, reason) == ("False", "UnsupportedCodec")
    assert message.startswith("spec.mediaCodecs: ")
    assert said in message
    assert world.routers_of(SESSION) == []


def test_codecs_are_resolved_once_and_then_frozen(world: Any) -> None:
    world.session()
    world.settle()
    codecs = world.status("MediaSession", SESSION)["mediaCodecs"]
    assert [codec["mimeType"] for codec in codecs] == [
        "audio/opus",
        "video/VP8",
        "video/VP9",
        "video/H264",
        "video/AV1",
    ]
    assert codecs[0] == {"mimeType": "audio/opus", "clockRate": 48000, "channels": 2}
    world.cluster(mediaCodecs=[{"mimeType": "video/vp8"}])
    world.session("later")
    world.settle()
    assert world.status("MediaSession", SESSION)["mediaCodecs"] == codecs
    later = world.status("MediaSession", ObjectKey("shop", "later"))["mediaCodecs"]
    assert later == [{"mimeType": "video/VP8", "clockRate": 90000}]


def test_codecs_are_not_frozen_before_there_is_a_router(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.session()
    world.settle()
    assert "mediaCodecs" not in world.status("MediaSession", SESSION)
    world.cluster(mediaCodecs=[{"mimeType": "audio/opus"}])
    world.server("main-1")
    world.settle()
    assert len(world.status("MediaSession", SESSION)["mediaCodecs"]) == 1


def test_codecs_reach_the_servers_as_mediasoup_takes_them(world: Any) -> None:
    parameters = {"packetization-mode": "1", "profile-level-id": 640033}
    world.session(mediaCodecs=[{"mimeType": "video/H264", "parameters": parameters}])
    made = world.plan()
    world.act(made)
    made = world.plan()
    entries = [entry for of_server in made.desired[SESSION].values() for entry in of_server.values()]
    router = next(entry for entry in entries if isinstance(entry, RouterEntry))
    assert router.media_codecs == [
        {
            "kind": "video",
            "mimeType": "video/H264",
            "clockRate": 90000,
            "parameters": {"packetization-mode": 1, "profile-level-id": "640033"},
        }
    ]


def test_token_keys_are_those_of_the_sets_for_the_namespace(make_world: Any) -> None:
    world = make_world()
    key_sets = [
        {"name": "own", "secretRef": {"name": "own-keys"}},
        {"name": "all", "secretRef": {"name": "all-keys"}, "namespaces": {"from": "All"}},
    ]
    cluster = world.cluster(tokens={"keySets": key_sets})
    sets = {
        "own": KeySecret({"own": b"o" * 32}),
        "all": KeySecret({"k1": b"a" * 32, "short": b"s" * 8}),
    }
    world.inventory.put_token_keys(cluster.key, sets)
    world.server("main-1")
    world.session()
    world.settle()
    entry = world.book.of(ObjectKey("media", "main-1"))["session/shop/standup"]
    assert isinstance(entry, SessionEntry)
    assert set(entry.token_keys) == {"k1"}
    assert entry.issuers == [cluster.uid, "media/main", "main"]
    assert world.condition("MediaCluster", CLUSTER, "Ready")[:2] == ("False", "TokenKeyTooShort")
    status = world.status("MediaCluster", CLUSTER)
    assert "aaaa" not in str(status), "keys never enter a status"
    assert status["keySets"] == [
        {"name": "all", "secretName": "all-keys", "keyIDs": ["k1"]},
        {"name": "own", "secretName": "own-keys", "keyIDs": ["own"]},
    ]


def test_a_key_secret_is_made_when_absent_and_never_again(make_world: Any) -> None:
    world = make_world()
    cluster = world.cluster()
    world.inventory.token_keys.clear()
    world.settle()
    assert not any(isinstance(action, CreateTokenKeys) for made in world.plans for action in made.actions), (
        "not before the Secrets have been read"
    )
    assert world.condition("MediaCluster", CLUSTER, "Ready")[1] == "TokenKeysPending"
    world.scope |= world.inventory.put_token_keys(cluster.key, {"default": KeySecret({}, exists=False)})
    world.settle()
    made = [action for one in world.plans for action in one.actions if isinstance(action, CreateTokenKeys)]
    assert [(action.secret, action.kid) for action in made] == [
        (ObjectKey("media", "main-token-keys"), "2026-11-22")
    ]
    world.scope |= world.inventory.put_token_keys(cluster.key, {"default": KeySecret({}, exists=False)})
    world.settle()
    again = [action for one in world.plans for action in one.actions if isinstance(action, CreateTokenKeys)]
    assert again == made
    assert world.condition("MediaCluster", CLUSTER, "Ready")[1] == "TokenKeysMissing"


def test_while_the_cluster_object_is_gone_routers_are_kept(world: Any) -> None:
    world.session(min=2)
    world.settle()
    world.delete("MediaCluster", "media", "main")
    world.settle()
    assert len(world.routers_of(SESSION)) == 2
    assert world.condition("MediaServer", ObjectKey("media", "main-1"), "Ready")[1] == "ClusterNotFound"
