"""The operator's own HTTP: `/healthz`, `/readyz`, `/metrics`.

Healthy: a restart would not help. An API server that is away makes the operator unready, not unhealthy,
since a restart would cut the control links for nothing; a watch that is silent although the API server
answers, or a loop that no longer comes round, is a fault of this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

LOOP_STALLED = 60.0
WATCH_STALLED = 420.0
"""Seconds: the watch's own 300, and time to begin anew."""
EVENT_LOOP_STALLED = 10.0
API_RECENT = 30.0


@dataclass(frozen=True)
class Vitals:
    """Where to look. Ages and lags are in seconds."""

    leading: Callable[[], bool]
    loop_age: Callable[[], float]
    """Since the loop last came round, while leading."""
    event_loop_lag: Callable[[], float]
    watch_ages: Callable[[], Mapping[str, float]]
    api_age: Callable[[], float]
    """Since the API server last answered."""
    complete: Callable[[], bool]

    def faults(self) -> list[str]:
        """Why the process should be restarted; empty: it should not."""
        found = []
        if self.leading() and self.loop_age() > LOOP_STALLED:
            found.append(f"the loop has not come round for {self.loop_age():.0f} s")
        if self.event_loop_lag() > EVENT_LOOP_STALLED:
            found.append(f"the event loop lags by {self.event_loop_lag():.0f} s")
        if self.api_age() < API_RECENT:
            found += [
                f"the watch of {kind} is silent for {age:.0f} s, although the API server answers"
                for kind, age in sorted(self.watch_ages().items())
                if age > WATCH_STALLED
            ]
        return found

    def unready(self) -> list[str]:
        """Why the operator does not act; empty: it does, or stands by to."""
        found = self.faults()
        if not self.complete():
            found.append("the store does not hold a complete list of all kinds")
        if self.api_age() > API_RECENT:
            found.append(f"the API server has not answered for {self.api_age():.0f} s")
        return found


class LagMeter:
    """Measures how late timers fire; ``run`` must be awaited by somebody."""

    def __init__(self, period: float = 0.5) -> None:
        self._period = period
        self._due = time.monotonic() + period
        self._last = 0.0

    @property
    def lag(self) -> float:
        """Of the last timer, or of the one that is overdue."""
        return max(self._last, time.monotonic() - self._due, 0.0)

    async def run(self) -> None:
        while True:
            self._due = time.monotonic() + self._period
            await asyncio.sleep(self._period)
            self._last = time.monotonic() - self._due


def application(vitals: Vitals, render_metrics: Callable[[], bytes]) -> web.Application:
    async def healthz(_: web.Request) -> web.Response:
        return _verdict(vitals.faults())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict(vitals.unready())

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(
            body=render_metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app


def _verdict(faults: list[str]) -> web.Response:
    if faults:
        return web.Response(status=503, text="\n".join(faults) + "\n")
    return web.Response(text="ok\n")
