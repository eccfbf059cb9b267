"""A stand-in for the worker at the other end of a channel, driven message by message."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from mediaserver.mediasoup import flatbuffer
from mediaserver.mediasoup._fbs import log, message, notification, request, response
from mediaserver.mediasoup.channel import Channel


class FakePeer:
    """The worker's ends of the sockets: reads requests as tables, writes whatever a test wants."""

    def __init__(self, requests: socket.socket, answers: socket.socket) -> None:
        self.requests = requests
        self.answers = answers
        self._buffer = b""

    async def receive(self) -> request.Request | notification.Notification:
        """The next message from us."""
        loop = asyncio.get_running_loop()
        while True:
            if len(self._buffer) >= 4:
                size = 4 + int.from_bytes(self._buffer[:4], "little")
                if len(self._buffer) >= size:
                    data, self._buffer = self._buffer[:size], self._buffer[size:]
                    table = message.Message.read(data, flatbuffer.follow(data, 4)).data
                    assert isinstance(table, request.Request | notification.Notification)
                    return table
            chunk = await asyncio.wait_for(loop.sock_recv(self.requests, 65536), 5)
            if not chunk:
                raise EOFError
            self._buffer += chunk

    async def receive_request(self) -> request.Request:
        table = await self.receive()
        assert isinstance(table, request.Request)
        return table

    @staticmethod
    def frame(table: flatbuffer.Table) -> bytes:
        """A message of the worker, size prefix included."""
        out = bytearray(8)
        flatbuffer.link(out, 4, message.Message(data=table).write(out))
        flatbuffer.U32.pack_into(out, 0, len(out) - 4)
        return bytes(out)

    async def send(self, *tables: flatbuffer.Table) -> None:
        await self.send_raw(b"".join(self.frame(table) for table in tables))

    async def send_raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.answers, data)

    async def accept(self, number: int, body: flatbuffer.Table | None = None) -> None:
        await self.send(response.Response(id=number, accepted=True, body=body))

    async def reject(self, number: int, error: str, reason: str) -> None:
        await self.send(response.Response(id=number, error=error, reason=reason))

    async def notify(self, handler_id: str, event: int, body: flatbuffer.Table | None = None) -> None:
        await self.send(notification.Notification(handler_id=handler_id, event=event, body=body))

    async def log(self, line: str) -> None:
        await self.send(log.Log(data=line))

    def close(self) -> None:
        self.requests.close()
        self.answers.close()


OpenChannel = Callable[..., Awaitable[tuple[Channel, FakePeer]]]
