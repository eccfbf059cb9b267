"""Draining: who moves, when, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mafalda_operator.model import EVERYTHING, MediaServer, ObjectKey, PodView
from mafalda_operator.planning import CreateRouter, DeleteRouter, Memory
from mafalda_operator.planning.draining import LAST_CALL, judge_drains

from mediaserver.control.contract import RouterEntry, router_key

ONE, TWO, THREE = (ObjectKey("media", f"main-{number}") for number in (1, 2, 3))


def server_of(world: Any, session: ObjectKey) -> list[str]:
    return sorted(router.server_name for router in world.routers_of(session))


def holder(world: Any, session: ObjectKey) -> ObjectKey:
    """The server of a session's only router."""
    (router,) = world.routers_of(session)
    return ObjectKey("media", router.server_name)


def told_to_leave(world: Any) -> set[str]:
    return {
        entry.name
        for server in world.views
        for entry in world.book.of(server).values()
        if isinstance(entry, RouterEntry) and entry.leaving
    }


def ready(world: Any, server: ObjectKey) -> tuple[str, str]:
    status, reason, _ = world.condition("MediaServer", server, "Ready")
    return status, reason


# -- one session ---------------------------------------------------------------------------------------------


def test_a_router_moves_and_nobody_is_cut_off(world: Any) -> None:
    session = world.session()
    world.settle()
    world.attend(session, 7)
    old = holder(world, session)
    world.drain(old)
    world.settle()
    assert holder(world, session) != old
    assert world.cut == 0
    assert sum(world.participants.values()) == 7
    assert ready(world, old) == ("False", "Drained")
    drain = world.status("MediaServer", old)["drain"]
    assert (drain["reason"], drain["routersLeft"], drain["participantsLeft"]) == ("Requested", 0, 0)
    assert world.condition("MediaSession", session, "Ready")[0] == "True"
    (moved,) = world.notes("RouterMoved")
    assert "Requested: spec.desiredState is Drained" in moved
    assert len(world.notes("Draining")) == len(world.notes("Drained")) == 1


def test_each_step_waits_for_the_one_before(world: Any) -> None:
    session = world.session()
    world.settle()
    world.attend(session)
    old = holder(world, session)
    (router,) = world.routers_of(session)
    world.drain(old)
    made = world.plan()
    assert [type(action) for action in made.actions] == [CreateRouter]
    world.act(made, obey=False)
    made = world.plan()
    assert not made.actions
    world.act(made, obey=False)
    assert told_to_leave(world) == set(), "the replacement is told to its server, and not open yet"
    assert world.status("MediaSession", session)["readyRouters"] == 1, "the old one serves"
    world.stubborn = True
    world.obey()
    world.settle()
    assert told_to_leave(world) == {router.key.name}, "once it is ready and linked"
    assert len(world.routers_of(session)) == 2, "the old one stays while somebody is on it"
    world.stubborn = False
    world.obey()
    world.settle()
    assert holder(world, session) != old
    assert world.cut == 0


def test_a_link_that_does_not_come_up_keeps_the_old_router(world: Any) -> None:
    session = world.session(min=2)
    world.settle()
    world.attend(session)
    old = ObjectKey("media", server_of(world, session)[0])
    world.drain(old)
    made = world.plan()
    world.act(made)
    for view in world.views.values():  # nobody has linked the new router yet
        for key in dict(view.links):
            view.reported.discard(key)
    made = world.plan(EVERYTHING)
    world.act(made, obey=False)
    assert told_to_leave(world) == set()


def test_only_what_is_on_the_server_moves(world: Any) -> None:
    session = world.session(min=2)
    world.settle()
    before = {router.key: router.server_name for router in world.routers_of(session)}
    old = ObjectKey("media", min(before.values()))
    world.drain(old)
    world.settle()
    after = {router.key: router.server_name for router in world.routers_of(session)}
    assert len(after) == 2
    assert old.name not in after.values()
    kept = [key for key, server in before.items() if server != old.name]
    assert all(after[key] == before[key] for key in kept)


def test_where_there_is_no_place_the_session_stays_until_the_deadline(make_world: Any) -> None:
    world = make_world()
    world.cluster(drain={"timeout": "1m"})
    world.server("main-1", workers=1)
    session = world.session()
    world.settle()
    world.attend(session)
    world.drain(ONE)
    world.settle()
    assert holder(world, session) == ONE
    status, reason, message = world.condition("MediaSession", session, "Scheduled")
    assert (status, reason) == ("False", "NoCapacity")
    assert "stays, at most until" in message
    assert "main-1 is being drained" in message
    assert world.condition("MediaSession", session, "Available")[0] == "True"
    assert ready(world, ONE) == ("False", "Draining")
    world.advance(59)
    world.settle()
    assert holder(world, session) == ONE
    assert world.cut == 0
    world.advance(2)
    world.settle()
    assert world.routers_of(session) == []
    assert world.cut == 1
    assert ready(world, ONE) == ("False", "Drained")


@pytest.mark.parametrize(("timeout", "patience"), [("15m", 60), ("2m", 60), ("30s", 15)])
def test_without_a_place_participants_go_to_the_other_routers_in_the_end(
    make_world: Any, timeout: str, patience: int
) -> None:
    world = make_world()
    world.cluster(drain={"timeout": timeout})
    for name in ("main-1", "main-2"):
        world.server(name, workers=1)
    session = world.session(min=2)
    world.settle()
    one = next(router_key(*r.key) for r in world.routers_of(session) if r.server_name == "main-1")
    world.participants[one] = 5
    world.load()
    world.drain(ONE)
    world.settle()
    world.advance(patience - 5)
    world.settle()
    assert server_of(world, session) == ["main-1", "main-2"], "there may be a place yet"
    world.advance(6)
    world.settle()
    assert server_of(world, session) == ["main-2"]
    assert world.cut == 0
    assert world.condition("MediaSession", session, "Scheduled")[:2] == ("False", "NoCapacity")
    assert ready(world, ONE) == ("False", "Drained")


def test_a_place_that_appears_is_used(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", workers=1)
    session = world.session()
    world.settle()
    world.attend(session)
    world.drain(ONE)
    world.settle()
    world.server("main-2", workers=1)
    world.settle()
    assert holder(world, session) == TWO
    assert world.cut == 0


def test_a_session_goes_to_servers_of_another_pipe_protocol_as_a_whole_if_at_all(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", workers=1)
    world.server("main-2", workers=1)
    session = world.session(min=2)
    world.settle()
    world.attend(session, 3)
    for name in ("main-3", "main-4"):
        world.server(name, workers=1, pipe_protocol=2)
    world.drain(ONE)
    world.settle()
    assert server_of(world, session) == ["main-1", "main-2"], "it can't be linked with the one that stays"
    world.drain(TWO)
    world.settle()
    assert server_of(world, session) == ["main-3", "main-4"]
    assert world.cut == 0
    assert sum(world.participants.values()) == 3


def test_nothing_waits_with_a_timeout_of_nothing(make_world: Any) -> None:
    world = make_world()
    world.cluster(drain={"timeout": "0s"})
    for name in ("main-1", "main-2"):
        world.server(name)
    session = world.session()
    world.settle()
    world.attend(session)
    old = holder(world, session)
    world.drain(old)
    world.settle()
    assert holder(world, session) != old
    assert world.cut == 1


def test_all_servers_draining_keeps_everything(world: Any) -> None:
    session = world.session(min=2)
    world.settle()
    world.attend(session)
    before = server_of(world, session)
    for server in (ONE, TWO, THREE):
        world.drain(server)
    world.settle()
    assert server_of(world, session) == before
    assert world.condition("MediaSession", session, "Available")[0] == "True"


# -- called off ----------------------------------------------------------------------------------------------


def test_a_drain_that_is_called_off_leaves_what_has_not_moved(world: Any) -> None:
    session = world.session()
    world.settle()
    world.attend(session)
    old = holder(world, session)
    (router,) = world.routers_of(session)
    world.drain(old)
    world.act(world.plan(), obey=False)
    world.drain(old, "Active")
    world.settle()
    assert [kept.key for kept in world.routers_of(session)] == [router.key]
    assert world.cut == 0
    assert "drain" not in world.status("MediaServer", old)
    assert ready(world, old) == ("True", "Ready")
    assert len(world.notes("DrainCancelled")) == 1


def test_a_drain_called_off_half_way_cuts_nobody_off(world: Any) -> None:
    session = world.session()
    world.settle()
    world.attend(session, 4)
    old = holder(world, session)
    world.drain(old)
    world.stubborn = True
    world.settle()
    first, second = (router_key(*router.key) for router in world.routers_of(session))
    other = next(key for key in (first, second) if not world.participants[key])
    world.participants[other] += 2  # some have moved
    world.load()
    world.drain(old, "Active")
    world.stubborn = False
    world.settle()
    assert len(world.routers_of(session)) == 1
    assert world.cut == 0
    assert sum(world.participants.values()) == 6


# -- reasons -------------------------------------------------------------------------------------------------


def pod(server: ObjectKey, *, deleting: bool = False) -> PodView:
    return PodView(key=server, uid="pod", cluster=ObjectKey("media", "main"), deleting=deleting)


def test_reasons_and_which_of_them_counts(world: Any) -> None:
    def reason(**wishes: Any) -> str | None:
        drain = judge_drains(world.snapshot, Memory(), wishes={ONE: wishes["wish"]} if wishes else None).get(
            ONE
        )
        return None if drain is None else drain.reason

    assert reason() is None
    world.drain(ONE)
    assert reason() == "Requested"
    assert reason(wish="ScaleDown") == "ScaleDown"
    world.say_leaving(ONE)
    assert reason(wish="Update") == "ServerLeaving"
    world.inventory.put_pod(pod(ONE, deleting=True))
    assert reason(wish="ClusterDeleting") == "PodDeleting"


def test_the_server_of_a_pod_that_is_gone_is_about_to_go(world: Any) -> None:
    def reason() -> str | None:
        drain = judge_drains(world.snapshot, Memory()).get(ONE)
        return None if drain is None else drain.reason

    world.inventory.put(replace(world.inventory.servers[ONE], pod_uid="pod"))
    assert reason() is None  # nobody knows yet which pods there are
    world.inventory.put_pod(pod(ONE))
    world.inventory.put_followed("media", "")
    assert reason() is None
    world.inventory.put_pod(replace(pod(ONE), uid="another"))
    assert reason() == "PodDeleting"
    world.inventory.remove_pod(ONE)
    assert reason() == "PodDeleting"


def test_servers_that_were_to_go_freeze_nothing(world: Any) -> None:
    for server in (ONE, TWO, THREE):
        world.drain(server)
    world.settle()
    world.die(ONE, TWO, THREE)
    world.advance(30)
    world.settle()
    assert world.condition("MediaCluster", ObjectKey("media", "main"), "Frozen")[0] == "False"


def test_a_server_on_its_way_out_is_drained_in_its_own_time(world: Any) -> None:
    session = world.session()
    world.settle()
    old = holder(world, session)
    world.say_leaving(old, deadline=30.0)
    world.settle()
    assert holder(world, session) != old
    drain = world.memory.drains[old]
    assert drain.started == world.now
    assert judge_drains(world.snapshot, world.memory)[old].deadline == world.now + 30
    assert world.condition("MediaServer", old, "Accepting")[1] == "Drained"


def test_a_server_that_starts_anew_is_drained_no_more(world: Any) -> None:
    world.say_leaving(ONE)
    world.settle()
    world.view(ONE, connected=False)
    world.settle()
    assert world.status("MediaServer", ONE)["drain"]["reason"] == "ServerLeaving"
    world.connect(ONE, instance="again")
    world.settle()
    assert "drain" not in world.status("MediaServer", ONE)
    assert ready(world, ONE) == ("True", "Ready")


def test_a_cordoned_server_keeps_what_it_has_and_takes_no_more(world: Any) -> None:
    session = world.session()
    world.settle()
    held = holder(world, session)
    world.drain(held, "Cordoned")
    world.settle()
    assert holder(world, session) == held
    assert ready(world, held) == ("False", "Cordoned")
    for number in range(4):
        world.session(f"more-{number}", min=1)
    world.settle()
    assert sum(router.server_name == held.name for router in world.inventory.routers.values()) == 1


def test_a_new_leader_keeps_the_deadline(make_world: Any) -> None:
    world = make_world(now=36_000.0)
    world.cluster(drain={"timeout": "10m"})
    world.server("main-1", workers=1)
    world.session()
    world.settle()
    world.drain(ONE)
    world.settle()
    world.advance(120)
    world.memory = Memory()
    drain = judge_drains(world.snapshot, world.memory)[ONE]
    assert drain.deadline == world.now + 480
    assert drain.deadline_time == world.status("MediaServer", ONE)["drain"]["deadline"]
    world.settle()
    assert len(world.notes("Draining")) == 1, "the new leader does not tell of it again"


# -- what else is there --------------------------------------------------------------------------------------


def test_a_hand_written_router_is_left_and_closed_but_not_deleted(world: Any) -> None:
    session = world.session()
    router = world.router("by-hand", serverName="main-2", workerSlot=0)
    world.settle()
    world.attend(session, 3)
    world.drain(TWO)
    world.settle()
    assert router in world.inventory.routers
    assert world.condition("MediaRouter", router, "Scheduled")[:2] == ("False", "ServerDrained")
    assert world.views[TWO].routers == {}
    assert ready(world, TWO) == ("False", "Drained")
    assert world.cut == 0
    world.drain(TWO, "Active")
    world.settle()
    assert world.condition("MediaRouter", router, "Ready")[0] == "True"


def test_an_older_server_is_waited_for_by_its_load(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    world.server("main-1", sends_away=False)
    session = world.session()
    world.settle()
    world.attend(session, 2)
    world.server("main-2")
    world.drain(ONE)
    world.settle()
    assert server_of(world, session) == ["main-1", "main-2"], "nobody can ask them to go"
    made = world.plan(EVERYTHING)
    assert made.wake_at is not None
    assert made.wake_at <= world.now + 1.0
    world.participants.clear()
    world.load()
    world.advance(1)
    world.settle()
    assert server_of(world, session) == ["main-2"]


def test_a_lost_server_that_was_drained_is_handled_as_lost(world: Any) -> None:
    session = world.session()
    world.settle()
    world.advance(30)
    world.settle()
    old = holder(world, session)
    world.drain(old)
    world.stubborn = True
    world.attend(session)
    world.settle()
    world.die(old)
    world.advance(4)
    world.settle()
    assert holder(world, session) != old


def test_drained_servers_that_end_freeze_nothing_and_are_no_loss(world: Any) -> None:
    world.advance(30)
    world.settle()
    for server in (ONE, TWO):
        world.say_leaving(server)
    world.settle()
    world.die(ONE, TWO)
    for _ in range(6):
        world.advance(1)
        world.settle()
    assert world.condition("MediaCluster", ObjectKey("media", "main"), "Frozen")[0] == "False"
    assert world.notes("ServerLost") == []
    assert holder(world, world_session(world)) == THREE


def world_session(world: Any) -> ObjectKey:
    session: ObjectKey = world.session()
    world.settle()
    return session


def test_workers_of_applications_count_until_the_deadline(make_world: Any) -> None:
    world = make_world()
    world.cluster(drain={"timeout": "1m"})
    world.server("main-1")
    world.settle()
    world.use_tenants(ONE, 0.5)
    world.drain(ONE)
    world.settle()
    assert ready(world, ONE) == ("False", "Draining")
    world.advance(60 + LAST_CALL)
    world.settle()
    assert ready(world, ONE) == ("False", "Drained")
    (message,) = world.notes("Drained")
    assert "1 worker of applications" in message


@pytest.mark.parametrize("stored", [{"reason": 5}, {"reason": "Requested", "startTime": "soon"}, ["x"], "x"])
def test_what_cannot_be_read_of_a_drain_begins_anew(world: Any, stored: Any) -> None:
    obj = world.objects["MediaServer", ONE]
    obj["status"]["drain"] = stored
    world._parse("MediaServer", ONE)
    world.drain(ONE)
    assert isinstance(world.inventory.servers[ONE], MediaServer)
    assert judge_drains(world.snapshot, Memory())[ONE].started == world.now


# -- whatever happens ----------------------------------------------------------------------------------------

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("session"), st.integers(0, 3), st.integers(1, 3)),
        st.tuples(st.just("drain"), st.integers(0, 3)),
        st.tuples(st.just("active"), st.integers(0, 3)),
        st.tuples(st.just("cordon"), st.integers(0, 3)),
        st.tuples(st.just("leaving"), st.integers(0, 3)),
        st.tuples(st.just("attend"), st.integers(0, 3)),
        st.tuples(st.just("stubborn")),
        st.tuples(st.just("wait"), st.integers(1, 30)),
    ),
    max_size=14,
)


def step(world: Any, event: tuple[Any, ...], servers: list[ObjectKey]) -> None:
    kind, *numbers = event
    session = ObjectKey("shop", f"s{numbers[0]}") if numbers else None
    server = servers[numbers[0] % len(servers)] if numbers else None
    match kind:
        case "session":
            world.session(session.name, min=numbers[1])
        case "drain" | "active" | "cordon":
            world.drain(server, {"drain": "Drained", "active": "Active", "cordon": "Cordoned"}[kind])
        case "leaving":
            world.say_leaving(server)
        case "attend" if session in world.inventory.sessions:
            world.attend(session)
        case "stubborn":
            world.stubborn = not world.stubborn
        case "wait":
            world.advance(numbers[0])


@PROPERTY
@given(workers=st.lists(st.integers(1, 3), min_size=1, max_size=4), events=STEPS)
def test_drains_cut_nobody_off_and_place_nothing_on_their_servers(
    make_world: Any, workers: list[int], events: list[tuple[Any, ...]]
) -> None:
    """Before the deadline, whatever the capacity; and a session that was served is served at every step."""
    world = make_world()
    world.cluster()
    servers = [world.server(f"main-{number}", workers=count) for number, count in enumerate(workers)]
    world.settle()
    served: set[ObjectKey] = set()
    for event in events:
        step(world, event, servers)
        for _ in range(40):
            made = world.plan()
            for action in made.actions:
                if isinstance(action, CreateRouter):
                    server = world.inventory.servers[ObjectKey("media", action.spec["serverName"])]
                    drained = server.desired_state != "Active" or world.views[server.key].reported.leaving
                    assert not drained, action
            world.act(made)
            open_now = {
                state.session_uid
                for view in world.views.values()
                for state in view.routers.values()
                if state.ready
            }
            for key in served:
                assert world.inventory.sessions[key].uid in open_now, key
            if not made.actions and not made.statuses and not world.scope:
                break
        else:
            raise AssertionError(f"still busy: {made}")
        served = {
            key for key in world.inventory.sessions if world.status("MediaSession", key)["readyRouters"]
        }
        assert world.cut == 0
    again = world.plan(EVERYTHING)
    assert (again.actions, again.statuses, again.notes) == ((), (), ())


@PROPERTY
@given(
    minimums=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    victims=st.sets(st.integers(0, 5), min_size=1, max_size=3),
    attending=st.lists(st.integers(0, 3), max_size=8),
)
def test_with_room_elsewhere_every_drain_comes_to_its_end(
    make_world: Any, minimums: list[int], victims: set[int], attending: list[int]
) -> None:
    world = make_world()
    world.cluster()
    servers = [world.server(f"main-{number}", workers=2) for number in range(6)]
    sessions = [world.session(f"s{number}", min=minimum) for number, minimum in enumerate(minimums)]
    world.settle()
    for number in attending:
        world.attend(sessions[number % len(sessions)])
    for victim in sorted(victims):
        world.drain(servers[victim])
    world.settle(60)
    for victim in victims:
        assert ready(world, servers[victim]) == ("False", "Drained")
        assert not world.snapshot.routers_by_server.get(servers[victim])
        assert world.views[servers[victim]].routers == {}
    for session, minimum in zip(sessions, minimums, strict=True):
        assert len(world.routers_of(session)) == minimum
    assert world.cut == 0
    assert sum(world.participants.values()) == len(attending)
    ended = [
        action
        for made in world.plans
        for action in made.actions
        if isinstance(action, DeleteRouter) and action.reason != "Drained"
    ]
    assert ended == [], "nothing else is ended"
