"""Taking a connection over from aiohttp after an HTTP upgrade, for a protocol that must cost little.

aiohttp's own WebSockets cost a task's turn for each message; what is taken over here calls its protocol
straight from the transport. Only asyncio's and aiohttp's public parts are used.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket

from aiohttp import web

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def handshake_problem(request: web.Request) -> str | None:
    """Why a request is no WebSocket handshake (RFC 6455 section 4.2.1); None: it is one."""
    headers = request.headers
    if request.method != "GET" or "websocket" not in headers.get("Upgrade", "").lower():
        return "it is no WebSocket handshake: Upgrade: websocket is missing"
    if "upgrade" not in headers.get("Connection", "").lower():
        return "it is no WebSocket handshake: Connection: Upgrade is missing"
    if headers.get("Sec-WebSocket-Version") != "13":
        return "it is no WebSocket handshake: Sec-WebSocket-Version must be 13"
    try:
        key = base64.b64decode(headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:
        key = b""
    return None if len(key) == 16 else "it is no WebSocket handshake: Sec-WebSocket-Key must be 16 bytes"


def bearer(authorization: str) -> str:
    """The token of an Authorization header (RFC 6750 section 2.1); empty when there is none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def switching_protocols(request: web.Request) -> bytes:
    """The head that accepts a WebSocket handshake."""
    key = request.headers["Sec-WebSocket-Key"].strip().encode()
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    lines = (
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def take_over(request: web.Request, protocol: asyncio.Protocol, head: bytes) -> asyncio.Transport:
    """Answers ``head`` and hands the connection to ``protocol``. Raises ConnectionResetError when it is gone.

    From then on the handler must end by ``return give_back(request)``, after the protocol has lost the
    connection.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the connection is gone")
    transport.set_protocol(protocol)
    set_no_delay(transport)
    protocol.connection_made(transport)
    transport.write(head)
    return transport


def give_back(request: web.Request) -> web.Response:
    """Lets aiohttp tidy up after a connection that was taken over, and has ended."""
    request.protocol.connection_lost(None)
    return web.Response()  # goes nowhere: aiohttp has just been told so


def set_no_delay(transport: asyncio.BaseTransport) -> None:
    """Sends small messages at once (TCP_NODELAY)."""
    stream = transport.get_extra_info("socket")
    if stream is not None and stream.family in (socket.AF_INET, socket.AF_INET6):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
