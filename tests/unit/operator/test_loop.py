"""The loop: nothing before all kinds are listed, nothing lost while it cannot plan, faults survived."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mafalda_operator import loop as loop_module
from mafalda_operator.dirt import Dirt
from mafalda_operator.effects.kube import Failed
from mafalda_operator.effects.link import Heard
from mafalda_operator.loop import Effects, Loop
from mafalda_operator.metrics import Metrics
from mafalda_operator.model import EVERYTHING, Inventory, ObjectKey, Scope, Snapshot
from mafalda_operator.planning import Memory, Plan, StatusUpdate
from mafalda_operator.planning.actions import EventNote

ONE, TWO = ObjectKey("shop", "one"), ObjectKey("shop", "two")


def of(*sessions: ObjectKey) -> Scope:
    return Scope(sessions=frozenset(sessions))


class Rig:
    """A loop whose planner and effects note what they are asked."""

    def __init__(self) -> None:
        self.leading, self.complete = True, True
        self.scopes: list[Scope] = []
        self.answer: Callable[[Scope], Plan] = lambda _: empty()
        self.done: list[str] = []
        self.failed: list[Failed] = []
        self.loop = Loop(Inventory(), Metrics(), may_act=lambda: self.leading, planner=self._plan)
        self.pending: list[tuple[str, ObjectKey]] = []
        self.withdrawn: list[tuple[str, ObjectKey]] = []
        rig = self

        class Lister:
            @property
            def complete(self) -> bool:
                return rig.complete

        self.effects = cast(
            Effects,
            SimpleNamespace(
                actor=SimpleNamespace(act=self._act),
                statuses=SimpleNamespace(
                    write=lambda update: self.done.append(f"status {update.key.name}"),
                    withdraw=lambda kind, key: self.withdrawn.append((kind, key)),
                    pending=self.pending,
                ),
                events=SimpleNamespace(write=lambda note: self.done.append(f"event {note.reason}")),
                links=SimpleNamespace(views=dict, set_targets=lambda _: None),
                delivery=SimpleNamespace(
                    take=lambda _: self.done.append("apply"), refresh=lambda _: None, forget=lambda _: None
                ),
                follower=SimpleNamespace(set_wanted=lambda _: None),
                certificates=None,
                secrets=SimpleNamespace(set_wanted=lambda _: None, get=lambda _: None),
                lister=Lister(),
            ),
        )

    def _plan(self, snapshot: Snapshot, memory: Memory, scope: Scope) -> Plan:
        assert snapshot.complete
        self.scopes.append(scope)
        return self.answer(scope)

    async def _act(self, actions: Iterable[Any]) -> list[Failed]:
        self.done += [f"action {action.reason}" for action in actions]
        failed, self.failed = self.failed, []
        return failed

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  the loop under test has no event for each turn
                await asyncio.sleep(0.005)


def empty() -> Plan:
    return Plan((), {}, {}, (), (), Memory())


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    task = asyncio.create_task(rig.loop.run(rig.effects))
    yield rig
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_begins_with_everything_and_goes_on_with_what_changed(rig: Rig) -> None:
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    rig.loop.change(of(ONE))
    rig.loop.change(of(TWO))
    await rig.until(lambda: rig.scopes == [EVERYTHING, of(ONE, TWO)])


@pytest.mark.parametrize("missing", ["leading", "complete"])
async def test_nothing_is_planned_or_forgotten_without_lease_or_complete_lists(
    rig: Rig, missing: str
) -> None:
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    setattr(rig, missing, False)
    rig.loop.change(of(ONE))
    await asyncio.sleep(0.15)
    assert rig.scopes == [EVERYTHING]
    assert rig.loop.lag > 0.1
    setattr(rig, missing, True)
    rig.loop.wake()
    await rig.until(lambda: rig.scopes[1:] == [of(ONE)])


async def test_a_change_is_kept_when_the_lists_become_incomplete_while_it_gathers(rig: Rig) -> None:
    """Between waking and planning a watch may begin anew."""
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    rig.loop.change(of(ONE))
    await asyncio.sleep(0)
    rig.complete = False
    await asyncio.sleep(0.1)
    rig.complete = True
    await rig.until(lambda: rig.scopes[1:] == [of(ONE)])


async def test_the_order_is_servers_statuses_actions_events(rig: Rig) -> None:
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    rig.done.clear()
    rig.answer = lambda scope: replace(
        empty(),
        actions=cast(Any, (SimpleNamespace(reason="Scheduled"),)),
        statuses=(StatusUpdate("MediaSession", ONE, "u", {}),),
        notes=(EventNote("MediaSession", ONE, "u", "Normal", "Scheduled", "m"),),
    )
    rig.loop.change(of(ONE))
    await rig.until(lambda: len(rig.done) == 4)
    assert rig.done == ["apply", "status one", "action Scheduled", "event Scheduled"]


async def test_a_failed_action_is_planned_again_when_its_time_has_come(rig: Rig) -> None:
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    rig.failed = [Failed(of(TWO), asyncio.get_running_loop().time() + 0.2)]
    rig.loop.change(of(ONE))
    await rig.until(lambda: rig.scopes[1:] == [of(ONE)])
    await asyncio.sleep(0.05)
    assert len(rig.scopes) == 2
    await rig.until(lambda: rig.scopes[2:] == [of(TWO)])


async def test_a_fault_of_the_planner_is_survived_and_everything_is_planned_anew(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "_FAILURE_PAUSE", 0.05)
    await rig.until(lambda: rig.scopes == [EVERYTHING])

    def broken(_: Scope) -> Plan:
        rig.answer = lambda _: empty()
        raise ZeroDivisionError

    rig.answer = broken
    rig.loop.change(of(ONE))
    await rig.until(lambda: rig.scopes[1:] == [of(ONE), EVERYTHING])


async def test_a_plan_may_ask_to_be_woken(rig: Rig) -> None:
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    at = asyncio.get_running_loop().time() + 0.1
    rig.answer = lambda scope: replace(empty(), wake_at=at if scope else None)
    rig.loop.change(of(ONE))
    await rig.until(lambda: rig.scopes[1:] == [of(ONE), Scope()])


async def test_a_waiting_status_that_a_plan_no_longer_wants_is_withdrawn(rig: Rig) -> None:
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    rig.pending += [("MediaSession", ONE), ("MediaSession", TWO)]
    rig.answer = lambda scope: replace(empty(), desired={ONE: {}})
    rig.loop.change(of(ONE))
    await rig.until(lambda: rig.withdrawn == [("MediaSession", ONE)])


async def test_what_a_server_says_without_a_session_concerns_the_server(rig: Rig) -> None:
    await rig.until(lambda: rig.scopes == [EVERYTHING])
    server = ObjectKey("media", "m0")
    rig.loop.heard(Heard(server))
    await rig.until(lambda: rig.scopes[1:] == [Scope(servers=frozenset({server}))])


def test_dirt_is_taken_oldest_first_and_so_much_at_a_time() -> None:
    dirt, keys = Dirt(), [ObjectKey("shop", str(number)) for number in range(5)]
    for now, key in enumerate(keys):
        dirt.add(of(key), float(now))
    assert dirt.since == 0.0
    assert dirt.take(3, 9.0) == of(*keys[:3])
    assert dirt
    assert dirt.since == 9.0
    assert dirt.take(3, 9.0) == of(*keys[3:])
    assert not dirt
    assert dirt.since is None


def test_everything_takes_all_in() -> None:
    dirt = Dirt()
    dirt.add(of(ONE), 0.0)
    dirt.add(EVERYTHING, 0.0)
    assert dirt.take(1, 0.0) == EVERYTHING
    assert not dirt
