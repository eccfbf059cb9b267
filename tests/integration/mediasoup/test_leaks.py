"""What benchmarks/leaks.py measures at length, in short; and that it would notice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from benchmarks import leaks
from mediaserver.mediasoup import Consumer, Worker

StartWorker = Callable[..., Awaitable[Worker]]

CYCLES = 300


async def test_what_is_created_and_closed_leaves_nothing_behind(start_worker: StartWorker) -> None:
    stage = leaks.Stage()
    await stage.open(await start_worker())
    for kind, create in stage.kinds().items():
        grown = await leaks.measure(stage, create, CYCLES)
        print(kind, grown)
        assert leaks.leaks(kind, grown) == []


async def test_workers_leave_nothing_behind() -> None:
    grown = await leaks.measure_workers(20)
    print(grown)
    assert leaks.leaks("Worker", grown) == []


async def test_a_leak_is_noticed(start_worker: StartWorker) -> None:
    kept: list[Consumer] = []
    stage = leaks.Stage()
    await stage.open(await start_worker())

    async def consume_and_keep() -> Consumer:
        kept.append(await stage.consume())
        return kept[-1]

    grown = await leaks.measure(stage, consume_and_keep, CYCLES)
    assert any("objects" in problem for problem in leaks.leaks("Consumer", grown))
