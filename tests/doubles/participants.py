"""A media server's participants listener that speaks no signalling: it echoes, and does what it is told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from mediaserver.control.contract import Address
from mediaserver.wire import sockets
from mediaserver.wire.listen import ListenAddress, Listener, listen


@dataclass
class Arrival:
    """One participant's socket as the server saw it."""

    path: str
    query: Mapping[str, str]
    router: str | None
    socket: web.WebSocketResponse
    received: list[str | bytes] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    code: int | None = None
    """The close code that came; 1006 for a connection that broke."""


class FakeParticipants:
    """``async with`` it; ``arrivals`` are those who came. Text `close CODE REASON` makes it close."""

    def __init__(self, secured: ssl.SSLContext | None = None) -> None:
        """``secured``: by TLS, as that says."""
        self._secured = secured
        self.arrivals: list[Arrival] = []
        self.refuse = False
        """Answer 503 instead of an upgrade."""
        self.hang = False
        """Do not answer at all."""
        self._listener: Listener | None = None
        self._arrived = asyncio.Event()

    @property
    def address(self) -> Address:
        assert self._listener is not None
        return Address(host=self._listener.address.host, port=self._listener.address.port)

    async def __aenter__(self) -> FakeParticipants:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._handle)
        self._listener = await listen(app, ListenAddress("127.0.0.1", 0), secured=self._secured)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """As a process that dies: every connection is cut."""
        for arrival in self.arrivals:
            if not arrival.ended.is_set():
                await sockets.cut(arrival.socket)
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    async def arrival(self, count: int = 1) -> Arrival:
        """The participant that came as number ``count``, waiting for it."""
        async with asyncio.timeout(5):
            while len(self.arrivals) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.arrivals[count - 1]

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if self.hang:
            await asyncio.Event().wait()
        if self.refuse:
            return web.Response(status=503)
        socket = web.WebSocketResponse(protocols=("protoo",), timeout=1)
        await socket.prepare(request)
        arrival = Arrival(request.path, dict(request.query), request.headers.get("X-Mafalda-Router"), socket)
        self.arrivals.append(arrival)
        self._arrived.set()
        async for message in socket:
            arrival.received.append(message.data)
            if message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data.startswith("close "):
                _, code, reason = message.data.split(" ", 2)
                await socket.close(code=int(code), message=reason.encode())
            else:
                await socket.send_str(message.data)
        arrival.code = socket.close_code or WSCloseCode.ABNORMAL_CLOSURE
        arrival.ended.set()
        return socket
