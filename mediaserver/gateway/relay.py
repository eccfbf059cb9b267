"""Bytes both ways between two connections, as they come: what an application and its worker say.

Nothing is looked at and no task runs: what one transport reads the other one writes, in the same turn of the
event loop. A side that does not take what waits for it keeps the other one from being read.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Literal, cast

from mediaserver.wire.upgrade import set_no_delay

End = Literal["application", "server", "gateway"]

HIGH_WATER = 64 * 1024
"""Bytes that wait to be written to a side before the other one is not read any more."""
FLUSH_SECONDS = 10.0
"""How long what waits to be written to a side has, once the other side has ended."""
STOP_SECONDS = 0.5
"""The same when the gateway stops: the connection is dialled again then, and what is missing sent again."""

# For a side that has vanished without a word. Application and media server notice that sooner by themselves.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class Relay:
    """Carries from ``start`` until either side ends; a side that closes half has ended.

    Before, ``application`` and ``server`` must have become the protocols of their connections, and have been
    told so by ``connection_made``.
    """

    def __init__(self) -> None:
        self.ended: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        """Done when both connections are gone: by whom it was ended."""
        self.application = Side(self, "application")
        self.server = Side(self, "server")
        self.application.other, self.server.other = self.server, self.application
        self._by: End | None = None
        self._cutting: asyncio.TimerHandle | None = None

    def start(self, rest: bytes) -> None:
        """Begin to read from the server; ``rest`` was read already."""
        if rest:
            self.application.transport.write(rest)
        if not self.server.transport.is_closing():
            self.server.transport.resume_reading()

    def end(self, by: End = "gateway") -> None:
        """Close both connections; cut those that do not take what waits for them. The first call counts."""
        if self._by is not None:
            return
        self._by = by
        patience = STOP_SECONDS if by == "gateway" else FLUSH_SECONDS
        self._cutting = asyncio.get_running_loop().call_later(patience, self.cut)
        self.application.transport.close()
        self.server.transport.close()

    def cut(self) -> None:
        """End both connections at once."""
        self._by = self._by or "gateway"
        for side in (self.application, self.server):
            if not side.lost:  # asyncio's transports cannot be aborted after that
                side.transport.abort()

    def side_lost(self) -> None:
        """One of the connections is gone for good."""
        if not (self.application.lost and self.server.lost):
            return
        if self._cutting is not None:
            self._cutting.cancel()
        if not self.ended.done():
            self.ended.set_result(self._by or "gateway")


class Side(asyncio.Protocol):
    """One of the two connections."""

    other: Side
    transport: asyncio.Transport
    """From connection_made() on."""

    def __init__(self, relay: Relay, name: End) -> None:
        self.lost = False
        self._relay = relay
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        set_no_delay(transport)
        _keep_alive(transport)

    def data_received(self, data: bytes) -> None:
        self.other.transport.write(data)

    def pause_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def eof_received(self) -> None:
        self._relay.end(self._name)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._relay.end(self._name)
        self._relay.side_lost()


def _keep_alive(transport: asyncio.BaseTransport) -> None:
    stream = transport.get_extra_info("socket")
    if stream is None or stream.family not in (socket.AF_INET, socket.AF_INET6):
        return
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS lacks one of them
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
