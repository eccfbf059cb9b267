"""Slots are refilled by themselves; the pauses grow, and nothing is left running."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from mediaserver.mediasoup import Event, WebRtcServer, Worker, WorkerDiedError, WorkerStartError
from mediaserver.pool import FAILING_AFTER, STABLE_AFTER, PoolConfig, WorkerPool, WorkerSlot, pause_after

CONFIG = PoolConfig(
    workers=2,
    client_host="127.0.0.1",
    client_port=10000,
    pipe_host="127.0.0.1",
    pipe_port=20000,
    pipe_end_port=20009,
)


class FakeWorker:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.on_died: Event[WorkerDiedError] = Event("died")
        self.ended = self.died = False

    def die(self) -> None:
        self.died = True
        self.on_died.emit(WorkerDiedError(pid=self.pid, exit_code=None, signal=9))

    def close(self) -> None:
        self.ended = True

    async def wait_closed(self) -> None:
        assert self.ended

    async def get_resource_usage(self) -> None:
        """Answers, as a worker does that is well."""


class Factory:
    """Starts fake workers; `failures` more starts fail."""

    def __init__(self) -> None:
        self.workers: dict[int, list[FakeWorker]] = {}
        self.failures = 0
        self.now = 0.0
        self.pauses: list[float] = []
        self.paused = asyncio.Condition()
        self.resume = asyncio.Event()
        self.resume.set()

    async def __call__(self, index: int) -> tuple[Worker, WebRtcServer]:
        if self.failures:
            self.failures -= 1
            raise WorkerStartError("no such file")
        worker = FakeWorker(pid=100 + len(self.workers.setdefault(index, [])))
        self.workers[index].append(worker)
        return cast(Worker, worker), cast(WebRtcServer, object())

    async def sleep(self, seconds: float) -> None:
        async with self.paused:
            self.pauses.append(seconds)
            self.paused.notify_all()
        await self.resume.wait()
        await asyncio.sleep(0)

    async def pausing(self, times: int) -> None:
        """Waits until a slot has paused so often."""
        async with self.paused, asyncio.timeout(2):
            await self.paused.wait_for(lambda: len(self.pauses) >= times)

    def pool(self, workers: int = 1) -> WorkerPool:
        config = PoolConfig(**{**CONFIG.__dict__, "workers": workers})
        return WorkerPool(config, spawn=self, clock=lambda: self.now, sleep=self.sleep)


async def up(pool: WorkerPool) -> WorkerSlot:
    """Waits for the next slot to come up."""
    future: asyncio.Future[WorkerSlot] = asyncio.get_running_loop().create_future()
    pool.on_slot_up.once(future.set_result)
    return await asyncio.wait_for(future, 2)


async def test_every_slot_gets_a_worker_and_close_ends_them() -> None:
    factory = Factory()
    pool = factory.pool(workers=3)
    await pool.start()
    assert [slot.state for slot in pool.slots] == ["Running"] * 3
    await pool.close()
    await pool.close()
    assert all(worker.ended for workers in factory.workers.values() for worker in workers)
    assert all(slot.worker is None for slot in pool.slots)


async def test_a_worker_that_dies_is_replaced_in_its_slot() -> None:
    factory = Factory()
    pool = factory.pool(workers=2)
    downs: list[tuple[WorkerSlot, str]] = []
    pool.on_slot_down.subscribe(downs.append)
    await pool.start()
    first = factory.workers[1][0]
    factory.now += STABLE_AFTER
    waiting = asyncio.create_task(up(pool))
    await asyncio.sleep(0)
    first.die()
    slot = await waiting
    assert slot is pool.slots[1]
    assert (slot.state, slot.restarts, slot.reported().reason) == ("Running", 1, "")
    assert cast(FakeWorker, slot.worker) is factory.workers[1][1]
    assert first.ended
    assert [(down.index, "SIGKILL" in reason) for down, reason in downs] == [(1, True)]
    assert factory.pauses == [0.0]
    assert len(factory.workers[0]) == 1
    await pool.close()


async def test_a_slot_whose_worker_keeps_dying_is_failing_but_never_given_up() -> None:
    factory = Factory()
    pool = factory.pool()
    await pool.start()
    for deaths in range(1, FAILING_AFTER + 1):
        if deaths == FAILING_AFTER:
            factory.resume.clear()
        waiting = asyncio.create_task(up(pool))
        await asyncio.sleep(0)
        factory.workers[0][-1].die()
        if deaths < FAILING_AFTER:
            await waiting
    await factory.pausing(FAILING_AFTER)
    reported = pool.slots[0].reported()
    assert reported.state == "Failing"
    assert "3 times in a row" in reported.reason
    assert factory.pauses == [pause_after(1), pause_after(2), pause_after(3)]
    factory.resume.set()
    await waiting
    assert pool.slots[0].reported().state == "Running"
    await pool.close()


async def test_a_worker_that_cannot_be_started_is_tried_again_with_the_reason_told() -> None:
    factory = Factory()
    factory.failures = 4
    factory.resume.clear()
    pool = factory.pool()
    await pool.start()
    assert pool.slots[0].reported().state == "Starting"
    assert "no such file" in pool.slots[0].reason
    waiting = asyncio.create_task(up(pool))
    factory.resume.set()
    await waiting
    assert factory.pauses == [0.0, 0.1, 0.2, 0.4]
    assert pool.slots[0].restarts == 0
    await pool.close()


async def test_a_long_life_forgives_earlier_deaths() -> None:
    factory = Factory()
    factory.failures = 5
    pool = factory.pool()
    waiting = asyncio.create_task(up(pool))
    await pool.start()
    await waiting
    factory.now += STABLE_AFTER
    waiting = asyncio.create_task(up(pool))
    await asyncio.sleep(0)
    factory.workers[0][-1].die()
    await waiting
    assert factory.pauses[-1] == 0.0
    await pool.close()


@pytest.mark.parametrize(
    ("failures", "pause"), [(0, 0.0), (1, 0.0), (2, 0.1), (3, 0.2), (20, 10.0), (900, 10.0)]
)
def test_pauses_grow_to_ten_seconds(failures: int, pause: float) -> None:
    assert pause_after(failures) == pytest.approx(pause)


def test_pipes_listen_on_the_internal_address_and_its_own_ports() -> None:
    info = WorkerPool(CONFIG).pipe_listen_info()
    assert (info.ip, info.announced_address, info.protocol) == ("127.0.0.1", None, "udp")
    assert info.port_range is not None
    assert (info.port_range.min, info.port_range.max) == (20000, 20009)
