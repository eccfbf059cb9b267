"""Routers written by hand."""

from typing import Any

import pytest
from mafalda_operator.model import ObjectKey
from mafalda_operator.planning import BindRouter, CreateRouter, DeleteRouter

SESSION = ObjectKey("shop", "standup")
HAND = ObjectKey("shop", "by-hand")


def owned(world: Any) -> list[Any]:
    return [router for router in world.routers_of(SESSION) if router.owned]


def test_one_counts_towards_the_minimum(world: Any) -> None:
    world.router("by-hand", serverName="main-2", workerSlot=1)
    world.session(min=3)
    world.settle()
    assert len(world.routers_of(SESSION)) == 3
    assert sorted(router.server_name for router in owned(world)) == ["main-1", "main-3"]
    assert world.condition("MediaRouter", HAND, "Ready")[0] == "True"
    assert world.status("MediaSession", SESSION)["desiredRouters"] == 3


def test_one_without_server_is_bound_once(world: Any) -> None:
    world.session(min=1)
    world.settle()
    world.router("by-hand")
    made = world.plan()
    assert [type(action) for action in made.actions] == [BindRouter]
    assert made.actions[0].server != ObjectKey("media", owned(world)[0].server_name)
    world.act(made)
    world.settle()
    assert world.condition("MediaRouter", HAND, "Ready")[0] == "True"
    assert len(world.routers_of(SESSION)) == 2, "what is there stays when one is added by hand"
    assert world.status("MediaSession", SESSION)["desiredRouters"] == 2


def test_one_with_server_but_no_slot_gets_a_free_slot_there(world: Any) -> None:
    world.session(min=1)
    world.settle()
    taken = owned(world)[0]
    world.router("by-hand", serverName=taken.server_name)
    world.settle()
    router = world.inventory.routers[HAND]
    assert router.server_name == taken.server_name
    assert router.worker_slot != taken.worker_slot


def test_one_with_a_zone_is_bound_in_it(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("a", zone="a")
    world.server("b", zone="b")
    world.session(min=1)
    world.router("by-hand", zone="b")
    world.router("elsewhere", zone="c")
    world.settle()
    assert world.inventory.routers[HAND].server_name == "b"
    elsewhere = ObjectKey("shop", "elsewhere")
    assert world.condition("MediaRouter", elsewhere, "Scheduled")[:2] == ("False", "NoCapacity")


def test_one_beyond_three_is_refused(world: Any) -> None:
    world.session(min=3)
    world.settle()
    before = {router.key for router in owned(world)}
    world.router("by-hand", serverName="main-1", workerSlot=1)
    world.settle()
    assert world.condition("MediaRouter", HAND, "Scheduled")[:2] == ("False", "TopologyLimit")
    assert {router.key for router in owned(world)} == before
    assert not any("by-hand" in key for view in world.views.values() for key in view.routers)
    world.router("unbound")
    world.settle()
    assert world.condition("MediaRouter", ObjectKey("shop", "unbound"), "Scheduled")[1] == "TopologyLimit"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"serverName": "nowhere", "workerSlot": 0}, "ServerNotFound"),
        ({"serverName": "main-1", "workerSlot": 7}, "WorkerSlotOutOfRange"),
    ],
)
def test_impossible_places_are_said_and_do_not_count(world: Any, spec: dict[str, Any], reason: str) -> None:
    world.router("by-hand", **spec)
    world.session(min=2)
    world.settle()
    status, found, message = world.condition("MediaRouter", HAND, "Scheduled")
    assert (status, found) == ("False", reason)
    assert spec["serverName"] in message
    assert len(owned(world)) == 2
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"


def test_two_on_one_worker_the_older_has_it(world: Any) -> None:
    world.session(min=1)
    world.router("first", serverName="main-1", workerSlot=0)
    world.settle()
    world.now += 10
    world.router("second", serverName="main-1", workerSlot=0)
    world.settle()
    assert world.condition("MediaRouter", ObjectKey("shop", "first"), "Ready")[0] == "True"
    second = ObjectKey("shop", "second")
    status, reason, message = world.condition("MediaRouter", second, "Scheduled")
    assert (status, reason) == ("False", "WorkerTaken")
    assert "first" in message


def test_one_without_session_waits_for_it(world: Any) -> None:
    world.router("by-hand", serverName="main-1", workerSlot=0)
    world.settle()
    assert world.condition("MediaRouter", HAND, "Scheduled")[:2] == ("False", "SessionNotFound")
    world.session(min=1)
    world.settle()
    assert world.condition("MediaRouter", HAND, "Ready")[0] == "True"
    assert owned(world) == []


def test_one_on_a_server_never_connected_is_not_counted(world: Any) -> None:
    world.server("new", connect=False)
    world.refuse(ObjectKey("media", "new"), "Refused", "refused")
    world.router("by-hand", serverName="new", workerSlot=0)
    world.session(min=1)
    world.settle()
    assert world.condition("MediaRouter", HAND, "Ready")[:2] == ("False", "ServerNotConnected")
    assert len(owned(world)) == 1


def test_one_on_a_lost_server_is_replaced_but_not_deleted(world: Any) -> None:
    world.router("by-hand", serverName="main-2", workerSlot=0)
    world.session(min=2)
    world.settle()
    world.advance(30)
    world.settle()
    world.die(ObjectKey("media", "main-2"))
    for _ in range(5):
        world.advance(1)
        world.settle()
    assert HAND in world.inventory.routers
    assert world.condition("MediaRouter", HAND, "Ready")[:2] == ("False", "ServerLost")
    assert len(owned(world)) == 2
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"
    world.connect(ObjectKey("media", "main-2"))
    world.settle()
    assert world.condition("MediaRouter", HAND, "Ready")[0] == "True"
    assert len(world.routers_of(SESSION)) == 3


def test_hand_written_routers_are_never_deleted_or_rewritten(world: Any) -> None:
    world.session(min=1)
    world.router("by-hand", serverName="main-1", workerSlot=1)
    world.settle()
    world.session(min=1)
    world.delete("MediaSession", *SESSION)
    world.settle()
    touched = [
        action.key
        for made in world.plans
        for action in made.actions
        if isinstance(action, CreateRouter | DeleteRouter | BindRouter)
    ]
    assert HAND not in touched
