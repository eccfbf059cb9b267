"""What servers are told, and how a plan becomes changes for each of them."""

from typing import Any

import pytest
from mafalda_operator.model import EVERYTHING, ObjectKey
from mafalda_operator.planning import DesiredBook, check_apply

from mediaserver.control.contract import LinkEntry, RouterEntry, SessionEntry, SettingsEntry

SESSION = ObjectKey("shop", "standup")
ONE, TWO, THREE = (ObjectKey("media", f"main-{number}") for number in (1, 2, 3))


def links_on(world: Any, server: ObjectKey) -> list[LinkEntry]:
    return [entry for entry in world.book.of(server).values() if isinstance(entry, LinkEntry)]


@pytest.mark.parametrize(
    ("policy", "between", "inside"),
    [
        ({}, True, False),
        ({"srtp": "Always"}, True, True),
        ({"srtp": "Never"}, False, False),
    ],
)
def test_srtp_is_stated_for_each_link(
    make_world: Any, policy: dict[str, Any], between: bool, inside: bool
) -> None:
    world = make_world()
    world.cluster(links={"rtx": False, **policy})
    world.server("main-1")
    world.server("main-2")
    world.session(min=3)
    world.settle()
    entries = links_on(world, ONE) + links_on(world, TWO)
    assert len(entries) == 5, "two links between servers told to both ends, one inside a server told once"
    for entry in entries:
        local = entry.remote_peer is None
        assert entry.srtp == (inside if local else between)
        assert entry.rtx is False


def test_both_ends_are_told_the_same_link(world: Any) -> None:
    world.session(min=2)
    world.settle()
    ends = [entry for server in (ONE, TWO, THREE) for entry in links_on(world, server)]
    assert len(ends) == 2
    assert (ends[0].local_router, ends[0].remote_router) == (ends[1].remote_router, ends[1].local_router)
    assert ends[0].remote_peer is not None
    assert f"media/{ends[0].remote_peer.host}" == ends[0].remote_server
    assert ends[0].session_uid == world.inventory.sessions[SESSION].uid


def test_every_server_gets_settings_and_only_its_part(world: Any) -> None:
    world.session(min=1)
    world.settle()
    used = next(iter(world.book.servers_of(SESSION)))
    for server in (ONE, TWO, THREE):
        kinds = {type(entry) for entry in world.book.of(server).values()}
        assert kinds == ({SettingsEntry, SessionEntry, RouterEntry} if server == used else {SettingsEntry})
    assert world.book.of(ONE)["settings"] == SettingsEntry(prune_delay=10.0, silence_timeout=3.0)


def test_pipe_protocols_that_differ_are_not_linked(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", pipe_protocol=1)
    world.server("main-2", pipe_protocol=2)
    world.router("one", serverName="main-1", workerSlot=0)
    world.router("two", serverName="main-2", workerSlot=0)
    world.session(min=2)
    world.settle()
    assert links_on(world, ONE) == links_on(world, TWO) == []
    status, reason, message = world.condition("MediaSession", SESSION, "Linked")
    assert (status, reason) == ("False", "PipeProtocol")
    assert "run both servers at one version" in message
    assert world.condition("MediaSession", SESSION, "Available")[0] == "True"


def test_a_plan_of_one_session_changes_only_that(world: Any) -> None:
    world.session("one", min=2)
    world.settle()
    world.session("two", min=2)
    world.act(world.plan())
    changes = world.book.take(world.plan())
    assert changes
    for change in changes.values():
        assert change.gone == []
        assert all("two" in key for key in change.changed)


def test_a_whole_plan_drops_what_it_does_not_name(world: Any) -> None:
    world.session("one", min=1)
    world.session("two", min=1)
    world.settle()
    book = DesiredBook()
    book.take(world.plan(EVERYTHING))
    assert {server: dict(book.of(server)) for server in (ONE, TWO, THREE)} == {
        server: dict(world.book.of(server)) for server in (ONE, TWO, THREE)
    }
    world.inventory.remove("MediaSession", ObjectKey("shop", "two"))
    for router in world.routers_of(ObjectKey("shop", "two")):
        world.inventory.remove("MediaRouter", router.key)
    changes = book.take(world.plan(EVERYTHING))
    assert sum(len(change.gone) for change in changes.values()) == 2


def test_the_book_forgets_a_server(world: Any) -> None:
    world.session(min=3)
    world.settle()
    world.book.forget(TWO)
    assert world.book.of(TWO) == {}
    assert world.book.servers_of(SESSION) == {ONE, THREE}


@pytest.mark.parametrize(
    ("live", "kept", "confirmed", "withheld"),
    [
        (10, 7, 0, False),
        (10, 6, 0, True),
        (10, 6, 1, False),
        (100, 80, 0, False),
        (100, 79, 0, True),
        (100, 0, 100, False),
        (2, 0, 0, False),
    ],
)
def test_applies_that_close_much_unasked_are_withheld(
    live: int, kept: int, confirmed: int, withheld: bool
) -> None:
    keys = [f"router/shop/r{number:03}" for number in range(live)]
    verdict = check_apply(ONE, keys, keys[:kept], set(keys[kept : kept + confirmed]))
    assert (verdict is not None) == withheld
    if verdict is not None:
        assert verdict.closing == tuple(keys[kept + confirmed :])
        assert "media/main-1" in verdict.message
