"""How a media server stops while participants are attached, and what they are told."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
from contract.control_client import ControlClient, dialled
from contract.control_contract import ready, router_entry, session_entry

from mediaserver.control.contract import (
    LEAVING_KEY,
    DesiredEntry,
    LeavingState,
    RouterEntry,
    RouterState,
    router_key,
)
from mediaserver.control.validate import key_of
from mediaserver.server import EMPTY_PATIENCE
from mediaserver.wire.close_codes import DIAL_AGAIN
from mediaserver.wire.tokens import ParticipantClaims, mint

# Fixtures come from conftest.py, whose types can't be imported from here.
ServerProcess = Any
MakeServer = Callable[..., ServerProcess]
Until = Callable[[Callable[[], bool]], Awaitable[None]]

KEY = os.urandom(32)


def wish(*routers: RouterEntry) -> dict[str, DesiredEntry]:
    keys = {"k1": base64.b64encode(KEY).decode()}
    session = msgspec.structs.replace(session_entry(), token_keys=keys)
    entries: list[DesiredEntry] = [session, *routers]
    return {key_of(entry): entry for entry in entries}


@asynccontextmanager
async def attached(server: ServerProcess, peer: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A participant's WebSocket; the server may close it at once."""
    now = time.time()
    claims = ParticipantClaims(
        iss="uid-1", sub=peer, session="shop/standup", exp=now + 60, nbf=now - 1, jti=peer, subscribe=True
    )
    query = {"roomId": "shop/standup", "peerId": peer, "token": mint(claims, "k1", KEY)}
    url = f"http://127.0.0.1:{server.participants}/ws"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(url, params=query, protocols=["protoo"]) as socket,
    ):
        yield socket


async def answers(socket: aiohttp.ClientWebSocketResponse) -> None:
    """The participant is admitted: its request is answered."""
    await socket.send_json({"request": True, "id": 1, "method": "getRouterRtpCapabilities", "data": {}})
    answer = await socket.receive_json(timeout=5)
    assert answer["ok"], answer


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    """Code and reason of the close frame."""
    async with asyncio.timeout(10):
        while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
            continue
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra


@asynccontextmanager
async def running(server: ServerProcess, *flags: str) -> AsyncIterator[ControlClient]:
    """The server with one router of the session, and who commands it."""
    server.start(*flags)
    await server.ready()
    async with dialled(server.control_url) as client:
        await client.hello(server.key)
        await client.apply(wish(router_entry("a", 0)))
        await client.until(lambda: ready(client, "a"), "the router is ready")
        yield client


def leaving(router: RouterEntry) -> RouterEntry:
    return msgspec.structs.replace(router, leaving=True)


async def test_draining_goes_on_serving_and_obeying_until_nobody_is_left(
    make_server: MakeServer, until: Until
) -> None:
    server = make_server(workers=2)
    async with running(server, "--drain-timeout=1h") as client:
        async with attached(server, "alice") as alice:
            await answers(alice)
            server.send(signal.SIGTERM)
            await client.until(lambda: LEAVING_KEY in client.reported, "the server says that it leaves")
            assert client.reported[LEAVING_KEY] == LeavingState(reason="SIGTERM", deadline=3600.0)
            status, body = await server.get("/readyz")
            assert status == 503
            assert "draining" in body
            await client.apply(wish(router_entry("a", 0), router_entry("b", 1)))
            key = router_key("shop", "b")
            await client.until(lambda: key in client.reported, "the new router is refused")
            state = client.reported[key]
            assert isinstance(state, RouterState)
            assert (state.ready, state.reason) == (False, "Draining")
            async with attached(server, "bob") as bob:
                await answers(bob)  # nobody has moved the router: joins work to the end
            await client.apply(wish(leaving(router_entry("a", 0))))
            assert (await closed(alice))[0] == DIAL_AGAIN  # it has not joined, so there is nothing to move
            async with attached(server, "carol") as carol:
                assert (await closed(carol))[0] == DIAL_AGAIN
            key = router_key("shop", "a")
            await client.until(lambda: vacant(client, key), "the router is vacant")
        await client.apply({})
        begin = time.monotonic()
        assert await server.ended() == 0
        assert time.monotonic() - begin < EMPTY_PATIENCE


def vacant(client: ControlClient, key: str) -> bool:
    state = client.reported[key]
    return isinstance(state, RouterState) and state.leaving and state.vacant


async def test_without_an_operator_the_drain_ends_with_the_last_participant(make_server: MakeServer) -> None:
    server = make_server()
    async with running(server, "--drain-timeout=1h"):
        pass
    async with attached(server, "alice") as alice:
        await answers(alice)
        server.send(signal.SIGTERM)
        await answers(alice)
    assert await server.ended() == 0


async def test_an_operator_that_moves_nothing_is_not_waited_for_long(make_server: MakeServer) -> None:
    server = make_server()
    async with running(server, "--drain-timeout=1h"):
        begin = time.monotonic()
        server.send(signal.SIGTERM)
        assert await server.ended() == 0
        assert time.monotonic() - begin > EMPTY_PATIENCE - 0.5


async def test_a_second_sigterm_ends_the_drain(make_server: MakeServer, until: Until) -> None:
    server = make_server()
    async with running(server, "--drain-timeout=1h"), attached(server, "alice") as alice:
        await answers(alice)
        server.send(signal.SIGTERM)
        await until(lambda: "asked to stop" in server.log())
        server.send(signal.SIGTERM)
        assert (await closed(alice))[0] == DIAL_AGAIN
        assert await server.ended() == 0


async def test_the_drain_ends_in_time(make_server: MakeServer) -> None:
    server = make_server()
    async with running(server, "--drain-timeout=300ms"), attached(server, "alice") as alice:
        await answers(alice)
        server.send(signal.SIGTERM)
        assert (await closed(alice))[0] == DIAL_AGAIN
        assert await server.ended() == 0


async def test_without_a_drain_participants_dial_again_at_once(make_server: MakeServer) -> None:
    server = make_server()
    async with running(server), attached(server, "alice") as alice:
        await answers(alice)
        begin = time.monotonic()
        server.send(signal.SIGINT)
        assert (await closed(alice))[0] == DIAL_AGAIN
        assert await server.ended() == 0
        assert time.monotonic() - begin < 5


async def test_participants_of_a_killed_worker_dial_again(make_server: MakeServer) -> None:
    server = make_server()
    async with running(server) as client, attached(server, "alice") as alice:
        await answers(alice)
        before = client.reported[router_key("shop", "a")]
        os.kill(server.worker_pids()[0], signal.SIGKILL)
        assert (await closed(alice))[0] == DIAL_AGAIN
        await client.until(
            lambda: ready(client, "a") and client.reported[router_key("shop", "a")] != before,
            "the router is open again",
        )
        async with attached(server, "alice") as again:
            await answers(again)


async def test_participants_are_counted(make_server: MakeServer, until: Until) -> None:
    server = make_server()
    async with running(server) as client, attached(server, "alice") as alice:
        await answers(alice)
        join = {
            "displayName": "Alice",
            "device": {},
            "rtpCapabilities": {"codecs": [], "headerExtensions": []},
        }
        await alice.send_json({"request": True, "id": 2, "method": "join", "data": join})
        assert (await alice.receive_json(timeout=5))["ok"]
        key = router_key("shop", "a")
        await client.until(
            lambda: bool(client.loads) and client.loads[-1].routers[key].participants == 1, "she is counted"
        )
        assert client.loads[-1].workers[0].routers == 1
        _, metrics = await server.get("/metrics")
        assert "mafalda_mediaserver_participants 1.0" in metrics
