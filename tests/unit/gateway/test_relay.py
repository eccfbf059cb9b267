"""Bytes through a relay between two loopback connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from aiohttp import web

from mediaserver.gateway import relay as module
from mediaserver.gateway.relay import HIGH_WATER, Relay
from mediaserver.wire import upgrade


class Rig:
    """An application's and a server's socket, and a relay between them."""

    def __init__(self) -> None:
        self.relay = Relay()
        self.application: socket.socket
        self.server: socket.socket

    async def start(self, stack: AsyncExitStack, rest: bytes = b"") -> None:
        self.application, first = await self._pair(stack)
        self.server, second = await self._pair(stack)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self.relay.application, first)
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, second)
        cast(asyncio.Transport, transport).pause_reading()
        transport.set_protocol(self.relay.server)
        self.relay.server.connection_made(transport)
        stack.callback(self.relay.cut)
        self.relay.start(rest)

    async def _pair(self, stack: AsyncExitStack) -> tuple[socket.socket, socket.socket]:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setblocking(False)
            near = stack.enter_context(socket.socket())
            near.setblocking(False)
            # Small, so that a side that does not read is soon noticed.
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            await loop.sock_connect(near, listening.getsockname())
            far, _ = await loop.sock_accept(listening)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        return near, far

    async def ended(self) -> str:
        return await asyncio.wait_for(asyncio.shield(self.relay.ended), 5)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        made = Rig()
        await made.start(stack)
        yield made


async def send(sender: socket.socket, data: bytes) -> None:
    await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(sender, data), 5)


async def receive(receiver: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    async with asyncio.timeout(5):
        while len(data) < count:
            chunk = await loop.sock_recv(receiver, count - len(data))
            if not chunk:
                break
            data += chunk
    return data


async def rest_of(receiver: socket.socket) -> bytes:
    return await receive(receiver, 1 << 30)


async def flood(sender: socket.socket) -> int:
    """Send until no more is taken; how many bytes were."""
    loop, sent, piece = asyncio.get_running_loop(), 0, bytes(range(256)) * 64
    while True:
        try:
            await asyncio.wait_for(loop.sock_sendall(sender, piece), 0.3)
        except TimeoutError:
            return sent
        sent += len(piece)


async def test_both_ways(rig: Rig) -> None:
    for index, (one, other) in enumerate([(rig.application, rig.server), (rig.server, rig.application)] * 3):
        data = bytes([index]) * 1000
        await send(one, data)
        assert await receive(other, 1000) == data


async def test_what_was_read_already_comes_first() -> None:
    async with AsyncExitStack() as stack:
        rig = Rig()
        await rig.start(stack, b"first ")
        await send(rig.server, b"second")
        assert await receive(rig.application, 12) == b"first second"


@pytest.mark.parametrize("by", ["application", "server"])
@pytest.mark.parametrize("how", ["closes", "closes half", "is cut"])
async def test_either_end(rig: Rig, by: str, how: str) -> None:
    ending, other = (rig.application, rig.server) if by == "application" else (rig.server, rig.application)
    await send(ending, b"last words")
    assert await receive(other, 10) == b"last words"
    if how == "closes half":
        ending.shutdown(socket.SHUT_WR)
    else:
        if how == "is cut":
            ending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        ending.close()
    assert await rest_of(other) == b""
    assert await rig.ended() == by
    assert rig.relay._cutting is not None
    assert rig.relay._cutting.cancelled()


async def test_what_waits_is_still_written(rig: Rig) -> None:
    """The server says its last words and goes; the application reads them late."""
    words = bytes(range(256)) * 1024
    sending = asyncio.create_task(send(rig.server, words))
    assert await receive(rig.application, 1000) == words[:1000]
    sending.add_done_callback(lambda _: rig.server.close())
    assert await rest_of(rig.application) == words[1000:]
    await sending
    assert await rig.ended() == "server"


async def test_a_side_that_never_reads_is_cut(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.2)
    await flood(rig.server)
    rig.application.shutdown(socket.SHUT_WR)
    assert await rig.ended() == "application"


async def test_the_gateway_ends_it(rig: Rig) -> None:
    rig.relay.end()
    rig.relay.end("server")
    assert await rest_of(rig.application) == await rest_of(rig.server) == b""
    assert await rig.ended() == "gateway"
    rig.relay.end()
    rig.relay.cut()


async def test_cutting(rig: Rig) -> None:
    await flood(rig.server)
    rig.relay.cut()
    assert await rig.ended() == "gateway"


@pytest.mark.parametrize("by", ["application", "server"])
async def test_a_side_that_does_not_read_holds_the_other_one(rig: Rig, by: str) -> None:
    """What waits inside is bounded, and comes through in order once it is read."""
    sender, receiver = (rig.application, rig.server) if by == "application" else (rig.server, rig.application)
    side = rig.relay.server if by == "application" else rig.relay.application
    sent = await flood(sender)
    size = side.transport.get_write_buffer_size()
    assert HIGH_WATER // 4 < size <= HIGH_WATER + 256 * 1024
    assert not side.other.transport.is_reading()
    got = await receive(receiver, sent)
    assert got == (bytes(range(256)) * 64) * (sent // 16384)
    await send(receiver, b"the other way")
    assert await receive(sender, 13) == b"the other way"
    assert side.other.transport.is_reading()


async def test_the_other_direction_goes_on_meanwhile(rig: Rig) -> None:
    await flood(rig.server)
    await send(rig.application, b"acknowledged")
    assert await receive(rig.server, 12) == b"acknowledged"


async def test_sockets_are_set_up(rig: Rig) -> None:
    for side in (rig.relay.application, rig.relay.server):
        made: Any = side.transport.get_extra_info("socket")
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_aiohttp_leaves_a_connection_that_was_taken_over_alone() -> None:
    """Its keep-alive timer, too; and it keeps nothing of it in the end."""

    async def handle(request: web.Request) -> web.StreamResponse:
        relay = Relay()
        upgrade.take_over(request, relay.application, b"taken\n")
        await asyncio.get_running_loop().create_connection(lambda: relay.server, *far.getsockname())
        relay.start(b"rest\n")
        ended.append(await relay.ended)
        return upgrade.give_back(request)

    ended: list[str] = []
    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, keepalive_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    with socket.create_server(("127.0.0.1", 0)) as far:
        far.setblocking(False)
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        async with asyncio.timeout(5):
            assert await reader.readexactly(11) == b"taken\nrest\n"
            server, _ = await asyncio.get_running_loop().sock_accept(far)
        await asyncio.sleep(0.3)  # longer than the timer
        with server:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")  # no request any more
            assert await receive(server, 18) == b"GET / HTTP/1.1\r\n\r\n"
            await send(server, b"answer")
            async with asyncio.timeout(5):
                assert await reader.readexactly(6) == b"answer"
            assert runner.server is not None
            assert len(runner.server.connections) == 1
        async with asyncio.timeout(5):
            assert await reader.read() == b""
            while runner.server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()
    assert ended == ["server"]
    await runner.cleanup()
