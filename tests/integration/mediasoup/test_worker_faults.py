"""Real workers that stop reading, stop answering or die with a thousand requests in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from mediaserver.mediasoup import (
    ChannelOverflowError,
    ClosedError,
    RequestTimeoutError,
    RouterDump,
    Worker,
    WorkerDiedError,
)

StartWorker = Callable[..., Awaitable[Worker]]
REQUESTS = 1000
DEADLINE = 0.5


async def test_a_worker_that_stops_answering_costs_each_request_its_deadline(
    start_worker: StartWorker,
) -> None:
    worker = await start_worker(request_timeout=DEADLINE)
    router = await worker.create_router()
    os.kill(worker.pid, signal.SIGSTOP)
    started = time.monotonic()
    results = await asyncio.gather(*(router.dump() for _ in range(REQUESTS)), return_exceptions=True)
    assert DEADLINE <= time.monotonic() - started < DEADLINE + 2
    assert Counter(type(result) for result in results) == {RequestTimeoutError: REQUESTS}
    assert worker._channel.pending_requests == 0
    os.kill(worker.pid, signal.SIGCONT)
    # The answers that come now are to nobody, and no other request gets one of them.
    assert (await router.dump()).id == router.id
    assert (await worker.dump()).router_ids == [router.id]


async def test_a_worker_that_stops_reading_gets_no_more_than_it_may_fall_behind_by(
    start_worker: StartWorker,
) -> None:
    worker = await start_worker(request_timeout=DEADLINE)
    router = await worker.create_router()
    transport = await router.create_direct_transport()
    os.kill(worker.pid, signal.SIGSTOP)

    async def produce() -> None:
        # A breath between requests, in which they are sent.
        calls.append(asyncio.create_task(transport.produce_data(label="x" * 20_000)))
        await asyncio.sleep(0)

    calls: list[asyncio.Task[object]] = []
    started = time.monotonic()
    for _ in range(REQUESTS):
        await produce()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - started < DEADLINE + 3
    counts = Counter(type(result) for result in results)
    assert set(counts) == {RequestTimeoutError, ChannelOverflowError}
    assert sum(counts.values()) == REQUESTS
    assert counts[RequestTimeoutError] * 20_000 < 10_000_000
    os.kill(worker.pid, signal.SIGCONT)
    await asyncio.wait_for(_answers(worker), 10)


async def _answers(worker: Worker) -> None:
    """Once it has caught up."""
    while True:
        try:
            await worker.dump()
        except (RequestTimeoutError, ChannelOverflowError):
            await asyncio.sleep(0.05)
        else:
            return


async def test_a_worker_that_dies_while_it_answers_fails_what_it_has_not_answered(
    start_worker: StartWorker,
) -> None:
    worker = await start_worker()
    router = await worker.create_router()
    calls = [asyncio.create_task(router.dump()) for _ in range(REQUESTS)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    os.kill(worker.pid, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    counts = Counter(type(result) for result in results)
    assert counts[RouterDump] >= 1
    assert set(counts) <= {RouterDump, WorkerDiedError}
    assert worker._channel.pending_requests == 0
    await asyncio.wait_for(worker.wait_closed(), 5)
    assert worker.died
    with pytest.raises(ClosedError, match="worker died"):
        await router.dump()
