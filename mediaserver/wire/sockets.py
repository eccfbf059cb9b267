"""Ending WebSockets for good, also where the other side has stopped to read."""

from __future__ import annotations

import asyncio
import os
import socket as stdlib_socket
from contextlib import suppress
from typing import Any

from aiohttp import ClientError, ClientWebSocketResponse
from aiohttp.web import WebSocketResponse

from mediaserver.wire.close_codes import clip_reason

Socket = ClientWebSocketResponse[Any] | WebSocketResponse[Any]


async def close(socket: Socket, code: int, reason: str, patience: float) -> None:
    """Send a close frame and wait ``patience`` seconds for the other's, then cut the connection.

    Never raises for what the network does; the connection is gone in any case.
    """
    transport_socket = _transport_socket(socket)
    # 1006 and 1005 must not be sent (RFC 6455 section 7.4.1).
    sendable = code if code not in (1005, 1006) else 1001
    try:
        async with asyncio.timeout(patience):
            await socket.close(code=sendable, message=clip_reason(reason))
    except (TimeoutError, ClientError, OSError, RuntimeError):
        _cut(transport_socket)


async def cut(socket: Socket) -> None:
    """End the connection without a goodbye, as a process that dies does. Never raises for the network."""
    _cut(_transport_socket(socket))
    with suppress(TimeoutError, ClientError, OSError, RuntimeError):
        async with asyncio.timeout(1.0):
            await socket.close()


def _transport_socket(socket: Socket) -> stdlib_socket.socket | None:
    """None: it is gone already. asyncio's TLS transports raise AttributeError then."""
    with suppress(AttributeError):
        found: stdlib_socket.socket | None = socket.get_extra_info("socket")
        return found
    return None


def _cut(transport_socket: stdlib_socket.socket | None) -> None:
    """Shut the TCP connection down, whatever still waits to be written."""
    if transport_socket is None:
        return
    with suppress(OSError):  # it is gone already
        descriptor = os.dup(transport_socket.fileno())
        with stdlib_socket.socket(fileno=descriptor) as duplicate:
            duplicate.shutdown(stdlib_socket.SHUT_RDWR)
