"""The two byte streams between us and a worker: messages in (fd 4), messages out (fd 3)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Final, cast

from .flatbuffer import U32
from .messages import MAX_MESSAGE

_FIRST_BUFFER: Final = 256 * 1024
_MINIMUM_MESSAGE: Final = 8
_MAXIMUM_MESSAGE: Final = MAX_MESSAGE - 4
_read_size: Final = U32.unpack_from
WRITE_LIMIT: Final = 8 * 1024 * 1024
"""Bytes by which the worker may fall behind in reading before new requests are refused."""


class FrameError(ValueError):
    """The stream can't be cut into messages."""


class FrameReader(asyncio.BufferedProtocol):
    """Cuts the worker's stream into messages (size prefixes removed) without copying it twice."""

    def __init__(
        self,
        on_message: Callable[[bytes], None],
        on_error: Callable[[FrameError], None],
        on_end: Callable[[Exception | None], None],
    ) -> None:
        self._on_message = on_message
        self._on_error = on_error
        self._on_end = on_end
        self._buffer = bytearray(_FIRST_BUFFER)
        self._view = memoryview(self._buffer)
        self._end = 0
        self._transport: asyncio.BaseTransport | None = None
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._end :] if self._end else self._view

    def buffer_updated(self, nbytes: int) -> None:
        end = self._end = self._end + nbytes
        start = 0
        while end - start >= 4 and not self.stopped:
            size: int = _read_size(self._buffer, start)[0]
            if not _MINIMUM_MESSAGE <= size <= _MAXIMUM_MESSAGE:
                self._fail(FrameError(f"its size prefix says {size} bytes"))
                return
            stop = start + 4 + size
            if stop > end:
                self._make_room(start, 4 + size)
                return
            self._on_message(bytes(self._view[start + 4 : stop]))
            start = stop
        if self.stopped or (start == end and len(self._buffer) == _FIRST_BUFFER):
            self._end = 0  # all read, or dropped
        else:
            self._make_room(start, 4)

    def _make_room(self, start: int, needed: int) -> None:
        """Moves the incomplete message at `start` to the front of a buffer that it fits into."""
        rest = self._end - start
        size = len(self._buffer)
        if needed > size or (size > _FIRST_BUFFER and needed <= _FIRST_BUFFER // 2):
            buffer = bytearray(max(_FIRST_BUFFER, 2 * needed))
            buffer[:rest] = self._view[start : self._end]
            self._buffer, self._view = buffer, memoryview(buffer)
        elif start:
            self._view[:rest] = bytes(self._view[start : self._end])
        self._end = rest

    def stop(self) -> None:
        """Whatever still comes is dropped."""
        self.stopped = True

    def close(self) -> None:
        """Stops and closes the stream."""
        self.stop()
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: FrameError) -> None:
        self.stopped = True
        self._end = 0
        self._on_error(error)

    def eof_received(self) -> bool:
        if self._end and not self.stopped:
            self._fail(FrameError(f"the stream ended {self._end} bytes into it"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end(exc)


class FrameWriter(asyncio.Protocol):
    """Collects messages and sends them once per turn of the event loop.

    While the transport has nothing left to send, messages go into the socket straight away: that costs a
    system call as it does there, and nothing besides.
    """

    def __init__(self, stream: socket.socket, on_end: Callable[[Exception | None], None]) -> None:
        self._stream = stream
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._waiting: list[bytes] = []
        self.congested = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not an isinstance: uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)

    def pause_writing(self) -> None:
        self.congested = True

    def resume_writing(self) -> None:
        self.congested = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_end(exc)

    def write(self, message: bytes) -> None:
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(message)

    def write_now(self, message: bytes) -> None:
        """Sends at once, unless others wait."""
        if self._waiting:
            self._waiting.append(message)
        else:
            self._send(message)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._send(waiting[0] if len(waiting) == 1 else b"".join(waiting))

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if not transport.get_write_buffer_size():
            try:
                sent = self._stream.send(data)
            except OSError:
                sent = 0  # full, or broken, which the transport finds as well
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def close(self) -> None:
        """Sends what waits, then closes."""
        self._flush()
        if self._transport is not None:
            self._transport.close()
