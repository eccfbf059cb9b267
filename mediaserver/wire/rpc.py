"""JSON-RPC 2.0 over one WebSocket, where both sides may call.

``connect`` dials, ``accept`` answers an upgrade; both give a Connection, whose ``run`` must be awaited
by somebody for anything to move. Both sides send a ``heartbeat`` notification every second, so that a
stopped process is noticed although its sockets stay open.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import structlog
from aiohttp import (
    ClientError,
    ClientSession,
    ClientWSTimeout,
    ServerDisconnectedError,
    WSCloseCode,
    WSMessage,
    WSMsgType,
    web,
)
from aiohttp.http import WSMessageTextBytes

from mediaserver.wire import frames, sockets, tls
from mediaserver.wire.errors import (
    ConnectionLost,
    DeadlineExceeded,
    HandshakeFailed,
    PeerSilent,
    ProtocolError,
    RemoteError,
    WireError,
)
from mediaserver.wire.handshakes import dial_problem
from mediaserver.wire.membership import IN_THE_CLEAR, Dial
from mediaserver.wire.methods import Handler, Methods, RpcFailure
from mediaserver.wire.outbox import Outbox, Socket

__all__ = ["Connection", "Handler", "Methods", "RpcFailure", "accept", "connect", "running"]

ResultT = TypeVar("ResultT", bound=msgspec.Struct)

HEARTBEAT = "heartbeat"
MAX_RUNNING = 64
"""Requests of the other side that are handled at the same time; more wait."""
MAX_WAITING = 1024
"""Requests that may wait; one more closes the connection."""
CLOSED_UNANSWERED = (
    "closes the connection without an answer, as one that wants TLS does: if it was started with --tls-dir, "
    "give this side one, too"
)
_CLOSE_SECONDS = 1.0
_REFUSED_SIZE = frames.MAX_MESSAGE_BYTES + 1  # aiohttp refuses from that size on

log = structlog.get_logger()


class _Beat(msgspec.Struct, frozen=True):
    pass


class Connection:
    """One WebSocket with this side's ``methods``; ``name`` says in logs and errors who the other side is.

    When nothing is heard for ``silence`` seconds (None: for ever) the connection is given up; time in
    which this process itself stood still does not count.
    """

    def __init__(
        self,
        socket: Socket,
        methods: Methods,
        *,
        name: str,
        heartbeat: float = 1.0,
        silence: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.socket = socket
        self.name = name
        self.last_heard = clock()
        """By ``clock``, in seconds."""
        self.closed = False
        self._methods = methods
        self._heartbeat = heartbeat
        self._silence = silence
        self._clock = clock
        self._outbox = Outbox(socket)
        self._ids = itertools.count(1)
        self._pending: dict[frames.Id, asyncio.Future[msgspec.Raw]] = {}
        self._waiting: deque[frames.Request] = deque()
        self._handling: set[asyncio.Task[None]] = set()
        self._failure: WireError | None = None
        self._shutting: asyncio.Task[None] | None = None
        self._ran = False

    @property
    def response(self) -> web.StreamResponse:
        """What the handler of an accepted upgrade returns when ``run`` has ended."""
        if not isinstance(self.socket, web.WebSocketResponse):
            raise TypeError(f"{self.name} was dialled, not accepted")
        return self.socket

    @property
    def presented(self) -> frozenset[str] | None:
        """The names in the other side's certificate; None: there is none, since there is no TLS."""
        return tls.presented(self.socket)

    # -- calling --------------------------------------------------------------------------------------

    async def call(
        self, method: str, params: msgspec.Struct, result: type[ResultT], *, timeout: float = 5.0
    ) -> ResultT:
        """Call the other side and wait for its answer, ``timeout`` seconds at most.

        Raises DeadlineExceeded, ConnectionLost, RemoteError (its error), ProtocolError (an answer that
        is no ``result``, or params that are too large).
        """
        if self.closed:
            raise ConnectionLost(f"{self.name}: {self._reason()}")
        ident = next(self._ids)
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._send(frames.encode_request(ident, method, params))
        self._pending[ident] = future
        try:
            async with asyncio.timeout(timeout):
                answer = await future
        except TimeoutError as error:
            raise DeadlineExceeded(method, timeout) from error
        finally:
            del self._pending[ident]
        try:
            return msgspec.json.decode(answer, type=result)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"{self.name}: answer to {method}: {error}") from error

    def notify(self, method: str, params: msgspec.Struct) -> None:
        """Queue a notification. On a closed connection nothing happens; ``run`` tells its end.

        When too much waits already the connection is closed. Raises ProtocolError when it is too large.
        """
        message = frames.encode_notification(method, params)
        if not self.closed:
            self._send(message, quiet=True)

    def _send(self, message: bytes, *, quiet: bool = False) -> None:
        try:
            self._outbox.put(message)
        except ConnectionLost as error:
            self._fail(error, WSCloseCode.POLICY_VIOLATION)
            if not quiet:
                raise

    # -- life -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read, answer and beat until the connection ends; every task of it has ended then, too.

        Returns when this side closed it. Raises ConnectionLost when the other side closed it, fell silent
        or is gone, ProtocolError when it sent what cannot be read. May be called once.
        """
        if self._ran:
            raise RuntimeError("run() was called before")
        self._ran = True
        own = [asyncio.create_task(self._guard(work)) for work in (self._outbox.run, self._beat)]
        try:
            await self._read()
        finally:
            tasks = [*own, *self._handling]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._shut(WSCloseCode.GOING_AWAY, "", patience=_CLOSE_SECONDS)
        if self._failure is not None:
            raise self._failure

    async def close(self, code: int = WSCloseCode.OK, reason: str = "") -> None:
        """Send what waits, say why in a close frame, and end. Takes about a second at most."""
        if not self.closed and self._ran:
            self.closed = True
            await self._outbox.flush(_CLOSE_SECONDS)
        await self._shut(code, reason, patience=_CLOSE_SECONDS)

    def _fail(self, error: WireError, code: int, *, patience: float = _CLOSE_SECONDS) -> None:
        """End the connection because of ``error``, which ``run`` raises."""
        if self._failure is None and not self.closed:
            self._failure = error
            self.closed = True
            self._start_shutting(code, str(error), patience)

    async def _shut(self, code: int, reason: str, *, patience: float) -> None:
        await asyncio.shield(self._start_shutting(code, reason, patience))

    def _start_shutting(self, code: int, reason: str, patience: float) -> asyncio.Task[None]:
        self.closed = True
        if self._shutting is None:
            self._shutting = asyncio.create_task(sockets.close(self.socket, code, reason, patience))
            for future in self._pending.values():
                if not future.done():
                    future.set_exception(ConnectionLost(f"{self.name}: {self._reason()}"))
        return self._shutting

    def _reason(self) -> str:
        return "closed by this side" if self._failure is None else str(self._failure)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except WireError as error:
            self._fail(error, WSCloseCode.GOING_AWAY, patience=0.2)

    # -- reading --------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while self._failure is None:
            try:
                message = await self.socket.receive()
            except (ClientError, OSError) as error:
                broken = ConnectionLost(f"{self.name}: {str(error) or type(error).__name__}")
                broken.__cause__ = error
                self._fail(broken, WSCloseCode.ABNORMAL_CLOSURE)
                return
            if message.type is not WSMsgType.TEXT:
                self._note_end(message)
                return
            self.last_heard = self._clock()
            try:
                self._take(message.data)
            except ProtocolError as error:
                self._fail(ProtocolError(f"{self.name}: {error}"), WSCloseCode.PROTOCOL_ERROR)

    def _note_end(self, message: WSMessage | WSMessageTextBytes) -> None:
        """The WebSocket ended, or brought what is no text; nothing to note when this side closed it."""
        error: WireError
        code = self.socket.close_code
        if message.type is WSMsgType.BINARY:
            error, code = ProtocolError(f"{self.name}: a binary message"), WSCloseCode.UNSUPPORTED_DATA
        elif message.type is WSMsgType.ERROR:
            error = ProtocolError(f"{self.name}: {message.data}")
        elif message.type is WSMsgType.CLOSE:
            reason = str(message.extra or "").strip() or "without a reason"
            error = ConnectionLost(f"{self.name} closed the connection: {reason} ({code})", code)
        else:
            error = ConnectionLost(f"{self.name}: the connection broke")
        self._fail(error, code or WSCloseCode.ABNORMAL_CLOSURE)

    def _take(self, message: bytes | str) -> None:
        frame = frames.decode(message)
        if isinstance(frame, frames.Response):
            self._settle(frame)
        elif isinstance(frame, frames.Request):
            self._start(frame)
        elif frame.method != HEARTBEAT:
            self._methods.notified(frame)

    def _settle(self, response: frames.Response) -> None:
        future = self._pending.get(response.id) if response.id is not None else None
        if future is None or future.done():
            return  # the answer to a call that was given up
        if response.error is not None:
            error = response.error
            future.set_exception(RemoteError(error.code, error.message, error.data))
        elif response.result is not None:
            future.set_result(response.result)

    # -- answering ------------------------------------------------------------------------------------

    def _start(self, request: frames.Request) -> None:
        if self.closed:
            return
        if len(self._handling) < MAX_RUNNING:
            task = asyncio.create_task(self._handle(request))
            self._handling.add(task)
            task.add_done_callback(self._handled)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(request)
        else:
            raise ProtocolError(f"flooded by requests: {MAX_RUNNING} are handled, {MAX_WAITING} wait")

    def _handled(self, task: asyncio.Task[None]) -> None:
        self._handling.discard(task)
        if self._waiting:
            self._start(self._waiting.popleft())

    async def _handle(self, request: frames.Request) -> None:
        failure: RpcFailure | None = None
        try:
            answer = frames.encode_result(request.id, await self._methods.answer(request))
        except RpcFailure as error:
            failure = error
            answer = frames.encode_error(request.id, error.code, error.message, error.data)
        except Exception:  # the caller gets an answer whatever a handler raises
            log.exception("a request could not be handled", method=request.method, other=self.name)
            answer = frames.encode_error(request.id, frames.INTERNAL_ERROR, "internal error")
        if not self.closed:
            self._send(answer, quiet=True)
        if failure is not None and failure.close:
            await self.close(WSCloseCode.POLICY_VIOLATION, failure.message)

    # -- heartbeat ------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Send heartbeats and watch for silence."""
        loop = asyncio.get_running_loop()
        tick = self._heartbeat if self._silence is None else min(self._heartbeat, self._silence / 5)
        excused = self._clock()
        sent, due = -self._heartbeat, loop.time()
        while True:
            now = loop.time()
            if now - due > tick:  # this process stood still: what came meanwhile is not read yet
                excused = self._clock()
            if now - sent >= self._heartbeat:
                self.notify(HEARTBEAT, _Beat())
                sent = now
            if self._silence is not None:
                quiet = self._clock() - max(self.last_heard, excused)
                if quiet > self._silence:
                    raise PeerSilent(f"nothing heard from {self.name} for {quiet:.1f} s")
            due = now + tick
            await asyncio.sleep(tick)


async def connect(
    session: ClientSession,
    url: str,
    methods: Methods,
    *,
    name: str,
    dial: Dial = IN_THE_CLEAR,
    timeout: float = 5.0,
    heartbeat: float = 1.0,
    silence: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Connection:
    """Dial ``url`` (which ``dial`` made), ``timeout`` seconds at most. Raises ConnectionLost.

    That is HandshakeFailed when TLS, or the lack of it, is why.
    """
    try:
        async with asyncio.timeout(timeout):
            socket = await session.ws_connect(
                url,
                timeout=ClientWSTimeout(ws_close=_CLOSE_SECONDS),
                max_msg_size=_REFUSED_SIZE,
                decode_text=False,
                ssl=True if dial.context is None else dial.context,
                server_hostname=dial.server_name,
            )
    except TimeoutError as error:
        raise ConnectionLost(f"{name} at {url} did not answer within {timeout:g} s") from error
    except (ClientError, OSError, ValueError) as error:
        problem = dial_problem(error, dial)
        if problem is not None:
            raise HandshakeFailed(f"{name} at {url}", problem) from error
        if isinstance(error, ServerDisconnectedError):
            raise ConnectionLost(f"{name} at {url} {CLOSED_UNANSWERED}") from error
        raise ConnectionLost(f"{name} at {url}: {str(error) or type(error).__name__}") from error
    return Connection(socket, methods, name=name, heartbeat=heartbeat, silence=silence, clock=clock)


async def accept(
    request: web.Request,
    methods: Methods,
    *,
    name: str,
    heartbeat: float = 1.0,
    silence: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Connection:
    """Upgrade ``request``. The handler awaits ``run`` and then returns the connection's ``response``."""
    socket = web.WebSocketResponse(
        timeout=_CLOSE_SECONDS, max_msg_size=_REFUSED_SIZE, compress=False, decode_text=False
    )
    await socket.prepare(request)
    return Connection(socket, methods, name=name, heartbeat=heartbeat, silence=silence, clock=clock)


@asynccontextmanager
async def running(connection: Connection) -> AsyncIterator[Connection]:
    """Run ``connection`` beside the block and close it at the block's end.

    How it ended is not told here: calls raise ConnectionLost, and who must know awaits ``run`` himself.
    """
    task = asyncio.create_task(connection.run())
    try:
        yield connection
    finally:
        await connection.close()
        await asyncio.gather(task, return_exceptions=True)
