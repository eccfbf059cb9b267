"""Media servers with real workers, one or two linked ones."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from mafalda_operator.cli.local.ports import PortPicker
from support.media_server import HOST, MediaServer, until

from mediaserver.signalling import SignallingSettings
from mediaserver.wire.membership import ClusterKey

MakeServer = Callable[[str], Awaitable[MediaServer]]


@pytest.fixture
def settings() -> SignallingSettings:
    return SignallingSettings(linger=0.5)


@pytest.fixture
async def make_server(settings: SignallingSettings) -> AsyncIterator[MakeServer]:
    """Makes started media servers; all end with the test."""
    made: list[MediaServer] = []
    ports = PortPicker(host=HOST)
    key = ClusterKey(secrets.token_bytes(32))

    async def make(name: str) -> MediaServer:
        server = MediaServer(name, key, ports.range(20), settings)
        made.append(server)
        await server.start()
        return server

    yield make
    for server in reversed(made):
        await server.close()


@pytest.fixture
async def server(make_server: MakeServer) -> MediaServer:
    """A media server with the router `standup-a`."""
    made = await make_server("one")
    await made.open("standup-a")
    return made


@pytest.fixture
async def pair(make_server: MakeServer) -> tuple[MediaServer, MediaServer]:
    """Two media servers whose routers `standup-a` and `standup-b` are linked."""
    one, two = await make_server("one"), await make_server("two")
    await one.open("standup-a")
    await two.open("standup-b")
    await one.link("standup-a", "standup-b", two)
    await two.link("standup-b", "standup-a", one)
    for each in (one, two):
        await until(lambda each=each: each.linked("standup-a", "standup-b"), "the routers are linked")
    return one, two
