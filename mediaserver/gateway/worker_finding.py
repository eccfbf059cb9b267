"""From an application's handshake to a media server that has taken it, for a new worker or one it had."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from mediaserver.control.contract import Address
from mediaserver.gateway import worker_upstream
from mediaserver.gateway.directory import Directory, Signal
from mediaserver.gateway.errors import Refused, UpstreamError
from mediaserver.gateway.keys import TokenKeys
from mediaserver.gateway.links import ServerLink, ServerLinks
from mediaserver.gateway.resources import Cluster, ObjectKey, Server
from mediaserver.gateway.worker_admission import Admission
from mediaserver.gateway.worker_choice import Placement, Wish, WorkerPlacements, WorkerServer, choose
from mediaserver.gateway.worker_handshake import Handshake
from mediaserver.gateway.worker_upstream import Answer, Upstream

_ENDING_SECONDS = 0.2
"""What ends at the moment of a dial, to make room for it, is told by then."""

log = structlog.get_logger()


@dataclass(frozen=True)
class WorkerLimits:
    """Bounds and waits, in seconds."""

    max_tunnels: int = 4096
    """Dials that are not decided yet count, too."""
    links_wait: float = 2.0
    """For what is about to be known, when the gateway or a media server has just started."""
    loads_wait: float = 1.5
    """For fresh figures, before a worker is refused by those of before: one may just have ended."""
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


class WorkerFinder:
    """Brings handshakes to media servers until ``close``."""

    def __init__(
        self,
        directory: Directory,
        links: ServerLinks,
        keys: TokenKeys,
        changed: Signal,
        loaded: Signal,
        limits: WorkerLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``loaded`` fires when a server has told its load; ``clock`` is the one by which that is noted."""
        self._directory = directory
        self._links = links
        self._admission = Admission(keys)
        self._changed = changed
        self._loaded = loaded
        self._limits = limits
        self._clock = clock
        self._placements = WorkerPlacements()
        self._closing = False

    def close(self) -> None:
        """Refuse those that wait, and all that come."""
        self._closing = True
        self._changed.fire()
        self._loaded.fire()

    def check_open(self) -> None:
        """Raises Refused."""
        if self._closing:
            raise Refused(503, "gatewayStopping", "the gateway stops", final=False)

    async def connect(self, handshake: Handshake) -> Connected:
        """Raises Refused. The result is to be given to ``ended`` when the connection has ended."""
        deadline = self._clock() + self._limits.answer_wait
        await self._until(lambda: self._directory.synced)
        if not self._directory.synced:
            text = "the gateway has not read the MediaClusters from the Kubernetes API yet"
            raise Refused(503, "gatewayStarting", text, final=False)
        find = self._resume if handshake.ticket else self._start
        return await find(handshake, deadline)

    def ended(self, connected: Connected) -> None:
        """The connection is over."""
        if connected.placement is not None:
            self._placements.end(connected.placement)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait a little for what is about to be known. Raises Refused when the gateway stops."""
        await self._changed.until(lambda: self._closing or condition(), self._limits.links_wait)
        self.check_open()

    # -- a new worker ---------------------------------------------------------------------------------

    async def _start(self, handshake: Handshake, deadline: float) -> Connected:
        """On the best server that takes it. Raises Refused."""
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
        for server in await self._choose(wish, cluster):
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

    async def _choose(self, wish: Wish, cluster: Cluster) -> list[WorkerServer]:
        """Servers for the worker, best first. Raises Refused, on fresh figures if it is by figures."""
        try:
            return choose(wish, self._views(cluster), self._placements, self._clock())
        except Refused as refused:
            if refused.reason not in ("full", "workersBound"):
                raise
        moment = self._clock() + _ENDING_SECONDS

        def fresh() -> bool:
            links = [link for _, link in self._servers_of(cluster) if link is not None]
            return self._closing or all(link.load_at >= moment for link in links if link.load is not None)

        await self._loaded.until(fresh, self._limits.loads_wait)
        self.check_open()
        return choose(wish, self._views(cluster), self._placements, self._clock())

    def _servers_of(self, cluster: Cluster) -> list[tuple[Server, ServerLink | None]]:
        servers = self._directory.servers.values()
        return [(server, self._links.get(server.key)) for server in servers if server.cluster == cluster.key]

    def _views(self, cluster: Cluster) -> list[WorkerServer]:
        return [_view(server, link) for server, link in self._servers_of(cluster)]

    # -- coming back ----------------------------------------------------------------------------------

    async def _resume(self, handshake: Handshake, deadline: float) -> Connected:
        """To the worker that the ticket names. Raises Refused."""
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

    # -- dialling -------------------------------------------------------------------------------------

    async def _dial(
        self, server: ObjectKey, address: Address, handshake: Handshake, seconds: float
    ) -> Upstream:
        """Raises Refused: as the server said, or 503 when it says nothing."""
        request = handshake.forwarded(worker_upstream.host_of(address))
        link = self._links.get(server)
        if link is None:
            raise _not_connected(str(server))
        try:
            answer = await worker_upstream.dial(
                address, request, min(seconds, worker_upstream.DIAL_SECONDS), how=link.dial()
            )
        except UpstreamError as error:
            log.warning("media server does not take a worker", server=str(server), reason=str(error))
            text = f"the media server {server} cannot be reached by the gateway"
            raise Refused(503, "unreachable", text, final=False) from error
        if isinstance(answer, Answer):
            text = answer.text or f"the media server {server} answers HTTP {answer.status}"
            raise Refused(answer.status, "refusedByServer", text, final=answer.final)
        return answer


def _view(server: Server, link: ServerLink | None) -> WorkerServer:
    hello = link.hello if link is not None else None
    return WorkerServer(
        key=server.key,
        zone=server.spec.zone or (hello.zone if hello is not None else ""),
        leaving=server.metadata.deletion_timestamp is not None or server.draining,
        address=hello.participants if hello is not None else None,
        offer=hello.tenants if hello is not None else None,
        load=link.load if link is not None else None,
        load_at=link.load_at if link is not None else 0.0,
    )


def _not_connected(server: str) -> Refused:
    text = f"the media server {server} is not connected to the gateway at the moment"
    return Refused(503, "noServer", text, final=False)
