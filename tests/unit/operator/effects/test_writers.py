"""Writers: urgent first, so many at once, and a pause for all when the API server asks for one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from mafalda_operator.effects import writers as writers_module
from mafalda_operator.effects.errors import ApiUnavailable, Throttled
from mafalda_operator.effects.writers import RateLimiter, Urgency, Writers


def job(done: list[str], name: str) -> Callable[[], Awaitable[None]]:
    async def run() -> None:
        done.append(name)

    return run


async def test_urgent_jobs_come_first_and_the_rest_in_order() -> None:
    writers, done = Writers(writers=1, patient=0), list[str]()
    futures = [
        writers.submit(Urgency.STATUS, job(done, "cluster")),
        writers.submit(Urgency.SESSION_STATUS, job(done, "session 1")),
        writers.submit(Urgency.SESSION_STATUS, job(done, "session 2")),
        writers.submit(Urgency.ACTION, job(done, "action")),
    ]
    task = asyncio.create_task(writers.run())
    await asyncio.gather(*futures)
    assert done == ["action", "session 1", "session 2", "cluster"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_nobody_waits_for_never_holds_up_what_somebody_waits_for() -> None:
    stuck = asyncio.Event()

    async def slow() -> None:
        await stuck.wait()

    writers, done = Writers(writers=1, patient=1), list[str]()
    event = writers.submit(Urgency.EVENT, slow)
    router = writers.submit(Urgency.ROUTER_STATUS, job(done, "router"))
    task = asyncio.create_task(writers.run())
    async with asyncio.timeout(2):
        await writers.submit(Urgency.SESSION_STATUS, job(done, "session"))
        assert not event.done()
        stuck.set()
        await asyncio.gather(event, router)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_urgent_jobs_go_first_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers_module, "LONGEST_PATIENCE", 0.1)
    stuck = asyncio.Event()

    async def slow() -> None:
        await stuck.wait()

    writers, done = Writers(writers=1, patient=1), list[str]()
    urgent = [writers.submit(Urgency.ACTION, slow) for _ in range(2)]
    patient = writers.submit(Urgency.EVENT, job(done, "event"))
    task = asyncio.create_task(writers.run())
    await asyncio.sleep(0.03)
    assert done == []
    async with asyncio.timeout(2):
        await patient
        assert done == ["event"]
        stuck.set()
        await asyncio.gather(*urgent)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_jobs_error_comes_to_who_waits_and_the_next_job_runs() -> None:
    async def broken() -> None:
        raise Throttled(429, "TooManyRequests", "busy", retry_after=0.2)

    writers, done = Writers(writers=1, patient=1), list[str]()
    task = asyncio.create_task(writers.run())
    loop = asyncio.get_running_loop()
    with pytest.raises(Throttled):
        await writers.submit(Urgency.ACTION, broken)
    started = loop.time()
    await writers.submit(Urgency.ACTION, job(done, "next"))
    assert done == ["next"]
    assert loop.time() - started >= 0.15
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_job_that_ends_cancelled_does_not_end_its_writer() -> None:
    async def cancelled() -> None:
        raise asyncio.CancelledError

    writers, done = Writers(writers=1, patient=1), list[str]()
    task = asyncio.create_task(writers.run())
    with pytest.raises(ApiUnavailable):
        await writers.submit(Urgency.ACTION, cancelled)
    async with asyncio.timeout(2):
        await writers.submit(Urgency.ACTION, job(done, "next"))
    assert done == ["next"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_waits_at_the_end_is_cancelled() -> None:
    writers = Writers(writers=1, patient=1)
    future = writers.submit(Urgency.EVENT, job([], "never"))
    writers.close()
    assert future.cancelled()


def test_the_rate_is_kept_after_a_second_of_burst() -> None:
    now = 0.0
    limiter = RateLimiter(10, clock=lambda: now)
    waits = [limiter.take() for _ in range(30)]
    assert waits[:10] == [0.0] * 10
    assert waits[-1] == pytest.approx(2.0)
    now = 10.0
    assert limiter.take() == 0.0


def test_a_pause_holds_everybody() -> None:
    limiter = RateLimiter(1000, clock=lambda: 0.0)
    limiter.pause(3.0)
    assert limiter.take() == 3.0


async def test_what_waited_for_longer_than_leadership_lasted_is_not_written() -> None:
    leading, done = [True], list[str]()
    writers = Writers(allowed=lambda: leading[0])
    before = writers.submit(Urgency.ACTION, job(done, "before"))
    task = asyncio.create_task(writers.run())
    await before
    leading[0] = False
    with pytest.raises(ApiUnavailable, match="lease is not renewed"):
        await writers.submit(Urgency.ACTION, job(done, "meanwhile"))
    leading[0] = True
    await writers.submit(Urgency.ACTION, job(done, "again"))
    assert done == ["before", "again"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
