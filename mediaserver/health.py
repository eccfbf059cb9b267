"""`/healthz`, `/readyz` and `/metrics`, and the event loop's lag that they tell of."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable

from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

LAG_LIMIT = 1.0
"""Seconds that the event loop may come late before the server is not ready."""
LAG_WINDOW = 5.0
"""Seconds over which the worst lag is remembered."""
_TICK = 0.1


class LoopLag:
    """How late the event loop runs what is due; owns one task from `start` to `close`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque(maxlen=int(LAG_WINDOW / _TICK))
        self._task: asyncio.Task[None] | None = None

    @property
    def worst(self) -> float:
        """Seconds, over the last LAG_WINDOW seconds."""
        oldest = self._clock() - LAG_WINDOW
        return max((lag for at, lag in self._seen if at >= oldest), default=0.0)

    def note(self, lag: float) -> None:
        self._seen.append((self._clock(), max(0.0, lag)))

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="loop lag")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            due = self._clock() + _TICK
            await asyncio.sleep(_TICK)
            self.note(self._clock() - due)


class _Metrics(Collector):
    """Reads the figures when it is scraped, so that nothing has to be kept in step."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        return ()


def health_app(problems: Callable[[], list[str]], metrics: Callable[[], Iterable[Metric]]) -> web.Application:
    """The health listener's application.

    `problems` says why the server is not ready, one line each (none: ready). `/healthz` answers as long as
    the process does.
    """
    registry = CollectorRegistry()
    registry.register(_Metrics(metrics))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        found = problems()
        body = "\n".join(found or ["ok"]) + "\n"
        return web.Response(text=body, status=503 if found else 200)

    async def scrape(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", scrape)
    return app
