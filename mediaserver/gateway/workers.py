"""Remote Mediasoup's door: an application dials for a worker and is carried to the media server that runs it.

Refusals are plain HTTP answers with a line that the application's developer reads. Once a server has taken
the worker the gateway only relays; when the gateway goes, the application dials another one and goes on.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from aiohttp import web

from mediaserver import shim
from mediaserver.gateway import worker_handshake
from mediaserver.gateway.errors import Refused
from mediaserver.gateway.metrics import WorkerMetrics
from mediaserver.gateway.relay import Relay
from mediaserver.gateway.worker_finding import Connected, WorkerFinder
from mediaserver.gateway.worker_handshake import one_line
from mediaserver.wire import upgrade

log = structlog.get_logger()


class WorkerDoor:
    """Handles applications' dials until ``close``."""

    def __init__(self, finder: WorkerFinder, metrics: WorkerMetrics, *, max_tunnels: int) -> None:
        self._finder = finder
        self._metrics = metrics
        self._max_tunnels = max_tunnels
        self._relays: set[Relay] = set()
        self._open = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def close(self, seconds: float) -> None:
        """End every connection at once; wait ``seconds`` at most until they are gone."""
        self._closing = True
        self._finder.close()
        for relay in tuple(self._relays):
            relay.end()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("applications did not go in time", count=self._open)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The request handler of `/worker`."""
        self._open += 1
        self._idle.clear()
        try:
            return await self._serve(request)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        begin = time.monotonic()
        try:
            handshake = worker_handshake.read(request)
            self._finder.check_open()
            self._check_room()
            connected = await self._finder.connect(handshake)
        except Refused as refused:
            self._metrics.dials.labels(refused.reason).inc()
            log.info("application turned away", status=refused.status, reason=refused.reason)
            return _answer(refused)
        self._metrics.admission.observe(time.monotonic() - begin)
        try:
            return await self._carry(request, connected)
        finally:
            self._finder.ended(connected)

    def _check_room(self) -> None:
        if self._open > self._max_tunnels:
            text = f"the gateway carries {self._max_tunnels} workers, more it does not take"
            raise Refused(503, "gatewayFull", text, final=False)

    async def _carry(self, request: web.Request, connected: Connected) -> web.StreamResponse:
        """Until the connection ends, on whichever side."""
        upstream, relay = connected.upstream, Relay()
        try:
            upgrade.take_over(request, relay.application, upstream.head)
        except ConnectionResetError:
            upstream.transport.abort()
            self._metrics.dials.labels("applicationGone").inc()
            return web.Response(status=400)  # goes nowhere
        upstream.transport.set_protocol(relay.server)
        relay.server.connection_made(upstream.transport)
        who = {"server": str(connected.server), "application": connected.application}
        outcome = "resumed" if connected.placement is None else "started"
        self._metrics.dials.labels(outcome).inc()
        log.info(f"worker {outcome}", **who)
        begin = time.monotonic()
        self._relays.add(relay)
        relay.start(upstream.rest)
        if self._closing:
            relay.end()
        try:
            with self._metrics.tunnels.track_inprogress():
                by = await asyncio.shield(relay.ended)
        finally:
            relay.cut()
            self._relays.discard(relay)
        self._metrics.endings.labels(by).inc()
        log.info("worker's connection ended", **who, by=by, seconds=round(time.monotonic() - begin, 1))
        return upgrade.give_back(request)


def _answer(refused: Refused) -> web.Response:
    headers = {shim.FINAL_HEADER: "true"} if refused.final else {}
    if refused.status == 426:
        headers["Upgrade"] = "websocket"
    response = web.Response(status=refused.status, text=one_line(refused.text) + "\n", headers=headers)
    response.force_close()
    return response
