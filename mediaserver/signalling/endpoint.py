"""`/ws`: where participants come in. Verifies the token, finds the router, serves until the socket ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from mediaserver.control.contract import router_key
from mediaserver.mediasoup import Event
from mediaserver.signalling import verbs
from mediaserver.signalling.connection import Connection, Ending
from mediaserver.signalling.errors import Refused
from mediaserver.signalling.moving import Pace
from mediaserver.signalling.participant import Participant
from mediaserver.signalling.protoo import SUBPROTOCOL, Request
from mediaserver.signalling.room import Room, token_keys
from mediaserver.signalling.settings import SignallingSettings
from mediaserver.wire.close_codes import DIAL_AGAIN, DIAL_LATER, ENDED, clip_reason
from mediaserver.wire.errors import TokenError
from mediaserver.wire.logs import claimed
from mediaserver.wire.tokens import ParticipantClaims, verify

if TYPE_CHECKING:
    from mediaserver.cascade import CascadeHost, HostedRouter

log = structlog.get_logger(__name__)

ROUTER_HEADER = "X-Mafalda-Router"
"""`namespace/name` of the MediaRouter that the gateway chose."""


class _Turned(Exception):  # noqa: N818  what happens to the participant, not a fault
    """The participant is turned away with a close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class SignallingEndpoint:
    """Serves participants on the routers of `host`; makes a room for each. `close` it before the host."""

    def __init__(
        self,
        host: CascadeHost,
        *,
        clock: Callable[[], float] = time.time,
        config: SignallingSettings | None = None,
    ) -> None:
        """`clock` gives seconds since 1970: tokens are checked against it."""
        self.on_left: Event[None] = Event("participant left")
        """An attachment to any router has ended: `participants_of` gives something else."""
        self._host = host
        self._clock = clock
        self._settings = config or SignallingSettings()
        self._pace = Pace(self._settings)
        self._rooms: dict[str, Room] = {}
        self._connections: set[Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing: set[asyncio.Task[None]] = set()
        self._draining: str | None = None
        for hosted in host.routers.values():
            self._open_room(hosted)
        self._unsubscribe = [
            host.on_router_opened.subscribe(self._open_room),
            host.on_router_changed.subscribe(self._router_changed),
            host.on_router_closed.subscribe(lambda closed: self._close_room(*closed)),
        ]

    @property
    def participants(self) -> int:
        """Open sockets."""
        return len(self._connections)

    def participants_of(self, key: str) -> int:
        """Attachments to the router of that key, those without a socket included."""
        room = self._rooms.get(key)
        return 0 if room is None else len(room)

    def refuse_new(self, reason: str) -> None:
        """Closes with 4001 whoever comes from now on; who is here already may stay."""
        self._draining = reason
        for room in self._rooms.values():
            room.refuse_new(DIAL_AGAIN, reason)

    async def drain(self, reason: str) -> None:
        """Closes all participants with 4001, and whoever comes from now on."""
        self.refuse_new(reason)
        for connection in tuple(self._connections):
            connection.end(DIAL_AGAIN, reason)
        try:
            async with asyncio.timeout(2 * self._settings.close_timeout):
                await self._idle.wait()
        except TimeoutError:
            log.warning("participants still connected after draining", count=len(self._connections))

    async def close(self) -> None:
        """Ends everything: sockets, rooms and what participants have in mediasoup."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        for key in tuple(self._rooms):
            await self._rooms.pop(key).close(DIAL_AGAIN, self._draining or "server stops")
        if self._closing:
            await asyncio.wait(tuple(self._closing))

    # -- rooms -----------------------------------------------------------------------------------------------

    def _open_room(self, hosted: HostedRouter) -> None:
        room = self._rooms[hosted.key] = Room(hosted, self._settings, pace=self._pace, wall_clock=self._clock)
        room.on_left.subscribe(self.on_left.emit)
        if self._draining is not None:
            self._rooms[hosted.key].refuse_new(DIAL_AGAIN, self._draining)
        self._router_changed(hosted)

    def _router_changed(self, hosted: HostedRouter) -> None:
        room = self._rooms.get(hosted.key)
        if room is not None and room.hosted is hosted:
            room.set_leaving(hosted.entry.leaving)

    def _close_room(self, hosted: HostedRouter, reason: str) -> None:
        room = self._rooms.get(hosted.key)
        if room is None or room.hosted is not hosted:
            return
        del self._rooms[hosted.key]
        # Whether the session goes on elsewhere is not known here: the gateway tells who dials again.
        task = asyncio.create_task(room.close(DIAL_AGAIN, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _find(self, request: web.Request, session: str) -> Room:
        named = request.headers.get(ROUTER_HEADER)
        if named is not None:
            room = self._rooms.get(router_key(*_split(named, ROUTER_HEADER)))
            if room is None or _session_of(room.hosted) != session:
                raise _Turned(DIAL_AGAIN, "the router has moved")
            return room
        rooms = [room for room in self._rooms.values() if _session_of(room.hosted) == session]
        if not rooms:
            raise _Turned(DIAL_LATER, "no router of this session here")
        return min(rooms, key=lambda room: (room.leaving, len(room)))

    # -- sockets ---------------------------------------------------------------------------------------------

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Upgrades and serves. Whoever is turned away is told by a close code, not an HTTP status."""
        settings = self._settings
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            heartbeat=settings.ping_interval,
            timeout=settings.close_timeout,
            max_msg_size=settings.max_message_bytes + 1,  # aiohttp refuses from this size on
            compress=False,
        )
        offered = socket.can_prepare(request)
        if not offered.ok:
            return web.Response(status=426, text="WebSocket with sub-protocol protoo expected\n")
        await socket.prepare(request)
        try:
            if offered.protocol != SUBPROTOCOL:
                raise _Turned(ENDED, "sub-protocol protoo expected")
            room, claims = self._authorize(request)
        except _Turned as turned:
            log.info(
                "participant turned away", code=turned.code, reason=turned.reason, **claimed(request.query)
            )
            await socket.close(code=turned.code, message=clip_reason(turned.reason))
            return socket
        await self._serve(request, socket, room, claims)
        return socket

    def _authorize(self, request: web.Request) -> tuple[Room, ParticipantClaims]:
        if self._draining is not None:
            raise _Turned(DIAL_AGAIN, self._draining)
        session = "/".join(_split(request.query.get("roomId", ""), "roomId"))
        peer_id = request.query.get("peerId", "")
        if not peer_id or len(peer_id) > self._settings.max_name_length:
            raise _Turned(ENDED, f"peerId must have 1 to {self._settings.max_name_length} characters")
        room = self._find(request, session)
        try:
            claims = verify(
                request.query.get("token", ""),
                token_keys(room.hosted),
                room.hosted.session.issuers,
                session=session,
                peer_id=peer_id,
                now=self._clock(),
            )
        except TokenError as error:
            raise _Turned(ENDED, f"token refused: {error.reason}") from error
        return room, claims

    async def _serve(
        self, request: web.Request, socket: web.WebSocketResponse, room: Room, claims: ParticipantClaims
    ) -> None:
        async def answer(message: Request) -> Any:
            if participant is None:
                raise Refused(400, "not admitted")
            return await verbs.answer(room, participant, message)

        connection = Connection(socket, answer, self._settings, _abort(request))
        participant = room.admit(claims, connection)
        self._connections.add(connection)
        self._idle.clear()
        timer = asyncio.get_running_loop().call_later(
            self._settings.join_timeout, _end_unless_joined, participant, connection
        )
        ending = Ending(DIAL_AGAIN, "server stops")
        try:
            with structlog.contextvars.bound_contextvars(
                session=claims.session,
                router=f"{room.hosted.entry.namespace}/{room.hosted.entry.name}",
                participant=claims.sub,
            ):
                ending = await connection.run()
                log.info("participant left", code=ending.code, reason=ending.reason)
        finally:
            timer.cancel()
            self._connections.discard(connection)
            if not self._connections:
                self._idle.set()
            if participant is not None:
                room.leave(participant, ending)


def _end_unless_joined(participant: Participant | None, connection: Connection) -> None:
    if participant is not None and not participant.joined:
        connection.end(DIAL_LATER, "no join came in time")


def _abort(request: web.Request) -> Callable[[], None]:
    def abort() -> None:
        transport = request.transport
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    return abort


def _session_of(hosted: HostedRouter) -> str:
    return f"{hosted.entry.namespace}/{hosted.entry.session}"


def _split(name: str, field: str) -> tuple[str, str]:
    namespace, _, rest = name.partition("/")
    if not namespace or not rest or "/" in rest:
        raise _Turned(ENDED, f"{field} must be namespace/name")
    return namespace, rest
