"""Messages on their way out of a connection: a bounded queue and the one task that writes."""

from __future__ import annotations

import asyncio
from collections import deque

from aiohttp import ClientError, ClientWebSocketResponse, WSMsgType
from aiohttp.web import WebSocketResponse

from mediaserver.wire.errors import ConnectionLost

Socket = ClientWebSocketResponse[bool] | WebSocketResponse[bool]

MAX_MESSAGES = 4096
MAX_BYTES = 32 * 1024 * 1024
SEND_TIMEOUT = 10.0
"""Seconds that one message may wait for the other side to read."""


class Outbox:
    """What waits to be sent, at most MAX_MESSAGES messages and MAX_BYTES bytes."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._messages: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, message: bytes) -> None:
        """Queue a message. Raises ConnectionLost when there is no room."""
        if len(self._messages) >= MAX_MESSAGES or self._bytes + len(message) > MAX_BYTES:
            raise ConnectionLost(
                f"the other side does not read: {len(self._messages)} messages, {self._bytes} bytes wait"
            )
        self._messages.append(message)
        self._bytes += len(message)
        self._idle.clear()
        self._wake.set()

    async def flush(self, timeout: float) -> None:
        """Wait until all is written, for ``timeout`` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return

    async def run(self) -> None:
        """Write until cancelled. Raises ConnectionLost when writing fails or takes SEND_TIMEOUT."""
        while True:
            await self._wake.wait()
            while self._messages:
                await self._send(self._messages[0])
                self._bytes -= len(self._messages.popleft())
            self._wake.clear()
            self._idle.set()

    async def _send(self, message: bytes) -> None:
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._socket.send_frame(message, WSMsgType.TEXT)
        except TimeoutError as error:
            raise ConnectionLost(f"the other side reads nothing for {SEND_TIMEOUT:g} s") from error
        except (ClientError, OSError, RuntimeError) as error:
            raise ConnectionLost(f"cannot send: {str(error) or type(error).__name__}") from error
