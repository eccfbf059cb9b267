"""The few hands that write to the API server: urgent first, so many at a time, so many a second.

Reads pass by; they are few. A 429 makes every writer wait as long as the API server asks.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, TypeVar

from mafalda_operator.effects.errors import ApiRefused, ApiUnavailable

ResultT = TypeVar("ResultT")

Job = Callable[[], Awaitable[Any]]

WRITERS = 12
PATIENT_WRITERS = 4
"""Of what nobody waits for: statuses of routers, statuses that may yet change, events."""
LONGEST_PATIENCE = 2.0
"""Seconds that each of these writers waits for the urgent ones to have nothing left."""
RATE = 400.0
"""Writes a second, sustained; a second's worth may come at once."""
MAX_QUEUED = 100_000


class Urgency(IntEnum):
    """What waits for what."""

    ACTION = 0
    """Creates, deletes, bindings: everything else follows from them."""
    SESSION_STATUS = 1
    """What users wait for."""
    STATUS = 2
    """Clusters and servers."""
    ROUTER_STATUS = 3
    """What nobody waits for."""
    EVENT = 4


class QueueFullError(Exception):
    """More writes wait than ``MAX_QUEUED``: the API server is far too slow, or the operator is broken."""


class RateLimiter:
    """A token bucket of one second's depth; ``pause`` empties it for a while."""

    def __init__(self, rate: float = RATE, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._tokens = rate
        self._at = clock()
        self._paused_until = 0.0

    def take(self) -> float:
        """Take one token; the seconds to wait before using it."""
        now = self._clock()
        self._tokens = min(self._rate, self._tokens + (now - self._at) * self._rate)
        self._at = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._rate, self._paused_until - now)

    def pause(self, seconds: float) -> None:
        self._paused_until = max(self._paused_until, self._clock() + seconds)


class _Queue:
    """Jobs by urgency, in order within one."""

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, Job, asyncio.Future[Any]]] = []
        self.empty = asyncio.Event()
        self.empty.set()
        self._order = itertools.count()
        self._available = asyncio.Semaphore(0)

    def put(self, urgency: Urgency, job: Job, future: asyncio.Future[Any]) -> None:
        heapq.heappush(self.heap, (int(urgency), next(self._order), job, future))
        self.empty.clear()
        self._available.release()

    async def get(self) -> tuple[Job, asyncio.Future[Any]]:
        await self._available.acquire()
        *_, job, future = heapq.heappop(self.heap)
        if not self.heap:
            self.empty.set()
        return job, future


class Writers:
    """Runs jobs by urgency, in order within one. ``run`` must be awaited by somebody.

    What nobody waits for has few writers of its own, which let everything urgent go first, for so long: it
    never holds up what somebody waits for, and a status that changes again meanwhile costs nothing.

    ``allowed`` is asked right before each job: one that waited for longer than leadership lasted is not done,
    its future has ApiUnavailable.
    """

    def __init__(
        self,
        limiter: RateLimiter | None = None,
        *,
        writers: int = WRITERS,
        patient: int = PATIENT_WRITERS,
        allowed: Callable[[], bool] = lambda: True,
    ) -> None:
        self._allowed = allowed
        self._limiter = limiter or RateLimiter()
        self._counts = (writers, patient)
        self._urgent, self._patient = _Queue(), _Queue()

    def submit(self, urgency: Urgency, job: Callable[[], Awaitable[ResultT]]) -> asyncio.Future[ResultT]:
        """Queue a job; its result or exception comes in the future. Raises QueueFullError.

        A job whose future is cancelled before its turn is left out.
        """
        if self.queued >= MAX_QUEUED:
            raise QueueFullError(f"{MAX_QUEUED} writes wait for the API server")
        future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        queue = self._patient if urgency >= Urgency.ROUTER_STATUS else self._urgent
        queue.put(urgency, job, future)
        return future

    @property
    def queued(self) -> int:
        return len(self._urgent.heap) + len(self._patient.heap)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for queue, count in zip((self._urgent, self._patient), self._counts, strict=True):
                for _ in range(count):
                    group.create_task(self._write(queue))

    def close(self) -> None:
        """Cancel what waits."""
        for *_, future in (*self._urgent.heap, *self._patient.heap):
            future.cancel()

    async def _write(self, queue: _Queue) -> None:
        while True:
            job, future = await queue.get()
            if queue is self._patient:
                await self._let_urgent_go_first()
            if future.cancelled():
                continue
            wait = self._limiter.take()
            if wait > 0:
                await asyncio.sleep(wait)
            await self._run_job(job, future)

    async def _let_urgent_go_first(self) -> None:
        try:
            async with asyncio.timeout(LONGEST_PATIENCE):
                await self._urgent.empty.wait()
        except TimeoutError:
            return  # the API server is too slow for what is urgent, too: a little goes on all the same

    async def _run_job(self, job: Job, future: asyncio.Future[Any]) -> None:
        """Give the job's result or error to whoever waits for it."""
        error: Exception
        try:
            if not self._allowed():
                raise ApiUnavailable("not written: the leadership lease is not renewed")
            result = await job()
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                future.cancel()
                raise
            error = ApiUnavailable("the request was cut off")  # under the job, and not to end this writer
            error.__cause__ = cancelled
        except Exception as raised:  # noqa: BLE001  handed to whoever waits for the job
            error = raised
        else:
            if not future.done():
                future.set_result(result)
            return
        self._note(error)
        if not future.done():
            future.set_exception(error)

    def _note(self, error: Exception) -> None:
        if isinstance(error, ApiRefused) and error.status == 429:
            self._limiter.pause(error.retry_after or 0.5)
