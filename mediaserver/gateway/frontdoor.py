"""Admitting participants: token, router, proxy; and a close code for everybody who is turned away."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import structlog
from aiohttp import ClientSession, web

from mediaserver.gateway import proxy
from mediaserver.gateway.directory import Directory, Signal
from mediaserver.gateway.errors import KeysUnavailable, Turned, UpstreamError
from mediaserver.gateway.keys import TokenKeys
from mediaserver.gateway.links import ServerLink, ServerLinks
from mediaserver.gateway.metrics import Metrics
from mediaserver.gateway.placement import Candidate, Leaving, Placements
from mediaserver.gateway.proxy import Ending, Proxy
from mediaserver.gateway.resources import Cluster, ObjectKey, Session
from mediaserver.wire import sockets, tokens
from mediaserver.wire.close_codes import DIAL_AGAIN, DIAL_LATER, ENDED
from mediaserver.wire.errors import TokenError
from mediaserver.wire.logs import claimed
from mediaserver.wire.membership import Dial

MAX_NAME = 253
_EARLY_SECONDS = 1.0
_ASK_PAUSE = 0.02

log = structlog.get_logger()


@dataclass(frozen=True)
class Limits:
    """Bounds and waits, in seconds."""

    max_participants: int = 20_000
    session_wait: float = 1.0
    """For a session that is not known: it may have been created just now."""
    router_wait: float = 3.0
    """For a router to become ready, and for all attempts to dial one."""
    reattach: float = 0.0
    """For participants to attach by way of another gateway, while this one stops; 0: they are cut off."""


@dataclass(frozen=True)
class Admission:
    """A participant whose token holds."""

    session: Session
    cluster: Cluster
    peer_id: str
    query: str
    """As it came; it carries the token and is never logged."""


class FrontDoor:
    """Handles participants' WebSockets until ``close``."""

    def __init__(
        self,
        directory: Directory,
        links: ServerLinks,
        keys: TokenKeys,
        session: ClientSession,
        changed: Signal,
        metrics: Metrics,
        *,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._links = links
        self._keys = keys
        self._session = session
        self._changed = changed
        self._metrics = metrics
        self._limits = limits or Limits()
        self._clock = clock
        self._wall_clock = wall_clock
        self._placements = Placements()
        self._proxies: defaultdict[ObjectKey, set[Proxy]] = defaultdict(set)
        self._open = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    # -- life -----------------------------------------------------------------------------------------

    async def close(self, seconds: float) -> None:
        """Ask everybody to attach elsewhere and wait for that (``Limits.reattach``); close who is left, to
        dial again later, and wait ``seconds`` at most until they are gone.
        """
        self._closing = True
        self._changed.fire()
        if self._open and self._limits.reattach:
            await self._ask_to_reattach(self._limits.reattach)
        for proxies in self._proxies.values():
            for one in proxies:
                one.end(DIAL_LATER, "gateway stopping")
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning("participants did not go in time", count=self._open)

    async def _ask_to_reattach(self, within: float) -> None:
        """Returns when all are gone or the time is over. The asking takes half of it at most, so that the
        other gateways need not admit everybody at once.
        """
        carriers = [carrier for proxies in self._proxies.values() for carrier in proxies]
        log.info("participants asked to attach elsewhere", count=len(carriers), within=within)
        pause = min(_ASK_PAUSE, within / 2 / max(1, len(carriers)))
        try:
            async with asyncio.timeout(within):
                for carrier in carriers:
                    await carrier.tell(_reattach(within))
                    await asyncio.sleep(pause)
                await self._idle.wait()
        except TimeoutError:
            log.info("participants left when the gateway stops", count=self._open)

    def server_lost(self, server: ObjectKey, reason: str) -> None:
        """Send the participants of a server that is gone to another one."""
        lost = self._proxies.get(server, set())
        if lost:
            log.warning("participants sent elsewhere", server=str(server), count=len(lost), reason=reason)
        for one in tuple(lost):
            one.end(DIAL_AGAIN, "media server lost")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The request handler of `/` and `/ws`."""
        socket = web.WebSocketResponse(
            protocols=(proxy.SUBPROTOCOL,),
            heartbeat=proxy.PING_SECONDS,
            timeout=proxy.CLOSE_SECONDS,
            max_msg_size=proxy.MAX_FROM_PARTICIPANT + 1,  # aiohttp refuses from that size on
            compress=False,
        )
        offered = socket.can_prepare(request)
        if not offered.ok:
            text = "This is a gateway of Mafalda: participants dial it by WebSocket, sub-protocol protoo.\n"
            return web.Response(status=426, text=text, headers={"Upgrade": "websocket"})
        await socket.prepare(request)
        self._open += 1
        self._idle.clear()
        try:
            code, reason = await self._serve(request, socket, offered.protocol)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()
        await sockets.close(socket, code, reason, proxy.CLOSE_SECONDS)
        return socket

    async def _serve(
        self, request: web.Request, socket: proxy.Participant, protocol: str | None
    ) -> tuple[int, str]:
        """Code and reason to close the participant with."""
        begin = self._clock()
        try:
            self._check_open(protocol)
            admission = await self._admit(request)
            candidate, upstream = await self._connect(admission)
        except Turned as turned:
            self._metrics.dials.labels(_outcome(turned.code)).inc()
            log.info(
                "participant turned away", code=turned.code, reason=turned.reason, **claimed(request.query)
            )
            return turned.code, turned.reason
        self._metrics.dials.labels("admitted").inc()
        self._metrics.admission.observe(self._clock() - begin)
        ending = await self._carry(admission, candidate, Proxy(socket, upstream))
        return ending.code, ending.reason

    # -- admission ------------------------------------------------------------------------------------

    def _check_open(self, protocol: str | None) -> None:
        if self._closing:
            raise Turned(DIAL_LATER, "gateway stopping")
        if self._open > self._limits.max_participants:
            raise Turned(DIAL_LATER, "gateway full")
        if protocol != proxy.SUBPROTOCOL:
            raise Turned(ENDED, f"sub-protocol {proxy.SUBPROTOCOL} expected")

    async def _admit(self, request: web.Request) -> Admission:
        """Who may come in. Raises Turned."""
        room_id = request.query.get("roomId", "")
        peer_id = request.query.get("peerId", "")
        where = ObjectKey.parse(room_id) if len(room_id) <= 2 * MAX_NAME else None
        if where is None:
            raise Turned(ENDED, "roomId must be NAMESPACE/SESSION")
        if not 1 <= len(peer_id) <= MAX_NAME:
            raise Turned(ENDED, f"peerId must have 1 to {MAX_NAME} characters")
        try:
            kid = tokens.key_id(request.query.get("token", ""))
            session, cluster = await self._find(where)
            keys = await self._keys.of(cluster, where.namespace, kid)
            tokens.verify(
                request.query.get("token", ""),
                keys,
                cluster.issuers,
                session=room_id,
                peer_id=peer_id,
                now=self._wall_clock(),
            )
        except TokenError as error:
            raise Turned(ENDED, f"token refused: {error.reason}") from error
        except KeysUnavailable as error:
            raise Turned(DIAL_LATER, "token keys cannot be read") from error
        return Admission(session, cluster, peer_id, request.rel_url.raw_query_string)

    async def _find(self, where: ObjectKey) -> tuple[Session, Cluster]:
        directory = self._directory

        def known() -> bool:
            session = directory.sessions.get(where) if directory.synced else None
            return self._closing or (session is not None and session.cluster in directory.clusters)

        await self._changed.until(known, self._limits.session_wait)
        session = directory.sessions.get(where)
        if self._closing or not directory.synced:
            raise Turned(DIAL_LATER, "gateway stopping" if self._closing else "gateway starting")
        if session is None or session.ended:
            raise Turned(ENDED, "session ended")
        cluster = directory.clusters.get(session.cluster)
        if cluster is None:
            raise Turned(DIAL_LATER, "no router is ready")
        return session, cluster

    # -- choosing a router ----------------------------------------------------------------------------

    async def _connect(self, admission: Admission) -> tuple[Candidate, proxy.Upstream]:
        """Dial the best router that takes the participant. Raises Turned when none does in time."""
        where = admission.session.key
        deadline = self._clock() + self._limits.router_wait
        tried: set[ObjectKey] = set()
        while (left := deadline - self._clock()) > 0:
            choice = self._next(where, tried)
            if choice is None:
                await self._changed.until(lambda: self._has_news(where, tried), left)
                if self._has_ended(where) or self._closing or self._next(where, tried) is None:
                    break
                continue
            tried.add(choice.router)
            try:
                how = self._how(choice.server)
                upstream = await proxy.dial(
                    self._session, choice.address, how, admission.query, choice.router
                )
            except UpstreamError as error:
                self._placements.refused(choice.router, self._clock())
                log.warning("router does not answer", router=str(choice.router), reason=str(error))
                continue
            return choice, upstream
        if self._closing:
            raise Turned(DIAL_LATER, "gateway stopping")
        if self._has_ended(where):
            raise Turned(ENDED, "session ended")
        raise Turned(DIAL_LATER, "no router is ready")

    def _how(self, server: ObjectKey) -> Dial:
        """Raises UpstreamError."""
        link = self._links.get(server)
        if link is None:
            raise UpstreamError(f"there is no MediaServer {server} any more")
        return link.dial()

    def _has_news(self, where: ObjectKey, tried: set[ObjectKey]) -> bool:
        return self._closing or self._has_ended(where) or self._next(where, tried) is not None

    def _has_ended(self, where: ObjectKey) -> bool:
        session = self._directory.sessions.get(where)
        return session is None or session.ended

    def _next(self, where: ObjectKey, tried: set[ObjectKey]) -> Candidate | None:
        session = self._directory.sessions.get(where)
        if session is None:
            return None
        left = [candidate for candidate in self._candidates(session) if candidate.router not in tried]
        ordered = self._placements.order(left, self._clock())
        return ordered[0] if ordered else None

    def _candidates(self, session: Session) -> Iterator[Candidate]:
        """The session's routers whose servers can be heard and say that they are ready."""
        for router in session.status.routers:
            key = ObjectKey(session.metadata.namespace, router.name)
            server = ObjectKey(session.cluster.namespace, router.server_name)
            link = self._links.get(server)
            if link is not None and link.hello is not None and link.router_ready(key):
                address = link.hello.participants
                leaving = self._leaving(key, server, link)
                yield Candidate(key, server, address, link.participants(key), router.ready, leaving)

    def _leaving(self, router: ObjectKey, server: ObjectKey, link: ServerLink) -> Leaving:
        if link.router_leaving(router):
            return 2
        resource = self._directory.servers.get(server)
        return 1 if link.leaving or (resource is not None and resource.draining) else 0

    # -- carrying -------------------------------------------------------------------------------------

    async def _carry(self, admission: Admission, choice: Candidate, carrier: Proxy) -> Ending:
        begin = self._clock()
        self._placements.placed(choice.router, begin)
        who = {"session": str(admission.session.key), "participant": admission.peer_id}
        where = {"router": str(choice.router), "server": str(choice.server)}
        log.info("participant admitted", **who, **where)
        self._metrics.participants.inc()
        self._proxies[choice.server].add(carrier)
        if self._closing:
            carrier.end(DIAL_LATER, "gateway stopping")
        try:
            ending = await carrier.run()
        finally:
            self._metrics.participants.dec()
            self._proxies[choice.server].discard(carrier)
            if not self._proxies[choice.server]:
                del self._proxies[choice.server]
        early = carrier.carried == 0 and self._clock() - begin < _EARLY_SECONDS
        if ending.by == "server" and ending.code != ENDED and early:
            self._placements.refused(choice.router, self._clock())
        self._metrics.endings.labels(ending.by, str(ending.code)).inc()
        log.info("participant left", **who, by=ending.by, code=ending.code, reason=ending.reason)
        return ending


def _outcome(code: int) -> str:
    return {ENDED: "refused", DIAL_AGAIN: "again", DIAL_LATER: "later"}.get(code, "other")


def _reattach(within: float) -> str:
    """The notification of docs/signalling.md, as a media server sends it, too."""
    data = {"reason": "the gateway stops", "within": within}
    return msgspec.json.encode({"notification": True, "method": "reattach", "data": data}).decode()
