"""What is told of a change of status: each change once, nothing that only goes on, nothing by a standby."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from mafalda_operator.effects.story import Story, named
from mafalda_operator.model import Inventory, MediaCluster, MediaRouter, MediaServer, MediaSession, ObjectKey
from mafalda_operator.planning import CreateRouter, CreateTokenKeys, DeleteRouter, Owner
from structlog.testing import capture_logs

SESSION, MAIN = ObjectKey("shop", "s"), ObjectKey("media", "main")


def condition(kind: str, status: str, reason: str, message: str = "m") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def session(*conditions: dict[str, str], uid: str = "su", **status: Any) -> MediaSession:
    return MediaSession(
        key=SESSION,
        uid=uid,
        generation=1,
        deleting=False,
        created="",
        cluster=MAIN,
        status={"conditions": list(conditions), **status},
    )


def server(*conditions: dict[str, str], **status: Any) -> MediaServer:
    return MediaServer(
        key=ObjectKey("media", "m0"),
        uid="mu",
        generation=1,
        deleting=False,
        created="",
        cluster=MAIN,
        address="",
        status={"conditions": list(conditions), **status},
    )


def cluster(*conditions: dict[str, str]) -> MediaCluster:
    status = {"conditions": list(conditions)}
    return MediaCluster(key=MAIN, uid="cu", generation=1, deleting=False, created="", status=status)


def router(name: str = "s-a", *conditions: dict[str, str]) -> MediaRouter:
    return MediaRouter(
        key=ObjectKey("shop", name),
        uid=f"{name}-uid",
        generation=1,
        deleting=False,
        created="",
        session=SESSION,
        server_name="m0",
        worker_slot=1,
        status={"conditions": list(conditions)},
    )


ACCEPTED = condition("Accepted", "True", "Accepted")
PLACED = {"name": "s-a", "serverName": "m0", "workerSlot": 1}


class Told:
    def __init__(self) -> None:
        self.inventory = Inventory()
        self.story = Story(self.inventory)
        self.story.telling = True

    def of(self, *versions: Any) -> list[dict[str, Any]]:
        """The lines while an object has these versions, one after the other."""
        with capture_logs() as lines:
            for before, after in pairwise(versions):
                self.story.changed(before, after)
        return [dict(line) for line in lines]

    def reasons(self, *versions: Any) -> list[str]:
        return [line["reason"] for line in self.of(*versions)]


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_session_that_becomes_ready(told: Told) -> None:
    under_way = session(
        ACCEPTED,
        condition("Scheduled", "False", "Scheduling"),
        condition("Available", "False", "Scheduling"),
        condition("Ready", "False", "Scheduling"),
    )
    opening = session(
        ACCEPTED,
        condition("Scheduled", "True", "Scheduled"),
        condition("Available", "False", "Opening"),
        condition("Ready", "False", "Opening"),
        routers=[{**PLACED, "ready": False}, {**PLACED, "name": "s-b", "ready": False}],
        links=[{"from": "s-a", "to": "s-b", "ready": False}],
    )
    ready = session(
        ACCEPTED,
        condition("Scheduled", "True", "Scheduled"),
        condition("Available", "True", "Available"),
        condition("Ready", "True", "Ready"),
        routers=[{**PLACED, "ready": True}, {**PLACED, "name": "s-b", "ready": True}],
        links=[{"from": "s-a", "to": "s-b", "ready": True}],
    )
    lines = told.of(session(), under_way, under_way, opening, ready, ready)
    reasons = [line["reason"] for line in lines]
    assert reasons == ["Accepted", "RouterReady", "RouterReady", "LinkUp", "Available", "Ready"]
    assert {"session": "shop/s", "router": "shop/s-a", "server": "media/m0", "worker": 1}.items() <= lines[
        1
    ].items()
    assert (lines[3]["router"], lines[3]["other_router"]) == ("shop/s-a", "shop/s-b")


def test_why_a_session_is_refused_is_told_once_and_again_for_another_reason(told: Told) -> None:
    def refused(reason: str) -> MediaSession:
        kinds = ("Accepted", "Scheduled", "Available", "Linked", "Ready")
        return session(*(condition(kind, "False", reason) for kind in kinds))

    versions = [session(), refused("ClusterNotFoundOrForbidden"), refused("ClusterNotFoundOrForbidden")]
    assert told.reasons(*versions) == ["ClusterNotFoundOrForbidden"]
    assert told.reasons(versions[-1], refused("UnsupportedCodec")) == ["UnsupportedCodec"]


def test_a_shortage_is_told_and_its_changing_words_are_not(told: Told) -> None:
    def short(message: str) -> MediaSession:
        return session(ACCEPTED, condition("Scheduled", "False", "NoCapacity", message))

    (line,) = told.of(session(ACCEPTED), short("2 workers free"), short("1 worker free"))
    assert (line["reason"], line["log_level"]) == ("NoCapacity", "warning")
    assert line["event"] == "session lacks routers: 2 workers free"


def test_a_router_that_fails_takes_its_links_with_it_on_one_line(told: Told) -> None:
    ready = session(
        ACCEPTED,
        condition("Available", "True", "Available"),
        condition("Ready", "True", "Ready"),
        routers=[{**PLACED, "ready": True}, {**PLACED, "name": "s-b", "ready": True}],
        links=[{"from": "s-a", "to": "s-b", "ready": True}],
    )
    failing = session(
        ACCEPTED,
        condition("Available", "True", "Available"),
        condition("Linked", "False", "ServerLost", "s-a to s-b: m0 is lost"),
        condition("Ready", "False", "Scheduling", "routers are being made on m1"),
        routers=[{**PLACED, "ready": False}, {**PLACED, "name": "s-b", "ready": True}],
        links=[{"from": "s-a", "to": "s-b", "ready": False}],
    )
    lines = told.of(ready, failing, failing)
    assert [(line["reason"], line.get("router")) for line in lines] == [
        ("ServerLost", "shop/s-a"),
        ("Scheduling", None),
    ]
    assert lines[0]["event"] == "router not ready: s-a to s-b: m0 is lost"


def test_a_link_that_fails_between_working_routers_is_told(told: Told) -> None:
    def linked(ready: bool) -> MediaSession:
        return session(
            ACCEPTED,
            condition("Linked", str(ready), "Linked" if ready else "PeerUnreachable", "m0 hears nothing"),
            routers=[{**PLACED, "ready": True}, {**PLACED, "name": "s-b", "ready": True}],
            links=[{"from": "s-a", "to": "s-b", "ready": ready}],
        )

    lines = told.of(linked(True), linked(False), linked(True))
    assert [line["reason"] for line in lines] == ["LinkDown", "LinkUp"]
    assert lines[0]["event"] == "link down (PeerUnreachable): m0 hears nothing"


def test_a_session_that_loses_all_its_routers_is_told_once(told: Told) -> None:
    up = session(ACCEPTED, condition("Available", "True", "Available"), condition("Ready", "True", "Ready"))
    down = session(
        ACCEPTED, condition("Available", "False", "WorkerDied"), condition("Ready", "False", "WorkerDied")
    )
    assert told.reasons(up, down) == ["WorkerDied"]
    assert told.reasons(down, up) == ["Available", "Ready"]


def test_routers_that_share_a_server_are_told(told: Told) -> None:
    shared = session(ACCEPTED, condition("Spread", "False", "SharedServer", "s-a and s-b share m0"))
    assert told.reasons(session(ACCEPTED), shared, shared) == ["SharedServer"]


def test_acceptance_is_told_before_the_first_router_and_once(told: Told) -> None:
    told.inventory.put(session())
    action = CreateRouter(
        ObjectKey("shop", "s-a"),
        {"serverName": "m0", "workerSlot": 1},
        {},
        {},
        Owner("s", "su"),
        "Scheduled",
        "m",
    )
    with capture_logs() as lines:
        told.story.acted(action)
        told.story.acted(action)
        told.story.changed(session(), session(ACCEPTED))
    assert [line["reason"] for line in lines] == ["Accepted", "Scheduled", "Scheduled"]
    assert lines[1]["server"] == "media/m0"
    assert lines[1]["worker"] == 1


def test_the_end_of_a_session(told: Told) -> None:
    told.inventory.put(session())
    for name in ("s-a", "s-b"):
        told.inventory.put(router(name))
    with capture_logs() as lines:
        told.inventory.remove("MediaSession", SESSION)
        told.story.removed(session())
        told.story.deleting(DeleteRouter(ObjectKey("shop", "s-a"), "s-a-uid", SESSION, "SessionGone", "gone"))
        for name in ("s-a", "s-b"):
            told.inventory.remove("MediaRouter", ObjectKey("shop", name))
            told.story.removed(router(name))
    assert [line["reason"] for line in lines] == [
        "SessionDeleted",
        "SessionGone",
        "SessionGone",
        "SessionEnded",
    ]
    assert all(line["session"] == "shop/s" for line in lines)
    assert [line.get("server") for line in lines] == [None, "media/m0", "media/m0", None]


def test_a_router_that_somebody_deletes(told: Told) -> None:
    told.inventory.put(session())
    with capture_logs() as lines:
        told.story.removed(router())
    assert [line["reason"] for line in lines] == ["Deleted"]


def test_a_hand_written_router_without_a_place_says_why(told: Told) -> None:
    taken = router("s-a", condition("Scheduled", "False", "WorkerTaken", "delete one of them"))
    assert told.reasons(router(), router("s-a", condition("Scheduled", "False", "Scheduling")), taken) == [
        "WorkerTaken"
    ]


def test_a_server_is_told_by_its_readiness_where_its_link_does_not_tell(told: Told) -> None:
    up = server(condition("Connected", "True", "Connected"), condition("Ready", "True", "Ready"))
    away = server(condition("Connected", "False", "Refused"), condition("Ready", "False", "Refused"))
    lost = server(condition("Connected", "False", "Refused"), condition("Ready", "False", "ServerLost"))
    assert told.reasons(server(), up, up, away, lost, up) == ["Ready", "ServerLost", "Ready"]


def test_a_drain_from_its_beginning_to_its_end(told: Told) -> None:
    ready, not_ready = condition("Ready", "True", "Ready"), condition("Ready", "False", "Draining")
    drain = {"reason": "PodDeleting", "startTime": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:15:00Z"}
    draining = server(not_ready, drain={**drain, "routersLeft": 2})
    later = server(not_ready, drain={**drain, "routersLeft": 1})
    drained = server(not_ready, condition("Drained", "True", "Drained"), drain={**drain, "routersLeft": 0})
    lines = told.of(server(ready), draining, later, drained, server(ready))
    assert [line["reason"] for line in lines] == ["PodDeleting", "Drained", "DrainCancelled"]
    assert "2026-01-01T00:15:00Z" in lines[0]["event"]


def test_a_clusters_conditions_and_ready_only_with_a_reason_of_its_own(told: Told) -> None:
    def frozen(status: str, reason: str) -> dict[str, str]:
        return condition("Frozen", status, reason)

    good = cluster(
        condition("Available", "True", "Available"),
        frozen("False", "NotFrozen"),
        condition("Ready", "True", "Ready"),
    )
    bad = cluster(
        condition("Available", "False", "NoServerReady"),
        frozen("True", "NoServerConnected"),
        condition("Ready", "False", "NoServerConnected"),
    )
    assert told.reasons(cluster(), good, good) == ["Available", "Ready"]
    assert told.reasons(good, bad, bad) == ["NoServerReady", "NoServerConnected"]
    assert told.reasons(bad, good) == ["Available", "NotFrozen", "Ready"]


def test_what_is_gone_is_told_and_a_standby_tells_nothing(told: Told) -> None:
    with capture_logs() as lines:
        told.story.removed(server())
        told.story.removed(cluster())
        told.story.telling = False
        told.story.removed(session())
        told.story.changed(session(), session(ACCEPTED))
    assert [line["reason"] for line in lines] == ["ServerDeleted", "ClusterDeleted"]


def test_an_object_that_was_not_there_before_is_no_change(told: Told) -> None:
    with capture_logs() as lines:
        told.story.changed(None, session(ACCEPTED))
    assert lines == []


def test_token_keys_are_told_without_the_keys(told: Told) -> None:
    with capture_logs() as lines:
        told.story.acted(
            CreateTokenKeys(MAIN, "cu", "default", ObjectKey("media", "keys"), "k1", "TokenKeysMade", "m")
        )
    (line,) = lines
    assert {
        "cluster": "media/main",
        "secret": "media/keys",
        "reason": "TokenKeysMade",
    }.items() <= line.items()


@pytest.mark.parametrize(
    ("kind", "word"),
    [("MediaSession", "session"), ("MediaRouter", "router"), ("MediaServer", "server"), ("Pod", "pod")],
)
def test_how_objects_are_named(kind: str, word: str) -> None:
    assert named(kind, SESSION) == {word: "shop/s"}
