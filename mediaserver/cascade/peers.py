"""Connections to the other media servers: one for each, shared by all links to it.

The server whose `namespace/name` is the smaller one dials, and dials again with growing pauses for as
long as some link needs the other. Silence of a peer ends its connection, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog
from aiohttp import ClientSession, web

from mediaserver.cascade.far import FarEnd, NearEnd, Notice
from mediaserver.cascade.greeting import GREETING_SECONDS, Accepting, Dialling, Identity, Other, Process
from mediaserver.cascade.messages import (
    ERROR_NOT_READY,
    ClosePipe,
    LinkName,
    OpenPipe,
    PeerHello,
    PeerWelcome,
    PipeCounters,
    PipeOpened,
    ResumePipe,
    Routes,
    WantPipe,
)
from mediaserver.control.contract import PEER_PATH, Address, Challenge, Empty, PeerAge
from mediaserver.wire import rpc, tls
from mediaserver.wire.errors import ConnectionLost, WireError
from mediaserver.wire.membership import Credential, Dial
from mediaserver.wire.rpc import Connection, Methods, RpcFailure

log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0
"""Seconds between two dials."""
DIAL_SECONDS = 2.0
HEARTBEAT = 0.5

NearEndT = TypeVar("NearEndT", bound=NearEnd)

_NOTICES: dict[type[Notice], str] = {
    WantPipe: "pipe.wanted",
    ClosePipe: "pipe.close",
    PipeCounters: "pipe.counters",
    Routes: "routes",
}


class Peer:
    """Another media server: its connection, if there is one, and the ends of the links to it."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.address: Address | None = None
        self.connection: Connection | None = None
        self.instance_id = ""
        self.pipe_protocol = 0
        self.problem = "not connected yet"
        self.last_heard: float | None = None
        self.ends: dict[LinkName, NearEnd] = {}
        self.dialling: asyncio.Task[None] | None = None

    def connected(self, connection: Connection, other: Other) -> Connection | None:
        """Use ``connection`` from now on; returns the one that it takes the place of."""
        old = self.connection
        if old is not None:
            self.disconnected(old, "it has dialled again")
        same = other.instance_id == self.instance_id
        self.connection = connection
        self.instance_id, self.pipe_protocol = other.instance_id, other.pipe_protocol
        log.info("peer connected", server=self.server, instance=other.instance_id, same_instance=same)
        for end in list(self.ends.values()):
            end.far_up(same_instance=same)
        return old

    def disconnected(self, connection: Connection, reason: str) -> None:
        if self.connection is not connection:
            return
        self.last_heard = connection.last_heard
        self.connection = None
        self.failed(reason)
        log.info("peer lost", server=self.server, reason=reason)

    def failed(self, reason: str) -> None:
        """It can't be talked to, for this reason."""
        self.problem = f"{self.server}: {reason}"
        for end in list(self.ends.values()):
            end.far_down(self.problem)

    def age(self, now: float) -> float | None:
        """Seconds since anything was heard from it; None: never."""
        last = self.connection.last_heard if self.connection is not None else self.last_heard
        return None if last is None else max(0.0, now - last)


class RemoteEnd:
    """The far end of a link, on another server (a FarEnd)."""

    def __init__(self, peer: Peer, drop: Callable[[], None]) -> None:
        self._peer = peer
        self._drop = drop

    @property
    def connected(self) -> bool:
        return self._peer.connection is not None

    @property
    def problem(self) -> str:
        return self._peer.problem

    @property
    def pipe_protocol(self) -> int:
        return self._peer.pipe_protocol

    async def open(self, request: OpenPipe, timeout: float) -> PipeOpened:
        return await self._connection().call("pipe.open", request, PipeOpened, timeout=timeout)

    async def resume(self, request: ResumePipe, timeout: float) -> None:
        await self._connection().call("pipe.resume", request, Empty, timeout=timeout)

    def notice(self, notice: Notice) -> None:
        if self._peer.connection is not None:
            self._peer.connection.notify(_NOTICES[type(notice)], notice)

    def close(self) -> None:
        self._drop()

    def _connection(self) -> Connection:
        if self._peer.connection is None:
            raise ConnectionLost(self._peer.problem)
        return self._peer.connection


class PeerLinks:
    """Owns every connection to another server until `close`."""

    def __init__(
        self,
        *,
        process: Process,
        credential: Credential,
        silence: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._process = process
        self._credential = credential
        self._silence = silence
        self._clock = clock
        self._identity: Identity | None = None
        self._peers: dict[str, Peer] = {}
        self._session: ClientSession | None = None
        self._accepted: set[Connection] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def identity(self) -> Identity | None:
        return self._identity

    def identify(self, identity: Identity) -> None:
        """Who this server is; from now on it dials, and answers to that name."""
        if identity == self._identity:
            return
        self._identity = identity
        for peer in self._peers.values():
            self._stop_dialling(peer)
            self._start_dialling(peer)

    def join(
        self, server: str, address: Address, name: LinkName, make: Callable[[FarEnd], NearEndT]
    ) -> NearEndT:
        """The near end of a link to ``server``, which ``make`` makes for the far one.

        It hears what the other server says about the link, until it closes the far end; the last one
        closed lets the connection go.
        """
        peer = self._peers.setdefault(server, Peer(server))
        peer.address = address

        def drop() -> None:
            if peer.ends.get(name) is end:
                del peer.ends[name]
            if not peer.ends:
                self._stop_dialling(peer)
                self._forget_idle(peer)

        end = make(RemoteEnd(peer, drop))
        peer.ends[name] = end
        self._start_dialling(peer)
        if peer.connection is not None:
            end.far_up(same_instance=True)
        return end

    def ages(self) -> list[PeerAge]:
        """Of every server that links lead to and that was ever heard."""
        now = self._clock()
        ages = []
        for peer in sorted(self._peers.values(), key=lambda peer: peer.server):
            age = peer.age(now)
            if age is not None and (peer.ends or peer.connection is not None):
                ages.append(PeerAge(server=peer.server, instance_id=peer.instance_id, age=age))
        return ages

    async def accept(self, request: web.Request) -> web.StreamResponse:
        """Serve `/peer` until the connection ends."""
        accepting = Accepting(self._credential, self._identity, self._process, tls.presented(request))
        served: list[Peer] = []
        methods = Methods()
        connection = await rpc.accept(
            request,
            methods,
            name=f"peer {request.remote}",
            heartbeat=HEARTBEAT,
            silence=self._connection_silence(),
            clock=self._clock,
        )

        async def hello(message: PeerHello) -> PeerWelcome:
            if served:
                raise RpcFailure(ERROR_NOT_READY, "hello was said before", close=True)
            other, welcome = accepting.answer(message)
            connection.name = f"peer {other.server}"
            peer = self._peers.setdefault(other.server, Peer(other.server))
            served.append(peer)
            self._answer_links(methods, peer)
            old = peer.connected(connection, other)
            if old is not None:
                self._end(old, "dialled again")
            return welcome

        methods.on("hello", PeerHello, hello)
        connection.notify("challenge", Challenge(nonce=accepting.nonce))
        self._accepted.add(connection)
        give_up = asyncio.get_running_loop().call_later(
            GREETING_SECONDS, lambda: None if served else self._end(connection, "no hello")
        )
        reason = "the connection was closed"
        try:
            await connection.run()
        except WireError as error:
            reason = str(error)
        finally:
            give_up.cancel()
            self._accepted.discard(connection)
            for peer in served:
                peer.disconnected(connection, reason)
                self._forget_idle(peer)
        return connection.response

    async def close(self) -> None:
        """End every connection and dial no more. Idempotent."""
        self._closed = True
        for peer in self._peers.values():
            self._stop_dialling(peer)
        for connection in tuple(self._accepted):
            self._end(connection, "the media server stops")
        while self._ending:
            await asyncio.gather(*self._ending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- dialling --

    def _start_dialling(self, peer: Peer) -> None:
        own = self._identity
        if own is None or self._closed or peer.dialling is not None or not peer.ends:
            return
        if own.server_name < peer.server:
            peer.dialling = asyncio.create_task(self._dial(peer, own), name=f"peer {peer.server}")

    def _stop_dialling(self, peer: Peer) -> None:
        if peer.dialling is not None:
            peer.dialling.cancel()
            self._await_end(peer.dialling)
            peer.dialling = None

    async def _dial(self, peer: Peer, own: Identity) -> None:
        """Keep a connection to the peer until cancelled."""
        failures = 0
        try:
            while True:
                try:
                    reason = await self._dial_once(peer, own)
                    failures = 0
                except WireError as error:
                    reason = str(error)
                    if peer.problem != f"{peer.server}: {reason}":
                        log.info("peer not reached", server=peer.server, reason=reason)
                peer.failed(reason)
                failures += 1
                await asyncio.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10)))
        finally:
            self._forget_idle(peer)

    async def _dial_once(self, peer: Peer, own: Identity) -> str:
        """One connection, from dial to end; why it ended. Raises WireError if it was never of use."""
        methods = Methods()
        dialling = Dialling(methods)
        greeted = asyncio.Event()
        self._answer_links(methods, peer, greeted)
        dial = self._credential.dial(self._credential.peer_name)
        connection = await rpc.connect(
            self._client(),
            _url(peer, dial),
            methods,
            dial=dial,
            name=f"peer {peer.server}",
            timeout=DIAL_SECONDS,
            heartbeat=HEARTBEAT,
            silence=self._connection_silence(),
            clock=self._clock,
        )
        running = asyncio.create_task(connection.run())
        reason = "the connection was closed"
        try:
            other = await dialling.greet(connection, self._credential, own, self._process, peer.server)
            peer.connected(connection, other)
            greeted.set()
            await asyncio.wait({running})
            if (error := running.exception()) is not None:
                reason = str(error)
            return reason
        finally:
            peer.disconnected(connection, reason)
            await connection.close()
            await asyncio.gather(running, return_exceptions=True)

    def _client(self) -> ClientSession:
        if self._session is None:
            self._session = ClientSession()
        return self._session

    def _connection_silence(self) -> float:
        """Shorter than the silence after which the operator may count a server as lost."""
        return max(1.0, 0.8 * self._silence())

    # -- answering --

    def _answer_links(self, methods: Methods, peer: Peer, greeted: asyncio.Event | None = None) -> None:
        """Answer what the peer's links say; before ``greeted`` requests wait and notices are lost."""

        async def ready() -> None:
            try:
                async with asyncio.timeout(GREETING_SECONDS):
                    if greeted is not None:
                        await greeted.wait()
            except TimeoutError as error:
                raise RpcFailure(ERROR_NOT_READY, "the greeting has not ended") from error

        async def opened(request: OpenPipe) -> PipeOpened:
            await ready()
            return await _end_of(peer, request.link).opened(request)

        async def resumed(request: ResumePipe) -> Empty:
            await ready()
            await _end_of(peer, request.link).resumed(request)
            return Empty()

        def noticed(notice: Notice) -> None:
            end = peer.ends.get(notice.link)
            if end is not None and (greeted is None or greeted.is_set()):
                end.noticed(notice)

        methods.on("pipe.open", OpenPipe, opened)
        methods.on("pipe.resume", ResumePipe, resumed)
        for kind, method in _NOTICES.items():
            methods.on_notification(method, kind, noticed)

    # -- ends --

    def _forget_idle(self, peer: Peer) -> None:
        if not peer.ends and peer.connection is None and self._peers.get(peer.server) is peer:
            del self._peers[peer.server]

    def _end(self, connection: Connection, reason: str) -> None:
        self._await_end(asyncio.create_task(connection.close(reason=reason)))

    def _await_end(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _url(peer: Peer, dial: Dial) -> str:
    address = peer.address
    if address is None:
        raise ConnectionLost("its address is not known")
    host = f"[{address.host}]" if ":" in address.host else address.host
    return dial.url(f"{host}:{address.port}", PEER_PATH)


def _end_of(peer: Peer, name: LinkName) -> NearEnd:
    """Raises RpcFailure, to be tried again: the operator tells servers of a link one after the other."""
    end = peer.ends.get(name)
    if end is None:
        message = f"no link of {name.namespace}/{name.first} and {name.second} here (yet)"
        raise RpcFailure(ERROR_NOT_READY, message)
    return end
