"""Two media servers, commanded by hand: routers, links between and inside them, and what breaks them."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from contract.control_client import ControlClient, dialled
from contract.control_contract import router_entry, session_entry

from mediaserver.control.contract import (
    Address,
    DesiredEntry,
    LinkEntry,
    LinkState,
    RouterEntry,
    ServerHello,
    link_key,
)
from mediaserver.control.validate import key_of

# Fixtures come from conftest.py, whose types can't be imported from here.
ServerProcess = Any
MakeServer = Callable[..., ServerProcess]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

LINK = link_key("shop", "ra", "rb")


def link_entry(local: str, remote: str, server: str, peer: Address | None) -> LinkEntry:
    return LinkEntry(
        namespace="shop",
        session_uid="uid-standup",
        local_router=local,
        remote_router=remote,
        remote_server=server,
        remote_peer=peer,
        srtp=peer is not None,
        rtx=True,
    )


def wish(*entries: RouterEntry | LinkEntry) -> dict[str, DesiredEntry]:
    whole: list[DesiredEntry] = [session_entry(), *entries]
    return {key_of(entry): entry for entry in whole}


def linked(client: ControlClient, key: str = LINK) -> bool:
    state = client.reported.get(key)
    return isinstance(state, LinkState) and state.ready


@asynccontextmanager
async def commanding(
    server: ServerProcess, epoch: int = 1
) -> AsyncIterator[tuple[ControlClient, ServerHello]]:
    async with dialled(server.control_url) as client:
        hello = await client.hello(server.key, server_name=f"media/{server.name}", epoch=epoch)
        yield client, hello


async def apply_linked(a: ControlClient, b: ControlClient, to_a: Address, to_b: Address) -> None:
    """A router on each of the servers a and b, and the link between them."""
    await a.apply(wish(router_entry("ra", 0), link_entry("ra", "rb", "media/b", to_b)))
    await b.apply(wish(router_entry("rb", 0), link_entry("rb", "ra", "media/a", to_a)))


@pytest.fixture
async def pair(make_server: MakeServer) -> tuple[ServerProcess, ServerProcess]:
    servers = make_server("a"), make_server("b")
    for server in servers:
        server.start()
    for server in servers:
        await server.ready()
    return servers


async def test_both_ends_of_a_link_get_ready(pair: tuple[ServerProcess, ServerProcess]) -> None:
    async with commanding(pair[0]) as (a, hello_a), commanding(pair[1]) as (b, hello_b):
        await apply_linked(a, b, hello_a.peer, hello_b.peer)
        for client in (a, b):
            await client.until(lambda client=client: linked(client), "its end of the link is ready")
        for client, other in ((a, "media/b"), (b, "media/a")):
            await client.until(
                lambda client=client, other=other: (
                    bool(client.loads) and [peer.server for peer in client.loads[-1].peers] == [other]
                ),
                "the age of the peer's heartbeat is told",
            )
            assert client.loads[-1].peers[0].age < 3
            (worker,) = (await client.dump()).workers
            assert [len(router["transports"]) for router in worker["routers"]] == [1]
        for client in (a, b):
            await client.apply({})
            await client.until(lambda client=client: LINK not in client.reported, "the link is gone")
            await client.until(lambda client=client: len(client.reported) == 1, "the router is gone")
            assert [worker["routers"] for worker in (await client.dump()).workers] == [[]]


async def test_a_link_inside_one_server(make_server: MakeServer) -> None:
    server = make_server("a", workers=2)
    server.start()
    await server.ready()
    async with commanding(server) as (client, _):
        inside = link_entry("ra", "rb", "media/a", None)
        await client.apply(wish(router_entry("ra", 0), router_entry("rb", 1), inside))
        await client.until(lambda: linked(client), "the link is ready")
        await client.apply({})
        await client.until(lambda: len(client.reported) == 2, "all is gone")


async def test_a_killed_worker_is_linked_again(pair: tuple[ServerProcess, ServerProcess]) -> None:
    async with commanding(pair[0]) as (a, hello_a), commanding(pair[1]) as (b, hello_b):
        await apply_linked(a, b, hello_a.peer, hello_b.peer)
        for client in (a, b):
            await client.until(lambda client=client: linked(client), "its end of the link is ready")
        for server, client in zip(pair, (a, b), strict=True):
            (pid,) = server.worker_pids()
            seen = len(client.reports)
            os.kill(pid, signal.SIGKILL)
            await client.until(
                lambda client=client, seen=seen: len(client.reports) > seen and not linked(client),
                "the loss is told",
            )
            for end in (a, b):
                await end.until(lambda end=end: linked(end), "its end of the link is ready again")


async def test_a_killed_server_is_linked_again(pair: tuple[ServerProcess, ServerProcess]) -> None:
    async with commanding(pair[0]) as (a, hello_a):
        async with commanding(pair[1]) as (b, hello_b):
            await apply_linked(a, b, hello_a.peer, hello_b.peer)
            for client in (a, b):
                await client.until(lambda client=client: linked(client), "its end of the link is ready")
        pair[1].kill()
        await a.until(lambda: not linked(a), "the surviving end notices")
        state = a.reported[LINK]
        assert isinstance(state, LinkState)
        assert state.reason == "PeerUnreachable"
        assert state.message
        pair[1].start()
        await pair[1].ready()
        async with commanding(pair[1]) as (b, hello_b):
            await b.apply(wish(router_entry("rb", 0), link_entry("rb", "ra", "media/a", hello_a.peer)))
            for client in (a, b):
                await client.until(lambda client=client: linked(client), "its end is ready again")


async def test_servers_stay_linked_without_an_operator(pair: tuple[ServerProcess, ServerProcess]) -> None:
    async with commanding(pair[0]) as (a, hello_a), commanding(pair[1]) as (b, hello_b):
        await apply_linked(a, b, hello_a.peer, hello_b.peer)
        for client in (a, b):
            await client.until(lambda client=client: linked(client), "its end of the link is ready")
        before = [(await client.dump()).workers for client in (a, b)]
    async with commanding(pair[0], epoch=2) as (a, _), commanding(pair[1], epoch=2) as (b, _):
        for client in (a, b):
            await client.until(lambda client=client: linked(client), "the link is still ready")
        assert [(await client.dump()).workers for client in (a, b)] == before
