"""Where routers go, and what makes them go."""

from collections import Counter
from typing import Any

import pytest
from mafalda_operator.model import NamespaceInfo, ObjectKey
from mafalda_operator.planning import CreateRouter, DeleteRouter, router_name

from mediaserver.control.contract import RouterState, router_key

SESSION = ObjectKey("shop", "standup")


def place_of(router: Any) -> tuple[str, int]:
    return router.server_name, router.worker_slot


def test_three_routers_sit_on_three_servers_and_are_linked_each_to_each(world: Any) -> None:
    world.session(min=3)
    world.settle()
    routers = world.routers_of(SESSION)
    assert sorted(router.server_name for router in routers) == ["main-1", "main-2", "main-3"]
    assert all(router.worker_slot is not None for router in routers)
    status = world.status("MediaSession", SESSION)
    assert status["readyRouters"] == 3
    assert len(status["links"]) == 3
    assert all(link["ready"] and link["from"] < link["to"] for link in status["links"])
    for kind in ("Accepted", "Available", "Scheduled", "Linked", "Spread", "Ready"):
        assert world.condition("MediaSession", SESSION, kind)[0] == "True"
    assert status["url"] == "wss://media.example.com/?roomId=shop/standup"


def test_names_come_from_uid_index_and_generation(world: Any) -> None:
    world.session(min=2)
    made = world.plan()
    uid = world.inventory.sessions[SESSION].uid
    names = [action.key.name for action in made.actions]
    assert names == [router_name("standup", uid, index, 0) for index in (0, 1)]
    assert all(len(name) == len("standup-") + 5 for name in names)
    assert router_name("standup", uid, 0, 1) not in names


def test_planning_twice_before_acting_names_the_same_routers(world: Any) -> None:
    world.session(min=3)
    scope = world.scope
    first = world.plan(scope)
    second = world.plan(scope)
    assert [action.key for action in first.actions] == [action.key for action in second.actions]


def test_created_routers_carry_labels_owner_and_binding(world: Any) -> None:
    world.session(min=1)
    action = world.plan().actions[0]
    assert isinstance(action, CreateRouter)
    assert action.spec == {"sessionName": "standup", "serverName": "main-1", "workerSlot": 0}
    assert action.labels == {
        "mafalda.io/cluster": "main",
        "mafalda.io/server": "main-1",
        "mafalda.io/session": "standup",
    }
    assert action.annotations == {"mafalda.io/index": "0", "mafalda.io/generation": "0"}
    assert action.owner.uid == world.inventory.sessions[SESSION].uid


def test_sessions_planned_together_fill_workers_evenly(world: Any) -> None:
    for number in range(12):
        world.session(f"s{number}")
    world.settle()
    counts: dict[tuple[str, int], int] = {}
    for router in world.inventory.routers.values():
        counts[place_of(router)] = counts.get(place_of(router), 0) + 1
    assert len(counts) == 6
    assert set(counts.values()) == {2}


def test_servers_whose_cores_applications_use_are_chosen_later(world: Any) -> None:
    """Two cores on two workers are as a whole core used by each."""
    world.use_tenants(ObjectKey("media", "main-1"), 2.0)
    for number in range(8):
        world.session(f"s{number}")
    world.settle()
    counts = Counter(router.server_name for router in world.inventory.routers.values())
    assert counts == {"main-2": 4, "main-3": 4}
    for number in range(8, 46):
        world.session(f"s{number}")
    world.settle()
    counts = Counter(router.server_name for router in world.inventory.routers.values())
    assert counts == {"main-1": 2, "main-2": 22, "main-3": 22}, "load evens out at ten routers for a core"


@pytest.mark.parametrize(("workers", "cores"), [(1, 0.4), (2, 0.8), (4, 1.6)])
def test_cores_of_applications_are_spread_over_the_workers(
    make_world: Any, workers: int, cores: float
) -> None:
    """So the same use weighs less on a larger server."""
    world = make_world()
    world.cluster()
    busy = world.server("busy", workers=workers)
    world.server("idle", workers=1)
    world.use_tenants(busy, cores)
    for number in range(4):
        world.session(f"s{number}")
    world.settle()
    assert {router.server_name for router in world.inventory.routers.values()} == {"idle"}
    world.session("one-more")
    world.session("another")
    world.settle()
    assert {router.server_name for router in world.inventory.routers.values()} == {"idle", "busy"}


def test_applications_keep_no_session_from_its_last_server(world: Any) -> None:
    for name in ("main-1", "main-2", "main-3"):
        world.use_tenants(ObjectKey("media", name), 64.0)
    world.session(min=3)
    world.settle()
    assert len({router.server_name for router in world.routers_of(SESSION)}) == 3


def test_zones_are_spread_over_before_load(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b")):
        world.server(name, zone=zone)
    world.session(min=2)
    world.settle()
    assert {router.server_name[0] for router in world.routers_of(SESSION)} == {"a", "b"}


def test_a_session_shares_servers_but_never_a_worker(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("only", workers=2)
    world.session(min=2)
    world.settle()
    assert sorted(place_of(router) for router in world.routers_of(SESSION)) == [("only", 0), ("only", 1)]
    assert world.condition("MediaSession", SESSION, "Spread")[:2] == ("False", "SharedServer")
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"


def test_more_routers_than_workers_says_what_is_missing(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", workers=2)
    world.server("main-2", connect=False)
    world.refuse(ObjectKey("media", "main-2"), "Refused", "connection refused")
    world.session(min=3)
    world.settle()
    status, reason, message = world.condition("MediaSession", SESSION, "Scheduled")
    assert (status, reason) == ("False", "NoCapacity")
    assert message == (
        "needs 3 routers on separate workers; 0 of 2 workers are free on the only ready server of "
        f"MediaCluster media/main (main-2 unreachable since {world.wall_time[11:16]}); add MediaServers or "
        "workers, or lower spec.routers.min"
    )
    assert world.condition("MediaSession", SESSION, "Available")[0] == "True"
    assert world.status("MediaSession", SESSION)["readyRouters"] == 2


def test_a_new_server_serves_sessions_that_waited(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", workers=1)
    world.session(min=2)
    world.settle()
    assert world.condition("MediaSession", SESSION, "Ready")[:2] == ("False", "NoCapacity")
    world.server("main-2", workers=1)
    world.settle()
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"


def test_placement_waits_for_the_first_answer_of_every_server(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1")
    world.server("main-2", connect=False)
    world.session(min=2)
    world.settle()
    assert world.routers_of(SESSION) == []
    assert world.condition("MediaSession", SESSION, "Scheduled")[:2] == ("False", "WaitingForServers")
    world.connect(ObjectKey("media", "main-2"))
    world.settle()
    assert sorted(router.server_name for router in world.routers_of(SESSION)) == ["main-1", "main-2"]


def test_a_server_that_never_answers_is_waited_for_only_so_long(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1")
    world.server("main-2", connect=False)
    world.session(min=1)
    world.settle()
    wake_at = world.plans[-1].wake_at
    assert wake_at is not None
    for _ in range(9):
        world.advance(1)
        world.settle()
    assert [router.server_name for router in world.routers_of(SESSION)] == ["main-1"]


def test_a_deleted_router_is_replaced_under_a_new_name(world: Any) -> None:
    world.session(min=1)
    world.settle()
    old = world.routers_of(SESSION)[0]
    world.delete("MediaRouter", *old.key)
    made = world.plan()
    action = made.actions[0]
    assert isinstance(action, CreateRouter)
    assert action.key != old.key
    assert action.annotations["mafalda.io/generation"] == "1"
    assert (action.spec["serverName"], action.spec["workerSlot"]) != place_of(old)


def test_a_replacement_avoids_the_worker_where_the_old_router_is_open(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    server = world.server("only", workers=1)
    world.session(min=1)
    world.settle()
    old = world.routers_of(SESSION)[0]
    world.delete("MediaRouter", *old.key)
    made = world.plan()
    assert made.actions == ()
    world.act(made, obey=False)
    assert world.condition("MediaSession", SESSION, "Scheduled")[:2] == ("False", "NoCapacity")
    world.settle()
    world.obey()
    assert router_key(*old.key) not in world.views[server].routers
    world.settle()
    assert [place_of(router) for router in world.routers_of(SESSION)] == [("only", 0)]


def test_lowering_the_minimum_ends_the_not_ready_then_the_newest(world: Any) -> None:
    world.session(min=3)
    world.settle()
    routers = {router.index: router for router in world.routers_of(SESSION)}
    unready = routers[0]
    server = ObjectKey("media", unready.server_name)
    key = router_key(*unready.key)
    uid = world.inventory.sessions[SESSION].uid
    state = RouterState(
        namespace="shop", name=unready.key.name, session_uid=uid, worker_slot=unready.worker_slot, ready=False
    )
    world.views[server].reported.put(key, state)
    world.session(min=1)
    made = world.plan()
    deleted = [action.key for action in made.actions if isinstance(action, DeleteRouter)]
    assert deleted == [unready.key]
    world.act(made)
    world.settle()
    assert [router.key for router in world.routers_of(SESSION)] == [routers[1].key], "left, then ended"
    assert all(action.reason == "Excess" for action in made.actions)


def test_a_session_that_is_gone_takes_our_routers_with_it(world: Any) -> None:
    world.session(min=2)
    world.router("by-hand", serverName="main-3", workerSlot=1)
    world.settle()
    assert len(world.routers_of(SESSION)) == 2
    world.delete("MediaSession", *SESSION)
    made = world.plan()
    assert {action.reason for action in made.actions} == {"SessionGone"}
    assert len(made.actions) == 1
    world.act(made)
    world.settle()
    by_hand = ObjectKey("shop", "by-hand")
    assert list(world.inventory.routers) == [by_hand]
    assert world.condition("MediaRouter", by_hand, "Scheduled")[:2] == ("False", "SessionNotFound")
    assert all(not view.routers and not view.links for view in world.views.values())


def test_a_session_being_deleted_ends(world: Any) -> None:
    world.session(min=2)
    world.settle()
    world.put(
        "MediaSession",
        *SESSION,
        {"clusterRef": {"name": "main", "namespace": "media"}},
        deletionTimestamp="2026-11-22T00:00:00Z",
    )
    made = world.plan()
    assert {action.reason for action in made.actions} == {"SessionEnding"}
    assert made.desired[SESSION] == {}


def test_routers_of_an_earlier_session_of_the_name_are_replaced(world: Any) -> None:
    world.session(min=1)
    world.settle()
    old = world.routers_of(SESSION)[0]
    world.delete("MediaSession", *SESSION)
    world.session(min=1)
    world.settle()
    routers = world.routers_of(SESSION)
    assert [router.owner_uid for router in routers] == [world.inventory.sessions[SESSION].uid]
    assert routers[0].key != old.key


def test_nothing_is_made_in_a_namespace_that_is_terminating(world: Any) -> None:
    world.session(min=1)
    world.scope |= world.inventory.put_namespace("shop", NamespaceInfo({}, terminating=True))
    world.settle()
    assert world.routers_of(SESSION) == []
    assert world.condition("MediaSession", SESSION, "Scheduled")[1] == "NamespaceTerminating"


def test_a_refused_router_is_said_and_retried_later(world: Any) -> None:
    world.session(min=1)
    key = world.plan().actions[0].key
    world.put_refusal(key, "QuotaExceeded", "exceeded quota: routers", retry_in=5)
    world.session(min=1)
    world.settle()
    assert world.routers_of(SESSION) == []
    assert world.condition("MediaSession", SESSION, "Scheduled")[:2] == ("False", "QuotaExceeded")
    assert world.plans[-1].wake_at == pytest.approx(world.now + 3) or world.plans[-1].wake_at <= world.now + 5
    world.advance(6)
    world.settle()
    assert len(world.routers_of(SESSION)) == 1


def test_pipe_ports_are_capacity(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", ports=0)
    world.server("main-2", ports=50)
    world.session("single", min=1)
    world.session("double", min=2)
    world.settle()
    assert world.condition("MediaSession", ObjectKey("shop", "single"), "Ready")[0] == "True"
    double = ObjectKey("shop", "double")
    assert sorted(router.server_name for router in world.routers_of(double)) == ["main-2", "main-2"]
    world.server("main-3", ports=1)
    world.session("triple", min=3)
    world.settle()
    status, reason, message = world.condition("MediaSession", ObjectKey("shop", "triple"), "Scheduled")
    assert (status, reason) == ("False", "NoCapacity")
    assert "pipe ports" in message


def test_routers_of_a_session_share_a_pipe_protocol(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("old-1", pipe_protocol=1)
    world.server("new-1", pipe_protocol=2)
    world.server("new-2", pipe_protocol=2)
    world.session(min=2)
    world.settle()
    assert sorted(router.server_name for router in world.routers_of(SESSION)) == ["new-1", "new-2"]


def test_a_new_session_is_not_placed_over_servers_that_cannot_be_linked(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("old-1", workers=1, pipe_protocol=1)
    world.server("new-1", workers=1, pipe_protocol=2)
    world.session(min=2)
    world.settle()
    assert len(world.routers_of(SESSION)) == 1
    status, reason, message = world.condition("MediaSession", SESSION, "Scheduled")
    assert (status, reason) == ("False", "NoCapacity")
    assert "pipe protocol" in message
