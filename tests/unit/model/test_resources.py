"""Parsing custom resources: what is right, what is wrong, what is absent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.model import (
    MediaCluster,
    MediaRouter,
    MediaServer,
    MediaSession,
    ObjectKey,
    parse_duration,
)

METADATA = {
    "namespace": "shop",
    "name": "standup",
    "uid": "u1",
    "generation": 3,
    "creationTimestamp": "2026-11-22T12:00:00Z",
}


def obj(spec: Any, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {**METADATA, **metadata}, "spec": spec}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("500ms", 0.5), ("1m30s", 90), ("1h", 3600), ("1.5s", 1.5), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1d", "1s ", "1" * 40 + "s"])
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


def test_an_empty_cluster_is_all_defaults() -> None:
    cluster = MediaCluster.parse(obj({}))
    assert cluster.key == ObjectKey("shop", "standup")
    assert cluster.silence_timeout == 3.0
    assert (cluster.links.srtp, cluster.links.rtx, cluster.links.prune_delay) == (
        "BetweenServers",
        True,
        10.0,
    )
    assert cluster.allowed.source == "Same"
    assert [(one.name, one.secret_name) for one in cluster.key_sets] == [("default", "standup-token-keys")]
    assert cluster.media_codecs is None
    assert cluster.problems == ()


def test_a_session_defaults_to_its_own_namespace_and_one_router() -> None:
    session = MediaSession.parse(obj({"clusterRef": {"name": "main"}}))
    assert session.cluster == ObjectKey("shop", "main")
    assert session.min_routers == 1
    assert not session.deleting
    named = {"clusterRef": {"name": "main", "namespace": "media"}, "routers": {"min": 3}}
    session = MediaSession.parse(obj(named, deletionTimestamp="2026-11-22T12:00:00Z"))
    assert (session.cluster, session.min_routers) == (ObjectKey("media", "main"), 3)
    assert session.deleting


def test_a_router_is_owned_only_by_a_controlling_session() -> None:
    owner = {"kind": "MediaSession", "uid": "s1", "controller": True}
    annotations = {"mafalda.io/index": "1", "mafalda.io/generation": "4"}
    router = MediaRouter.parse(
        obj({"sessionName": "standup"}, ownerReferences=[owner], annotations=annotations)
    )
    assert (router.owner_uid, router.index, router.replaced) == ("s1", 1, 4)
    for other in ({**owner, "controller": False}, {**owner, "kind": "Deployment"}):
        assert not MediaRouter.parse(obj({"sessionName": "standup"}, ownerReferences=[other])).owned


@pytest.mark.parametrize("text", ["-1", "x", "", "1.5", "9" * 12])
def test_an_annotation_that_somebody_broke_reads_as_none(text: str) -> None:
    router = MediaRouter.parse(obj({"sessionName": "s"}, annotations={"mafalda.io/index": text}))
    assert router.index is None


def test_wrong_shapes_are_problems_with_the_field() -> None:
    cluster = MediaCluster.parse(
        obj({"links": {"rtx": "yes", "srtp": "Sometimes"}, "recovery": {"silenceTimeout": "soon"}})
    )
    assert {problem.field for problem in cluster.problems} == {
        "spec.links.rtx",
        "spec.links.srtp",
        "spec.recovery.silenceTimeout",
    }
    assert cluster.links.rtx is True
    assert cluster.silence_timeout == 3.0


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SPECS = st.dictionaries(
    st.sampled_from(
        [
            "clusterRef",
            "routers",
            "mediaCodecs",
            "links",
            "recovery",
            "tokens",
            "allowedSessions",
            "endpoint",
            "zone",
            "sessionName",
            "serverName",
            "workerSlot",
            "publicURL",
        ]
    ),
    ANYTHING,
)


@pytest.mark.parametrize("kind", [MediaCluster, MediaServer, MediaSession, MediaRouter])
@given(spec=SPECS | ANYTHING, status=ANYTHING, metadata=ANYTHING)
def test_parsing_never_raises(kind: Any, spec: Any, status: Any, metadata: Any) -> None:
    kind.parse({"metadata": metadata, "spec": spec, "status": status})
    parsed = kind.parse({"metadata": METADATA, "spec": spec, "status": status})
    parsed.condition("Ready")
