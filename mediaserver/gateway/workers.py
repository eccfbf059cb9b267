"""Remote Mediasoup's door: an application dials for a worker and is carried to the media server that runs it.

Refusals are plain HTTP answers with a line that the application's developer reads. Once a server has taken
the worker the gateway only relays; when the gateway goes, the application dials another one and goes on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from aiohttp import web

from mediaserver import shim
from mediaserver.control.contract import Address
from mediaserver.gateway import worker_handshake, worker_upstream
from mediaserver.gateway.directory import Directory, Signal
from mediaserver.gateway.errors import Refused, UpstreamError
from mediaserver.gateway.keys import TokenKeys
from mediaserver.gateway.links import ServerLink, ServerLinks
from mediaserver.gateway.metrics import WorkerMetrics
from mediaserver.gateway.relay import Relay
from mediaserver.gateway.resources import Cluster, ObjectKey, Server
from mediaserver.gateway.worker_admission import Admission
from mediaserver.gateway.worker_choice import Placement, Wish, WorkerPlacements, WorkerServer, choose
from mediaserver.gateway.worker_handshake import Handshake, one_line
from mediaserver.gateway.worker_upstream import Answer, Upstream
from mediaserver.wire import upgrade

log = structlog.get_logger()


@dataclass(frozen=True)
class WorkerLimits:
    """Bounds and waits, in seconds."""

    max_tunnels: int = 4096
    """Dials that are not decided yet count, too."""
    links_wait: float = 2.0
    """For what is about to be known, when the gateway or a media server has just started."""
    answer_wait: float = 4.0
    """Until the last attempt to bring the worker to a server ends; the application itself waits 5 s."""


@dataclass(frozen=True)
class Connected:
    """A media server took the application's connection."""

    upstream: Upstream
    server: ObjectKey
    application: str
    """`sub` of its token."""
    placement: Placement | None
    """None: it came back to a worker that it had."""


class WorkerDoor:
    """Handles applications' dials until ``close``."""

    def __init__(
        self,
        directory: Directory,
        links: ServerLinks,
        keys: TokenKeys,
        changed: Signal,
        metrics: WorkerMetrics,
        *,
        limits: WorkerLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` must be the one by which links note when load came."""
        self._directory = directory
        self._links = links
        self._changed = changed
        self._metrics = metrics
        self._limits = limits or WorkerLimits()
        self._clock = clock
        self._admission = Admission(keys)
        self._placements = WorkerPlacements()
        self._relays: set[Relay] = set()
        self._open = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- life -----------------------------------------------------------------------------------------

    async def close(self, seconds: float) -> None:
        """End every connection at once; wait ``seconds`` at most until they are gone."""
        self._closing = True
        self._changed.fire()
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
        begin = self._clock()
        try:
            handshake = worker_handshake.read(request)
            self._check_open()
            connected = await self._connect(handshake, begin + self._limits.answer_wait)
        except Refused as refused:
            self._metrics.dials.labels(refused.reason).inc()
            log.info("application turned away", status=refused.status, reason=refused.reason)
            return _answer(refused)
        self._metrics.admission.observe(self._clock() - begin)
        try:
            return await self._carry(request, connected)
        finally:
            if connected.placement is not None:
                self._placements.end(connected.placement)

    def _check_open(self) -> None:
        self._check_stopping()
        if self._open > self._limits.max_tunnels:
            text = f"the gateway carries {self._limits.max_tunnels} workers, more it does not take"
            raise Refused(503, "gatewayFull", text, final=False)

    def _check_stopping(self) -> None:
        if self._closing:
            raise Refused(503, "gatewayStopping", "the gateway stops", final=False)

    # -- who runs the worker --------------------------------------------------------------------------

    async def _connect(self, handshake: Handshake, deadline: float) -> Connected:
        """Raises Refused."""
        await self._until(lambda: self._directory.synced)
        if not self._directory.synced:
            text = "the gateway has not read the MediaClusters from the Kubernetes API yet"
            raise Refused(503, "gatewayStarting", text, final=False)
        find = self._resume if handshake.ticket else self._start
        return await find(handshake, deadline)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait a little for what is about to be known. Raises Refused when the gateway stops."""
        await self._changed.until(lambda: self._closing or condition(), self._limits.links_wait)
        self._check_stopping()

    async def _start(self, handshake: Handshake, deadline: float) -> Connected:
        """A new worker, on the best server that takes it. Raises Refused."""
        admitted = await self._admission.new(handshake, tuple(self._directory.clusters.values()))
        cluster, claims = admitted.cluster, admitted.claims
        await self._until(lambda: not any(link and link.pending for _, link in self._servers_of(cluster)))
        wish = Wish(
            cluster=cluster.key,
            version=handshake.version,
            token=claims.jti,
            zone=claims.zone or handshake.zone,
            server=claims.server,
            bound=claims.workers,
        )
        refused = Refused(503, "unreachable", "no media server answered in time", final=False)
        for server in choose(wish, self._views(cluster), self._placements, self._clock()):
            left = deadline - self._clock()
            if server.address is None or left <= 0:
                break
            # From choosing to this there is no other turn of the event loop, so that bounds hold.
            placement = self._placements.begin(server.key, claims.jti, self._clock())
            try:
                upstream = await self._dial(server.key, server.address, handshake, left)
            except BaseException as error:
                self._placements.end(placement)
                if not isinstance(error, Refused) or error.status != 503 or error.final:
                    raise
                self._placements.failed(server.key, self._clock())
                refused = error
                continue
            return Connected(upstream, server.key, claims.sub, placement)
        raise refused

    async def _resume(self, handshake: Handshake, deadline: float) -> Connected:
        """The worker that the ticket names. Raises Refused."""
        returning = await self._admission.returning(handshake, tuple(self._directory.clusters.values()))
        ticket = returning.ticket
        key = ObjectKey.parse(ticket.server)
        server = self._directory.servers.get(key) if key is not None else None
        if key is None or server is None or server.cluster != returning.cluster.key:
            if self._directory.knows_servers:
                text = f"there is no MediaServer {ticket.server} any more, so the worker is gone"
                raise Refused(410, "gone", text, final=True)
            raise _not_connected(ticket.server)
        await self._until(
            lambda: (link := self._links.get(key)) is None or bool(link.hello) or not link.pending
        )
        link = self._links.get(key)
        if link is None or link.hello is None:
            raise _not_connected(ticket.server)
        if link.hello.instance_id != ticket.instance:
            text = f"the media server {key} was restarted, so the worker is gone"
            raise Refused(410, "gone", text, final=True)
        left = deadline - self._clock()
        upstream = await self._dial(key, link.hello.participants, handshake, left)
        return Connected(upstream, key, ticket.sub, None)

    def _servers_of(self, cluster: Cluster) -> list[tuple[Server, ServerLink | None]]:
        servers = self._directory.servers.values()
        return [(server, self._links.get(server.key)) for server in servers if server.cluster == cluster.key]

    def _views(self, cluster: Cluster) -> list[WorkerServer]:
        return [_view(server, link) for server, link in self._servers_of(cluster)]

    async def _dial(
        self, server: ObjectKey, address: Address, handshake: Handshake, seconds: float
    ) -> Upstream:
        """Raises Refused: as the server said, or 503 when it says nothing."""
        request = handshake.forwarded(worker_upstream.host_of(address))
        try:
            answer = await worker_upstream.dial(address, request, min(seconds, worker_upstream.DIAL_SECONDS))
        except UpstreamError as error:
            log.warning("media server does not take a worker", server=str(server), reason=str(error))
            text = f"the media server {server} cannot be reached by the gateway"
            raise Refused(503, "unreachable", text, final=False) from error
        if isinstance(answer, Answer):
            text = answer.text or f"the media server {server} answers HTTP {answer.status}"
            raise Refused(answer.status, "refusedByServer", text, final=answer.final)
        return answer

    # -- carrying -------------------------------------------------------------------------------------

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
        begin = self._clock()
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
        log.info("worker's connection ended", **who, by=by, seconds=round(self._clock() - begin, 1))
        return upgrade.give_back(request)


def _view(server: Server, link: ServerLink | None) -> WorkerServer:
    hello = link.hello if link is not None else None
    return WorkerServer(
        key=server.key,
        zone=server.spec.zone or (hello.zone if hello is not None else ""),
        leaving=server.metadata.deletion_timestamp is not None,
        address=hello.participants if hello is not None else None,
        offer=hello.tenants if hello is not None else None,
        load=link.load if link is not None else None,
        load_at=link.load_at if link is not None else 0.0,
    )


def _not_connected(server: str) -> Refused:
    text = f"the media server {server} is not connected to the gateway at the moment"
    return Refused(503, "noServer", text, final=False)


def _answer(refused: Refused) -> web.Response:
    headers = {shim.FINAL_HEADER: "true"} if refused.final else {}
    if refused.status == 426:
        headers["Upgrade"] = "websocket"
    response = web.Response(status=refused.status, text=one_line(refused.text) + "\n", headers=headers)
    response.force_close()
    return response
