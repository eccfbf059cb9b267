"""This side of a worker's descriptors, as protocols of the event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from mediaserver.mediasoup.framing import FrameWriter


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
