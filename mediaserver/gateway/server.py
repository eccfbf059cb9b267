"""One gateway: its parts put together, from start to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from mediaserver import shim
from mediaserver.gateway.directory import Directory, Signal
from mediaserver.gateway.frontdoor import FrontDoor, Limits
from mediaserver.gateway.keys import KeySource, TokenKeys
from mediaserver.gateway.kube import KubeReader
from mediaserver.gateway.links import ServerLink, ServerLinks, Target
from mediaserver.gateway.metrics import Metrics
from mediaserver.gateway.reflector import Source
from mediaserver.gateway.resources import ObjectKey
from mediaserver.gateway.worker_finding import WorkerFinder, WorkerLimits
from mediaserver.gateway.workers import WorkerDoor
from mediaserver.wire.listen import ListenAddress, listen
from mediaserver.wire.membership import Credential
from mediaserver.wire.tls import media_server_name

STOP_SECONDS = 5.0
"""How long participants have to go when the gateway stops."""

log = structlog.get_logger()


@dataclass(frozen=True)
class GatewayConfig:
    """What a gateway is started with."""

    listen: ListenAddress
    health: ListenAddress
    credential: Credential
    kubeconfig: Path | None = None
    limits: Limits = field(default_factory=Limits)
    worker_limits: WorkerLimits = field(default_factory=WorkerLimits)


class Api(Source, KeySource, Protocol):
    """What the gateway asks of the Kubernetes API; KubeReader gives it."""


class Gateway:
    """Runs from ``start`` to ``close``; the addresses tell the ports that are really listened on."""

    def __init__(self, config: GatewayConfig, api: Api) -> None:
        self.address = config.listen
        self.health_address = config.health
        self.metrics = Metrics()
        self._config = config
        self._changed = Signal()
        self._loaded = Signal()
        self.directory = Directory(api, self._refresh)
        self._keys = TokenKeys(api)
        self._stack = AsyncExitStack()
        self.links = ServerLinks(self._make_link)
        self._door: FrontDoor | None = None
        self._worker_door: WorkerDoor | None = None
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Begin to watch and to listen. Raises ListenError; close() is in order then, too."""
        connector = aiohttp.TCPConnector(limit=0)
        self._session = await self._stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        self._door = FrontDoor(
            self.directory,
            self.links,
            self._keys,
            self._session,
            self._changed,
            self.metrics,
            limits=self._config.limits,
        )
        limits = self._config.worker_limits
        finder = WorkerFinder(self.directory, self.links, self._keys, self._changed, self._loaded, limits)
        self._worker_door = WorkerDoor(finder, self.metrics.workers, max_tunnels=limits.max_tunnels)
        self._stack.push_async_callback(self.links.close)
        self._stack.push_async_callback(self._keys.close)
        following = asyncio.create_task(self._config.credential.follow(), name="certificates")
        self._stack.push_async_callback(_ended, following)
        self.directory.start()
        self._stack.push_async_callback(self.directory.close)
        participants = web.Application()
        participants.router.add_get("/", self._door.handle)
        participants.router.add_get("/ws", self._door.handle)
        participants.router.add_get(shim.PATH, self._worker_door.handle)
        listener = await listen(participants, self._config.listen)
        self._stack.push_async_callback(listener.close)
        self.address = listener.address
        health = await listen(self._health_app(), self._config.health)
        self._stack.push_async_callback(health.close)
        self.health_address = health.address
        log.info("gateway listens", address=str(self.address), health=str(self.health_address))

    async def close(self) -> None:
        """Send participants and applications away, then end everything."""
        doors = [door for door in (self._door, self._worker_door) if door is not None]
        await asyncio.gather(*(door.close(STOP_SECONDS) for door in doors))
        await self._stack.aclose()

    # -- watching -------------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Something in the directory changed: links follow, and whoever waits looks again."""
        targets: dict[ObjectKey, Target] = {}
        for key, server in self.directory.servers.items():
            cluster = self.directory.clusters.get(server.cluster)
            if cluster is not None and server.address:
                name = server.spec.endpoint.server_name or media_server_name(*cluster.key)
                targets[key] = Target(key, server.address, cluster.key, cluster.metadata.uid, name)
        self.links.set_targets(targets)
        self._changed.fire()

    def _make_link(self, target: Target) -> ServerLink:
        if self._session is None or self._door is None:
            raise RuntimeError("the gateway has not been started")
        return ServerLink(
            target,
            self._session,
            self._config.credential,
            changed=self._changed.fire,
            loaded=self._loaded.fire,
            lost=self._door.server_lost,
        )

    # -- health ---------------------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Why participants should not be sent here, one line each."""
        return [
            f"{reflector.plural} not listed yet: {reflector.problem or 'no answer'}"
            for reflector in self.directory.reflectors
            if not reflector.synced.is_set()
        ]

    def _health_app(self) -> web.Application:
        async def healthz(_: web.Request) -> web.Response:
            return web.Response(text="ok\n")

        async def readyz(_: web.Request) -> web.Response:
            found = self.problems()
            return web.Response(text="\n".join(found or ["ok"]) + "\n", status=503 if found else 200)

        async def scrape(_: web.Request) -> web.Response:
            body = self.metrics.render(self.directory, self.links)
            return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

        app = web.Application()
        app.router.add_get("/healthz", healthz)
        app.router.add_get("/readyz", readyz)
        app.router.add_get("/metrics", scrape)
        return app


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def serve(config: GatewayConfig, stopping: Callable[[], asyncio.Event]) -> None:
    """Run a gateway until the event that ``stopping`` gives is set. Raises ApiError and ListenError."""
    api = await KubeReader.load(config.kubeconfig)
    gateway = Gateway(config, api)
    stop = stopping()
    try:
        await gateway.start()
        await stop.wait()
        log.info("gateway stops")
    finally:
        await gateway.close()
        await api.close()
