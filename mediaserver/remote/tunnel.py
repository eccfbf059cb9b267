"""One connection of an application's worker: WebSocket messages in and out, straight from the transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, cast

from mediaserver import shim
from mediaserver.wire.close_codes import clip_reason

_GOING_AWAY = 1001
_PROTOCOL_ERROR = 1002
_GOODBYE_SECONDS = 2.0
_UNREAD_PONGS = 64 * 1024
"""Bytes unsent above which pings are not answered: whoever does not read misses nothing."""


class Tunnel(asyncio.Protocol):
    """Greets by one text message each way, then carries records until `lost`.

    Whoever has it sets `on_record` before it says welcome. `closed` is set once the connection is gone.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.heard = self.said = clock()
        """When the last byte came, and the last record went."""
        self.closed = asyncio.Event()
        self.on_record: Callable[[bytes], None] | None = None
        self.on_lost: Callable[[str], None] | None = None
        self._clock = clock
        self._frames = shim.Frames(client=False)
        self._transport: asyncio.Transport | None = None
        self._hello: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._reason = "the application closed the connection"
        self._reading = True
        self._goodbye: asyncio.TimerHandle | None = None

    # -- the transport's side -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard = self._clock()
        try:
            for opcode, payload in self._frames.feed(data):
                if opcode == shim.BINARY and self.on_record is not None:
                    self.on_record(payload)
                else:
                    self._other(opcode, payload)
        except shim.TunnelError as error:
            self.close(str(error), code=_PROTOCOL_ERROR)

    def _other(self, opcode: int, payload: bytes) -> None:
        if opcode == shim.PING:
            if self._transport is not None and self._transport.get_write_buffer_size() < _UNREAD_PONGS:
                self._write(shim.PONG, payload)
        elif opcode == shim.CLOSE:
            self.close("the application said goodbye")
        elif opcode == shim.TEXT and not self._hello.done():
            if len(payload) > shim.HELLO_LIMIT:
                raise shim.TunnelError(f"a hello of more than {shim.HELLO_LIMIT} bytes")
            self._hello.set_result(_parse(payload))
        elif opcode != shim.PONG:
            raise shim.TunnelError(f"a message of opcode {opcode} has no place here")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._goodbye is not None:
            self._goodbye.cancel()
        self.closed.set()
        if not self._hello.done():
            self._hello.set_exception(shim.TunnelError(self._reason))
            self._hello.exception()  # nobody may be waiting for it
        if self.on_lost is not None:
            on_lost, self.on_lost = self.on_lost, None
            on_lost(self._reason)

    # -- this server's side ---------------------------------------------------------------------------

    async def hello(self, seconds: float) -> dict[str, Any]:
        """The application's first message. Raises TunnelError."""
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._hello)
        except TimeoutError as error:
            raise shim.TunnelError(f"no hello within {seconds:g} s") from error

    def welcome(self, message: dict[str, Any]) -> None:
        """This server's first message."""
        self._write(shim.TEXT, json.dumps(message).encode())

    def send(self, record: bytes) -> None:
        """One record; dropped when the connection is gone, since records are kept until acknowledged."""
        self.said = self._clock()
        self._write(shim.BINARY, record)

    def _write(self, opcode: int, payload: bytes) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(self._frames.encode(opcode, payload))

    def read(self, reading: bool) -> None:
        """Whether the application's messages are taken; not, while the worker lags behind."""
        if self._transport is None or reading == self._reading:
            return
        self._reading = reading
        if reading:
            self.heard = self._clock()
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    @property
    def reading(self) -> bool:
        return self._reading

    def close(self, reason: str, *, code: int = _GOING_AWAY) -> None:
        """Says goodbye, sends what waits, and closes. Idempotent."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._reason = reason
        transport.write(self._frames.encode(shim.CLOSE, code.to_bytes(2, "big") + clip_reason(reason)))
        transport.close()
        # A goodbye that nobody reads must not keep the connection.
        self._goodbye = asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, transport.abort)

    def abort(self, reason: str) -> None:
        """Cuts the connection, whatever waits. Idempotent."""
        if self._transport is not None:
            self._reason = reason
            self._transport.abort()


def _parse(payload: bytes) -> dict[str, Any]:
    try:
        hello = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise shim.TunnelError(f"a hello that is no JSON: {error}") from error
    if not isinstance(hello, dict):
        raise shim.TunnelError("a hello that is no JSON object")
    return hello
