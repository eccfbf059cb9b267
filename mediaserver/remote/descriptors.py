"""This side of a worker's descriptors, as protocols of the event loop, one each and all together."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from io import FileIO
from typing import cast

from mediaserver.mediasoup.framing import FrameWriter
from mediaserver.remote.process import TenantProcess

_UNREAD_REQUESTS = 1024 * 1024
"""Bytes by which the worker may fall behind before nothing more is taken from its application. Each of them
may ask for many: what is already on its way is answered even to an application that reads no answers."""


class RequestWriter(FrameWriter):
    """Descriptor 3, written. Tells when it is congested, or no longer."""

    def __init__(
        self,
        stream: socket.socket,
        on_end: Callable[[Exception | None], None],
        on_congestion: Callable[[], None],
    ) -> None:
        super().__init__(stream, on_end)
        self._on_congestion = on_congestion

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(high=_UNREAD_REQUESTS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._on_congestion()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._on_congestion()


class OutputReader(asyncio.Protocol):
    """Descriptor 1, 2 or 4, read."""

    def __init__(self, on_data: Callable[[bytes], None]) -> None:
        self.data_received = on_data  # type: ignore[method-assign, assignment]  # no call in between
        self.ended = asyncio.Event()
        self._transport: asyncio.ReadTransport | None = None
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.ended.set()

    def read(self, reading: bool) -> None:
        transport = self._transport
        if transport is not None and reading != self._reading and not transport.is_closing():
            self._reading = reading
            if reading:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Descriptors:
    """All of a worker's, from `open` until `close`."""

    def __init__(
        self,
        *,
        on_answers: Callable[[bytes], None],
        on_output: Callable[[bytes], None],
        on_errors: Callable[[bytes], None],
        on_congestion: Callable[[], None],
    ) -> None:
        self.requests: RequestWriter | None = None
        self._on_congestion = on_congestion
        self._readers = [OutputReader(on_answers), OutputReader(on_output), OutputReader(on_errors)]

    @property
    def congested(self) -> bool:
        """Whether the worker reads more slowly than it is written to."""
        return self.requests is not None and self.requests.congested

    async def open(self, process: TenantProcess) -> None:
        """Takes the process's descriptors over. Raises OSError; then `close` closes those that it has."""
        loop = asyncio.get_running_loop()
        answers, output, errors = self._readers
        # That the worker has closed its channel does not matter: its end is another event.
        requests = RequestWriter(process.requests, lambda _: None, self._on_congestion)
        streams: list[socket.socket | FileIO]
        streams = [process.requests, process.answers, process.output, process.errors]
        try:
            await loop.create_connection(lambda: requests, sock=process.requests)
            self.requests = requests
            del streams[0]
            await loop.create_connection(lambda: answers, sock=process.answers)
            del streams[0]
            await loop.connect_read_pipe(lambda: output, process.output)
            del streams[0]
            await loop.connect_read_pipe(lambda: errors, process.errors)
            del streams[0]
        finally:
            for stream in streams:  # which no transport has, to close them with
                stream.close()

    def read(self, reading: bool) -> None:
        for reader in self._readers:
            reader.read(reading)

    async def wait_read(self) -> None:
        """Until all that the worker has said was read: it closed its ends."""
        await asyncio.gather(*(reader.ended.wait() for reader in self._readers))

    def close(self) -> None:
        if self.requests is not None:
            self.requests.close()
        for reader in self._readers:
            reader.close()
