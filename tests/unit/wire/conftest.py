"""A pair of connections over a real WebSocket on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from mediaserver.wire.listen import ListenAddress, listen
from mediaserver.wire.rpc import Connection, Methods, accept, connect


@dataclass
class Pair:
    """``dialler`` and ``acceptor`` talk to each other; ``ends`` are their run() tasks."""

    dialler: Connection
    acceptor: Connection
    ends: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def outcome(self, side: str) -> BaseException | None:
        """How run() of a side ended, within five seconds."""
        (result,) = await asyncio.wait_for(asyncio.gather(self.ends[side], return_exceptions=True), 5)
        return result


MakePair = Callable[..., Awaitable[Pair]]


@asynccontextmanager
async def served(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """The URL at which ``handler`` answers."""
    app = web.Application()
    app.router.add_get("/", handler)
    listener = await listen(app, ListenAddress("127.0.0.1", 0))
    try:
        yield f"http://{listener.address}/"
    finally:
        await listener.close()


@pytest.fixture
async def make_pair() -> AsyncIterator[MakePair]:
    """Makes pairs: make_pair(dialler_methods, acceptor_methods, dialler={…}, acceptor={…})."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def make(
            dialler_methods: Methods | None = None,
            acceptor_methods: Methods | None = None,
            *,
            dialler: dict[str, Any] | None = None,
            acceptor: dict[str, Any] | None = None,
        ) -> Pair:
            accepted: asyncio.Future[tuple[Connection, asyncio.Task[None]]] = asyncio.Future()

            async def handler(request: web.Request) -> web.StreamResponse:
                connection = await accept(
                    request, acceptor_methods or Methods(), name="dialler", **acceptor or {}
                )
                task = asyncio.create_task(connection.run())
                accepted.set_result((connection, task))
                await asyncio.gather(task, return_exceptions=True)
                return connection.socket

            url = await stack.enter_async_context(served(handler))
            connection = await connect(
                session, url, dialler_methods or Methods(), name="acceptor", **dialler or {}
            )
            stack.push_async_callback(connection.close)
            other, task = await asyncio.wait_for(accepted, 5)
            stack.push_async_callback(other.close)
            ends = {"dialler": asyncio.create_task(connection.run()), "acceptor": task}
            return Pair(connection, other, ends)

        yield make
