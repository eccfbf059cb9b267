"""The converger against a host that records what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import msgspec
import pytest

from mediaserver.control.contract import (
    Address,
    DesiredEntry,
    LinkEntry,
    RouterEntry,
    SessionEntry,
    SettingsEntry,
    WorkerState,
    link_key,
    router_key,
    session_key,
)
from mediaserver.control.converge import Converger
from mediaserver.mediasoup import Event, InvalidArgumentError
from mediaserver.pool import WorkerPool, WorkerSlot

SESSION = SessionEntry(namespace="shop", name="standup", uid="s1", issuers=[], token_keys={"k1": "c2VjcmV0"})
ROUTER = RouterEntry(
    namespace="shop",
    name="a",
    uid="u",
    session="standup",
    session_uid="s1",
    worker_slot=0,
    media_codecs=[],
)
LINK = LinkEntry(
    namespace="shop",
    session_uid="s1",
    local_router="a",
    remote_router="z",
    remote_server="media/other",
    remote_peer=Address(host="192.0.2.1", port=4000),
    srtp=True,
    rtx=True,
)
ROUTER_KEY = router_key("shop", "a")
LINK_KEY = link_key("shop", "a", "z")
DESIRED: dict[str, DesiredEntry] = {
    session_key("shop", "standup"): SESSION,
    ROUTER_KEY: ROUTER,
    LINK_KEY: LINK,
}


class Hosted:
    def __init__(self, entry: RouterEntry) -> None:
        self.entry = entry


class FakeHost:
    """Does what it is told at once, unless it is to fail or to be slow; writes everything down."""

    def __init__(self) -> None:
        self.routers: dict[str, Hosted] = {}
        self.log: list[str] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.sessions: list[SessionEntry] = []
        self.settings: list[SettingsEntry] = []

    async def _do(self, what: str) -> None:
        self.log.append(what)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)

    async def open_router(self, entry: RouterEntry, session: SessionEntry) -> object:
        await self._do(f"open {entry.name} on {entry.worker_slot}")
        self.routers[router_key(entry.namespace, entry.name)] = Hosted(entry)
        return None

    async def close_router(self, key: str, reason: str) -> None:
        await self._do(f"close {key}")
        self.routers.pop(key, None)

    async def open_link(self, entry: LinkEntry) -> None:
        await self._do(f"link {entry.local_router} {entry.remote_router}")

    async def close_link(self, key: str) -> None:
        await self._do(f"unlink {key}")

    def update_router(self, entry: RouterEntry) -> None:
        self.routers[router_key(entry.namespace, entry.name)].entry = entry
        self.log.append(f"{entry.name} {'leaves' if entry.leaving else 'stays'}")

    def update_session(self, entry: SessionEntry) -> None:
        self.sessions.append(entry)

    def apply_settings(self, settings: SettingsEntry) -> None:
        self.settings.append(settings)


class Slot:
    def __init__(self, index: int) -> None:
        self.index = index
        self.state = WorkerState(slot=index, state="Running")

    def reported(self) -> WorkerState:
        return self.state


class FakePool:
    def __init__(self) -> None:
        self.slots = [Slot(0), Slot(1)]
        self.on_slot_up: Event[WorkerSlot] = Event("up")
        self.on_change: Event[WorkerSlot] = Event("change")

    def set_state(self, index: int, state: str) -> None:
        slot = self.slots[index]
        slot.state = msgspec.structs.replace(slot.state, state=state)
        self.on_change.emit(cast(WorkerSlot, slot))
        if state == "Running":
            self.on_slot_up.emit(cast(WorkerSlot, slot))


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.host = FakeHost()
        self.pool = FakePool()
        self.converger = Converger(self.host, cast(WorkerPool, self.pool), clock=lambda: self.now)
        self.changes = asyncio.Event()
        self.converger.on_change.subscribe(lambda _: self.changes.set())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for the converger to bring something about."""
        async with asyncio.timeout(2):
            while not condition():
                self.changes.clear()
                await self.changes.wait()

    def linked(self) -> bool:
        return bool(self.host.log) and self.host.log[-1] == "link a z" and not self.converger.problems


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    world.converger.start()
    yield world
    await world.converger.close()


async def test_opens_routers_then_links_and_closes_links_then_routers(world: World) -> None:
    world.converger.set_desired(DESIRED)
    await world.until(world.linked)
    world.converger.set_desired({})
    await world.until(lambda: not world.host.routers)
    assert world.host.log == ["open a on 0", "link a z", f"unlink {LINK_KEY}", f"close {ROUTER_KEY}"]


async def test_wanting_the_same_again_does_nothing(world: World) -> None:
    world.converger.set_desired(DESIRED)
    await world.until(world.linked)
    before = list(world.host.log)
    world.changes.clear()
    world.converger.set_desired(dict(DESIRED))
    await world.changes.wait()
    assert world.host.log == before


async def test_a_router_that_moves_slot_takes_its_link_along(world: World) -> None:
    world.converger.set_desired(DESIRED)
    await world.until(world.linked)
    world.host.log.clear()
    moved = msgspec.structs.replace(ROUTER, worker_slot=1)
    world.converger.set_desired({**DESIRED, ROUTER_KEY: moved})
    await world.until(world.linked)
    assert world.host.log == [f"unlink {LINK_KEY}", f"close {ROUTER_KEY}", "open a on 1", "link a z"]


async def test_a_worker_that_died_gets_its_router_and_link_back(world: World) -> None:
    world.converger.set_desired(DESIRED)
    await world.until(world.linked)
    world.host.log.clear()
    world.host.routers.clear()
    world.pool.set_state(0, "Starting")
    await world.until(lambda: ROUTER_KEY in world.converger.problems)
    assert world.converger.problems[ROUTER_KEY].reason == "WorkerStarting"
    world.pool.set_state(0, "Running")
    await world.until(world.linked)
    assert world.host.log == [f"unlink {LINK_KEY}", "open a on 0", "link a z"]


async def test_a_failed_step_is_told_and_tried_again_after_a_pause(world: World) -> None:
    world.host.failures = [InvalidArgumentError("codec video/h266 is not supported")]
    world.converger.set_desired(DESIRED)
    await world.until(lambda: ROUTER_KEY in world.converger.problems)
    problem = world.converger.problems[ROUTER_KEY]
    assert problem.reason == "InvalidCodecs"
    assert "h266" in problem.message
    assert world.host.log == ["open a on 0"]
    world.now += 60
    world.converger.wake()
    await world.until(world.linked)


async def test_a_changed_wish_is_tried_at_once(world: World) -> None:
    world.host.failures = [InvalidArgumentError("no")]
    world.converger.set_desired(DESIRED)
    await world.until(lambda: ROUTER_KEY in world.converger.problems)
    other = msgspec.structs.replace(ROUTER, media_codecs=[{"mimeType": "audio/opus"}])
    world.converger.set_desired({**DESIRED, ROUTER_KEY: other})
    await world.until(world.linked)


async def test_a_bug_in_the_host_neither_ends_the_converger_nor_goes_unseen(world: World) -> None:
    world.host.failures = [KeyError("oops")]
    world.converger.set_desired(DESIRED)
    await world.until(lambda: ROUTER_KEY in world.converger.problems)
    world.now += 60
    world.converger.wake()
    await world.until(world.linked)


async def test_one_step_an_object_at_a_time(world: World) -> None:
    world.host.gate.clear()
    world.converger.set_desired(DESIRED)
    await world.until(lambda: bool(world.host.log) or bool(world.converger.problems))
    world.converger.set_desired({})
    world.changes.clear()
    await world.changes.wait()
    world.host.gate.set()
    await world.until(lambda: len(world.host.log) == 2)
    assert world.host.log == ["open a on 0", f"close {ROUTER_KEY}"]


async def test_session_keys_and_settings_hold_at_once(world: World) -> None:
    settings = SettingsEntry(prune_delay=3.0)
    world.converger.set_desired({**DESIRED, "settings": settings})
    rotated = msgspec.structs.replace(SESSION, token_keys={"k2": "b3RoZXI="})
    world.converger.set_desired({**DESIRED, "settings": settings, session_key("shop", "standup"): rotated})
    assert world.host.sessions == [SESSION, rotated]
    assert world.host.settings == [settings]


async def test_draining_opens_nothing_more(world: World) -> None:
    world.converger.drain()
    world.converger.set_desired(DESIRED)
    await world.until(lambda: ROUTER_KEY in world.converger.problems)
    assert world.converger.problems[ROUTER_KEY].reason == "Draining"
    assert world.host.log == []


async def test_an_open_router_is_told_that_it_is_left(world: World) -> None:
    world.converger.set_desired(DESIRED)
    await world.until(lambda: len(world.host.log) == 2)
    leaving = msgspec.structs.replace(ROUTER, leaving=True)
    world.converger.set_desired({**DESIRED, ROUTER_KEY: leaving})
    await world.until(lambda: len(world.host.log) == 3)
    world.converger.set_desired(DESIRED)
    await world.until(lambda: len(world.host.log) == 4)
    assert world.host.log == ["open a on 0", "link a z", "a leaves", "a stays"]


async def test_a_router_is_told_that_it_is_left_though_it_was_being_opened(world: World) -> None:
    world.host.gate.clear()
    world.converger.set_desired(DESIRED)
    await world.until(lambda: len(world.host.log) == 1)
    leaving = msgspec.structs.replace(ROUTER, leaving=True)
    world.converger.set_desired({**DESIRED, ROUTER_KEY: leaving})
    world.host.gate.set()
    await world.until(lambda: len(world.host.log) == 3)
    assert world.host.log == ["open a on 0", "a leaves", "link a z"]
