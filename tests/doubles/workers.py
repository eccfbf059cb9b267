"""A media server's `/worker` that runs no worker: it answers handshakes as told, then echoes what comes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from mediaserver import shim
from mediaserver.control.contract import Address

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_key(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def parse_head(head: bytes) -> tuple[str, list[tuple[str, str]]]:
    """First line and headers of a request or an answer."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    return first, [(name, value) for name, _, value in pairs]


@dataclass(eq=False)
class WorkerDial:
    """One connection as the server saw it."""

    request: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    received: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(found) < 2, found
        return found[0] if found else None


def refusal(status: int, text: str, *, final: bool = False, kind: str = "text/plain") -> bytes:
    """An answer that does not take the worker."""
    body = text.encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}; charset=utf-8", f"Content-Length: {len(body)}"]
    if final:
        lines.append(f"{shim.FINAL_HEADER}: true")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class FakeWorkers:
    """``async with`` it. ``dials`` are the connections that asked for a worker."""

    def __init__(self, secured: ssl.SSLContext | None = None) -> None:
        """``secured``: by TLS, as that says."""
        self._secured = secured
        self.dials: list[WorkerDial] = []
        self.answer: bytes | Callable[[WorkerDial], bytes] | None = None
        """Instead of an acceptance; the connection is closed behind it. Empty: without a word."""
        self.hang = False
        """Do not answer at all."""
        self.beside = b""
        """What is sent in one piece with the acceptance."""
        self.reading = asyncio.Event()
        """Cleared: what comes after the acceptance is not read."""
        self.reading.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._arrived = asyncio.Event()

    @property
    def address(self) -> Address:
        return Address(host="127.0.0.1", port=self._port)

    @property
    def received(self) -> int:
        """Bytes, behind the handshakes."""
        return sum(dial.received for dial in self.dials)

    async def __aenter__(self) -> FakeWorkers:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self._secured)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As a process that dies."""
        self.reading.set()
        if self._server is not None:
            self._server.close()
            self._server = None
        for dial in self.dials:
            dial.writer.transport.abort()

    async def dial(self, count: int = 1) -> WorkerDial:
        """The connection that came as number ``count``, waiting for it."""
        async with asyncio.timeout(5):
            while len(self.dials) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.dials[count - 1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            request, headers = parse_head(await reader.readuntil(b"\r\n\r\n"))
            dial = WorkerDial(request, headers, reader, writer)
            self.dials.append(dial)
            self._arrived.set()
            try:
                await self._answer(dial)
            finally:
                writer.close()
                dial.ended.set()

    async def _answer(self, dial: WorkerDial) -> None:
        if self.hang:
            await dial.reader.read()
            return
        if self.answer is not None:
            dial.writer.write(self.answer(dial) if callable(self.answer) else self.answer)
            await dial.writer.drain()
            return
        accept = accept_key(dial.header("Sec-WebSocket-Key") or "")
        head = f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        dial.writer.write(head.encode() + self.beside)
        while True:
            await self.reading.wait()
            data = await dial.reader.read(65536)
            if not data:
                return
            dial.received += len(data)
            dial.writer.write(data)
            await dial.writer.drain()
