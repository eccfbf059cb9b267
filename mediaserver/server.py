"""One media server process: workers, cascade, control link, signalling and health, put together.

    listeners ─┬─ internal      /control ─▶ ControlEndpoint ─▶ Converger ─▶ CascadeHost ─▶ WorkerPool
               │                /peer    ─▶ CascadeHost
               ├─ participants  /ws, /   ─▶ SignallingEndpoint ─▶ CascadeHost
               │                /worker  ─▶ WorkerEndpoint ─▶ Tenants
               └─ health        /healthz, /readyz, /metrics

What is lower in this picture is started first and closed last.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from importlib import metadata
from typing import TypeVar

import structlog
from aiohttp import web
from prometheus_client.core import Metric

from mediaserver import shim
from mediaserver.cascade import CascadeHost, Identity
from mediaserver.config import ServerConfig
from mediaserver.control.contract import CONTROL_PATH, PEER_PATH, ControlHello, LeavingState
from mediaserver.control.converge import Converger
from mediaserver.control.endpoint import ControlEndpoint
from mediaserver.control.facts import ServerFacts
from mediaserver.control.membership_state import MembershipState, MembershipStateError
from mediaserver.control.reporting import Reporting
from mediaserver.health import LAG_LIMIT, LoopLag, health_app
from mediaserver.mediasoup import WORKER_VERSION, WorkerStartError, find_worker_bin
from mediaserver.metrics import Figures, metrics
from mediaserver.pool import WorkerPool
from mediaserver.remote.endpoint import WorkerEndpoint
from mediaserver.remote.settings import TenantSettings
from mediaserver.remote.tenants import Tenants
from mediaserver.signalling import SignallingEndpoint, SignallingSettings
from mediaserver.stopping import StopRequests
from mediaserver.waiting import with_addresses
from mediaserver.wire.errors import ListenError, MembershipError
from mediaserver.wire.listen import ListenAddress, Listener, listen, only
from mediaserver.wire.tls import GATEWAY_NAME, load_credential

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT")

CLOSE_DEADLINE = 8.0
"""Seconds that each part has to end."""
EMPTY_PATIENCE = 5.0
"""Seconds that a server which is to end waits for the operator to move routers that nobody uses."""
_DRAIN_TICK = 0.1


class StartError(Exception):
    """The media server can't start; the message names the setting and the remedy."""


class MediaServer:
    """Runs from `start` to `close`; `close` may be called at any moment and leaves nothing behind."""

    def __init__(self, config: ServerConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._listeners: list[Listener] = []
        self._following: asyncio.Task[None] | None = None
        self._started = False
        self._draining = False
        try:
            find_worker_bin(config.pool.worker_bin)
            self._credential = load_credential(config.cluster_key_file, config.tls_dir, "media-server")
            self._membership = MembershipState.load(config.state_dir, forget=config.forget)
        except (WorkerStartError, MembershipError, MembershipStateError) as error:
            raise StartError(str(error)) from error
        self._facts = ServerFacts(
            version=_version(),
            worker_version=WORKER_VERSION,
            internal=config.internal,
            participants=config.participants,
            pool=config.pool,
            zone=config.zone,
            tenants=None if config.tenants is None else config.tenants.offer,
        )
        credential = self._credential
        self.pool = WorkerPool(config.pool, clock=clock)
        self.host = CascadeHost(
            pool=self.pool,
            instance_id=self._facts.instance_id,
            credential=credential,
            identity=None,
            clock=clock,
        )
        self.converger = Converger(self.host, self.pool, clock=clock)
        self.tenants = None if config.tenants is None else self._make_tenants(config.tenants)
        self.signalling = SignallingEndpoint(
            self.host, config=SignallingSettings(announced=config.pool.announced)
        )
        self._reporting = Reporting(
            self.host,
            self.pool,
            self.converger,
            tenants=self.tenants,
            attached=self.signalling.participants_of,
            clock=clock,
        )
        self.control = ControlEndpoint(
            facts=self._facts,
            pool=self.pool,
            converger=self.converger,
            reporting=self._reporting,
            membership=self._membership,
            credential=credential,
            on_identity=self._identify,
            clock=clock,
        )
        self.workers = WorkerEndpoint(self.tenants, clock=clock)
        self._lag = LoopLag(clock)
        self.host.on_router_closed.subscribe(lambda _: self.converger.wake())
        self.host.on_state_change.subscribe(lambda _: self.control.changed())
        self.converger.on_change.subscribe(lambda _: self.control.changed())
        self.pool.on_change.subscribe(lambda _: self.control.changed())
        self.signalling.on_left.subscribe(lambda _: self.control.changed())

    def _make_tenants(self, settings: TenantSettings) -> Tenants:
        def server_name() -> str:
            identity = self.host.identity
            return "" if identity is None else identity.server_name

        tenants = Tenants(
            settings, instance_id=self._facts.instance_id, server_name=server_name, clock=self._clock
        )
        self.converger.on_settings.subscribe(lambda entry: tenants.set_tokens(entry.worker_tokens))
        return tenants

    async def start(self) -> None:
        """Listens and fills the worker slots. Raises StartError; `close` undoes what was done by then.

        Returns when every slot had its first attempt; one that failed is tried again for ever.
        """
        self._lag.start()
        self._following = asyncio.create_task(self._credential.follow(), name="certificates")
        self.converger.start()
        self.control.start()
        if self.tenants is not None:
            self.tenants.start()
        kept = self._membership.current
        if kept.cluster_uid and kept.server_name:
            self.host.identify(Identity(cluster_uid=kept.cluster_uid, server_name=kept.server_name))
        config = self._config
        health = health_app(self.problems, self._metrics)
        await self._listen("--health-listen", config.health, health)
        await self._listen(
            "--participants-listen", config.participants, self._participants_app(), secured=True
        )
        await self._listen("--internal-listen", config.internal, self._internal_app(), secured=True)
        await self.pool.start()
        self._started = True
        log.info("media server runs", instance=self._facts.instance_id, workers=len(self.pool.slots))

    async def drain(self, timeout: float, at_once: asyncio.Event) -> None:
        """Says that the server leaves, and waits till it is empty, `timeout` seconds pass or `at_once`.

        Meanwhile it obeys the operator, which moves its routers, save that it opens none; participants are
        taken on routers that nobody moves. Empty is: no participant, no application's worker, and no
        router, or nobody to move those, or `EMPTY_PATIENCE` seconds without anybody on them.
        """
        self._draining = True
        self.converger.drain()
        if self.tenants is not None:
            self.tenants.refuse_new()
        now = self._clock()
        deadline, busy_at = now + timeout, now
        if timeout > 0:
            self._reporting.leaving = LeavingState(reason="SIGTERM", deadline=timeout)
            self.control.changed()
        log.info("leaving", participants=self.signalling.participants, routers=len(self.host.routers))
        while not at_once.is_set():
            now = self._clock()
            left = self._left()
            if any(left.values()):
                busy_at = now
            if self._may_end(left, now - busy_at):
                return
            if now >= deadline:
                log.info("the drain's time is over", **left)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_DRAIN_TICK, deadline - now)):
                    await at_once.wait()

    def _left(self) -> dict[str, int]:
        """Whom the server still serves."""
        workers = 0 if self.tenants is None else self.tenants.by_token().total()
        return {"participants": self.signalling.participants, "workers_of_applications": workers}

    def _may_end(self, left: Mapping[str, int], idle: float) -> bool:
        if any(left.values()):
            return False
        moving = bool(self.host.routers) and self.control.connections()["operator"] > 0
        return not moving or idle >= EMPTY_PATIENCE

    async def close(self) -> None:
        """Sends participants away (dial again), ends connections, workers and listeners. Idempotent.

        A part that does not end in time, or fails to, is logged and keeps no other from ending.
        """
        self._draining = True
        await self._end("participants", self.signalling.drain("the media server stops"))
        if self.tenants is not None:
            await self._end("tenants", self.tenants.close())
        await self._end("applications' connections", self.workers.close())
        await self._end("control link", self.control.close())
        await self._end("converger", self.converger.close())
        await self._end("signalling", self.signalling.close())
        await self._end("cascade", self.host.close())
        await self._end("workers", self.pool.close())
        for listener in self._listeners:
            await self._end(f"listener {listener.address}", listener.close())
        self._listeners = []
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        await self._end("loop lag", self._lag.close())

    async def _end(self, what: str, closing: Coroutine[object, None, None]) -> None:
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await closing
        except Exception:  # whatever it is, the rest must be closed too
            log.exception("a part of the media server did not end well", part=what)

    def problems(self) -> list[str]:
        """Why the server is not ready, one line each; none when it is."""
        found = []
        if not self._started:
            found.append("starting")
        if self._draining:
            found.append("draining: new participants go elsewhere where they can")
        for slot in self.pool.slots:
            if slot.state != "Running":
                found.append(f"worker slot {slot.index} is {slot.state}: {slot.reason or 'being started'}")
        lag = self._lag.worst
        if lag > LAG_LIMIT:
            found.append(f"the event loop came {lag:.1f} s late, at most {LAG_LIMIT:g} s is well")
        return found

    def _identify(self, hello: ControlHello) -> None:
        self.host.identify(Identity(cluster_uid=hello.cluster_uid, server_name=hello.server_name))

    def _metrics(self) -> Iterable[Metric]:
        facts = self._facts
        info = {
            "version": facts.version,
            "worker_version": facts.worker_version,
            "instance_id": facts.instance_id,
            "zone": facts.zone,
        }
        return metrics(
            Figures(
                info=info,
                states=self._reporting.states(),
                load=self._reporting.last_load,
                control_connections=self.control.connections(),
                loop_lag=self._lag.worst,
                draining=self._draining,
                tenants=() if self.tenants is None else self.tenants.workers(),
            )
        )

    # -- listeners ------------------------------------------------------------------------------------

    async def _listen(
        self, flag: str, address: ListenAddress, app: web.Application, *, secured: bool = False
    ) -> None:
        """``secured``: by TLS, if the credential is certificates."""
        try:
            listener = await listen(app, address, secured=self._credential.listening() if secured else None)
        except ListenError as error:
            raise _no_listener(flag, address, error) from error
        self._listeners.append(listener)
        log.info("listening", flag=flag, address=str(listener.address))

    def _internal_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get(CONTROL_PATH, self.control.handle)
        app.router.add_get(PEER_PATH, self.host.accept_peer)
        return app

    def _participants_app(self) -> web.Application:
        app = web.Application(middlewares=[only(self._credential, (GATEWAY_NAME,))])
        for path in ("/ws", "/"):
            app.router.add_get(path, self.signalling.handle)
        app.router.add_get(shim.PATH, self.workers.handle)
        return app


def _no_listener(flag: str, address: ListenAddress, error: ListenError) -> StartError:
    return StartError(f"{flag} {address}: {error}; free the port or choose another one")


def _version() -> str:
    try:
        return metadata.version("mafalda-operator")
    except metadata.PackageNotFoundError:
        return "not installed"


async def serve(config: ServerConfig) -> None:
    """Runs a media server until SIGTERM or SIGINT, then drains and closes it. Raises StartError."""
    with StopRequests() as stop:
        complete = await _unless(stop.asked, _with_addresses(config))
        if complete is None:
            return
        server = MediaServer(complete)
        try:
            if await _unless(stop.asked, _started(server)):
                await stop.asked.wait()
                await server.drain(config.drain_timeout, stop.insisted)
        finally:
            await server.close()
    log.info("stopped")


async def _with_addresses(config: ServerConfig) -> ServerConfig:
    try:
        return await with_addresses(config)
    except ListenError as error:
        raise _no_listener("--health-listen", config.health, error) from error


async def _started(server: MediaServer) -> bool:
    await server.start()
    return True


async def _unless(stop: asyncio.Event, doing: Coroutine[object, None, ResultT]) -> ResultT | None:
    """What `doing` returns, or None if it is to stop before it is done. Raises what `doing` does."""
    starting = asyncio.create_task(doing)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return None
        return await starting
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
