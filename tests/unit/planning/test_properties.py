"""What must hold whatever happens: random worlds, random events."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mafalda_operator.model import EVERYTHING, ObjectKey
from mafalda_operator.planning import CreateRouter, DeleteRouter, plan, router_name

SESSIONS = [ObjectKey("shop", f"s{number}") for number in range(4)]
SERVERS = [ObjectKey("media", f"main-{number}") for number in range(4)]

EVENTS = st.one_of(
    st.tuples(st.just("session"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("delete-router"), st.integers(0, 20)),
    st.tuples(st.just("die"), st.integers(0, 3)),
    st.tuples(st.just("return"), st.integers(0, 3)),
    st.tuples(st.just("fail-worker"), st.integers(0, 3), st.integers(0, 2)),
    st.tuples(st.just("by-hand"), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("unbound"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.integers(1, 70)),
    st.tuples(st.just("tenants"), st.integers(0, 3), st.floats(0, 16)),
    st.tuples(st.just("drain"), st.integers(0, 3), st.sampled_from(["Active", "Cordoned", "Drained"])),
    st.tuples(st.just("attend"), st.integers(0, 3)),
)
WORKERS = st.lists(st.integers(1, 3), min_size=1, max_size=4)
PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def build(make_world: Any, workers: list[int]) -> Any:
    world = make_world()
    world.cluster()
    for key, count in zip(SERVERS, workers, strict=False):
        world.server(key.name, workers=count)
    world.settle()
    return world


def happen(world: Any, event: tuple[Any, ...]) -> None:
    kind, *arguments = event
    HAPPENINGS[kind](world, *arguments)


def ask(world: Any, number: int, minimum: int) -> None:
    world.session(SESSIONS[number].name, min=minimum)


def end(world: Any, number: int) -> None:
    if SESSIONS[number] in world.inventory.sessions:
        world.delete("MediaSession", *SESSIONS[number])


def delete_router(world: Any, number: int) -> None:
    keys = sorted(world.inventory.routers)
    if keys:
        world.delete("MediaRouter", *keys[number % len(keys)])


def die(world: Any, number: int) -> None:
    if SERVERS[number] in world.views and world.views[SERVERS[number]].connected:
        world.die(SERVERS[number])


def come_back(world: Any, number: int) -> None:
    view = world.views.get(SERVERS[number])
    if view is not None and not view.connected:
        world.connect(SERVERS[number], workers=len(view.workers), instance=f"again-{world.now}")


def fail_worker(world: Any, number: int, slot: int) -> None:
    view = world.views.get(SERVERS[number])
    if view is not None and slot in view.workers:
        world.fail_worker(SERVERS[number], slot)


def write_by_hand(world: Any, session: int, server: int, slot: int) -> None:
    name = f"hand-{session}-{server}-{slot}"
    if ObjectKey("shop", name) not in world.inventory.routers:
        world.router(name, session=SESSIONS[session].name, serverName=SERVERS[server].name, workerSlot=slot)


def write_unbound(world: Any, session: int) -> None:
    if ObjectKey("shop", f"free-{session}") not in world.inventory.routers:
        world.router(f"free-{session}", session=SESSIONS[session].name)


def wait(world: Any, seconds: int) -> None:
    world.advance(seconds / 2)
    world.settle()
    world.advance(seconds / 2)


def use_tenants(world: Any, number: int, cpu: float) -> None:
    view = world.views.get(SERVERS[number])
    if view is not None and view.connected:
        world.use_tenants(SERVERS[number], cpu)


def drain(world: Any, number: int, state: str) -> None:
    if SERVERS[number] in world.inventory.servers:
        world.drain(SERVERS[number], state)


def attend(world: Any, number: int) -> None:
    if SESSIONS[number] in world.inventory.sessions:
        world.attend(SESSIONS[number])


HAPPENINGS: dict[str, Any] = {
    "drain": drain,
    "attend": attend,
    "tenants": use_tenants,
    "session": ask,
    "end": end,
    "delete-router": delete_router,
    "die": die,
    "return": come_back,
    "fail-worker": fail_worker,
    "by-hand": write_by_hand,
    "unbound": write_unbound,
    "wait": wait,
}


def check(world: Any) -> None:
    """No two open routers of a session on a worker, in what servers are told and in what they have open."""
    for server, view in world.views.items():
        told: Counter[tuple[str, int]] = Counter()
        for entry in world.book.of(server).values():
            if hasattr(entry, "media_codecs"):
                told[entry.session_uid, entry.worker_slot] += 1
        assert all(count == 1 for count in told.values()), f"{server}: {told}"
        have = Counter((state.session_uid, state.worker_slot) for state in view.routers.values())
        assert all(count == 1 for count in have.values()), f"{server}: {have}"


@PROPERTY
@given(workers=WORKERS, events=st.lists(EVENTS, max_size=12))
def test_settles_with_at_most_one_router_of_a_session_on_a_worker(
    make_world: Any, workers: list[int], events: list[tuple[Any, ...]]
) -> None:
    world = build(make_world, workers)
    for event in events:
        happen(world, event)
        world.settle(40)
        check(world)
    made = world.plan(EVERYTHING)
    assert made.actions == (), "planning again on its own result does nothing"
    assert made.statuses == ()
    assert made.notes == ()


@PROPERTY
@given(workers=WORKERS, events=st.lists(EVENTS, max_size=8))
def test_equal_arguments_give_equal_plans_and_arguments_stay_as_they_are(
    make_world: Any, workers: list[int], events: list[tuple[Any, ...]]
) -> None:
    world = build(make_world, workers)
    for event in events:
        happen(world, event)
        memory = world.memory
        first = plan(world.snapshot, memory, world.scope)
        assert first == plan(world.snapshot, memory, world.scope)
        assert memory == world.memory
        world.settle(40)


@PROPERTY
@given(workers=WORKERS, events=st.lists(EVENTS, max_size=8))
def test_planning_what_changed_ends_where_planning_everything_does(
    make_world: Any, workers: list[int], events: list[tuple[Any, ...]]
) -> None:
    """Nothing that a change concerns is forgotten by the scope."""
    world = build(make_world, workers)
    for event in events:
        happen(world, event)
        world.settle(40)
        everything = plan(world.snapshot, world.memory, EVERYTHING)
        assert everything.actions == ()
        assert everything.statuses == ()


@PROPERTY
@given(
    workers=st.lists(st.integers(2, 3), min_size=2, max_size=4),
    minimums=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    events=st.lists(
        st.one_of(
            st.tuples(st.just("session"), st.integers(0, 3), st.integers(1, 3)),
            st.tuples(st.just("wait"), st.integers(1, 20)),
            st.tuples(st.just("tenants"), st.integers(0, 3), st.floats(0, 16)),
        ),
        max_size=6,
    ),
)
def test_nothing_moves_without_loss(
    make_world: Any, workers: list[int], minimums: list[int], events: list[tuple[Any, ...]]
) -> None:
    world = build(make_world, workers)
    for key, minimum in zip(SESSIONS, minimums, strict=False):
        world.session(key.name, min=minimum)
    world.settle()
    for event in events:
        before = dict(world.inventory.routers)
        seen = len(world.plans)
        happen(world, event)
        world.settle()
        created = [
            action
            for made in world.plans[seen:]
            for action in made.actions
            if isinstance(action, CreateRouter) and action.reason == "RouterMoved"
        ]
        assert created == []
        for key, router in world.inventory.routers.items():
            if key in before:
                assert (router.server_name, router.worker_slot) == (
                    before[key].server_name,
                    before[key].worker_slot,
                )


@PROPERTY
@given(workers=st.integers(2, 3), minimum=st.integers(1, 3), victim=st.integers(0, 3))
def test_a_replacement_keeps_the_count_and_never_precedes_itself(
    make_world: Any, workers: int, minimum: int, victim: int
) -> None:
    world = build(make_world, [workers] * 4)
    world.session(SESSIONS[0].name, min=minimum)
    world.settle()
    world.advance(30)
    world.settle()
    world.die(SERVERS[victim])
    held = len(world.routers_of(SESSIONS[0]))
    for _ in range(6):
        world.advance(1)
        for _ in range(6):
            made = world.plan()
            deletes = [action for action in made.actions if isinstance(action, DeleteRouter)]
            if deletes:
                assert len(world.routers_of(SESSIONS[0])) - len(deletes) >= held
            world.act(made)
    assert len(world.routers_of(SESSIONS[0])) == held == minimum
    assert all(router.server_name != SERVERS[victim].name for router in world.routers_of(SESSIONS[0]))


@PROPERTY
@given(
    minimum=st.integers(1, 3),
    victims=st.sets(st.integers(0, 3), min_size=3, max_size=4),
    gaps=st.lists(st.floats(0, 2), min_size=4, max_size=4),
)
def test_a_mass_silence_freezes(make_world: Any, minimum: int, victims: set[int], gaps: list[float]) -> None:
    world = build(make_world, [2, 2, 2, 2])
    for key in SESSIONS:
        world.session(key.name, min=minimum)
    world.settle()
    world.advance(30)
    world.settle()
    before = dict(world.inventory.routers)
    ordered = sorted(victims)
    world.die(*ordered_keys(ordered))
    for gap in gaps:
        world.advance(gap)
        world.settle()
    for _ in range(50):
        world.advance(1)
        world.settle()
    assert {key: router.uid for key, router in world.inventory.routers.items()} == {
        key: router.uid for key, router in before.items()
    }


@PROPERTY
@given(
    used=st.lists(st.integers(0, 40), min_size=2, max_size=4),
    workers=st.integers(1, 3),
    sessions=st.integers(1, 12),
)
def test_who_gives_more_cores_to_applications_never_gets_more_routers(
    make_world: Any, used: list[int], workers: int, sessions: int
) -> None:
    """Of servers that are equal otherwise. Cores are tenths for each worker, as finely as placement looks."""
    world = build(make_world, [workers] * len(used))
    for key, tenths in zip(SERVERS, used, strict=False):
        world.use_tenants(key, tenths / 10 * workers)
    for number in range(sessions):
        world.session(f"s{number}", min=1)
    world.settle()
    counts = Counter(router.server_name for router in world.inventory.routers.values())
    assert counts.total() == sessions
    for key, tenths in zip(SERVERS, used, strict=False):
        for other, more in zip(SERVERS, used, strict=False):
            if more > tenths:
                assert counts[other.name] <= counts[key.name]


def ordered_keys(numbers: list[int]) -> list[ObjectKey]:
    return [SERVERS[number] for number in numbers]


@pytest.mark.parametrize("index", range(3))
def test_names_do_not_collide_for_generations_to_come(index: int) -> None:
    names = {router_name("s", "uid", index, generation) for generation in range(200)}
    assert len(names) == 200
