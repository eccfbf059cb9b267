"""A gateway between participants and fake media servers, with an API server in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import uvloop
from contract.control_client import dialled
from contract.control_contract import desired, router_entry
from doubles.api import FakeApi
from doubles.participants import FakeParticipants
from support.certificates import GATEWAY, OPERATOR, SERVER

from mediaserver.control.contract import CONTROL_PATH, RouterLoad, router_key
from mediaserver.control.fake import FakeMediaServer
from mediaserver.gateway.frontdoor import Limits
from mediaserver.gateway.server import Gateway, GatewayConfig
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import ClusterKey, Credential
from mediaserver.wire.tokens import ParticipantClaims, mint

KEY = ClusterKey(b"the key of the cluster under test")
TOKEN_KEY = b"t" * 32
ANY_PORT = ListenAddress("127.0.0.1", 0)

Socket = aiohttp.ClientWebSocketResponse

BOTH_LOOPS = frozenset({"test_relay", "test_worker_upstream", "test_workers", "test_secured"})
"""Modules whose tests run on asyncio's event loop and on uvloop."""


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    loops: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in BOTH_LOOPS:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


class World:
    """MediaCluster media/main, session shop/standup, and as many servers with a router each as asked."""

    def __init__(
        self, stack: AsyncExitStack, limits: Limits, credential: Callable[[str], Credential] = lambda _: KEY
    ) -> None:
        """``credential``: what the one of that name (support.certificates) shows who it is by."""
        self.api = FakeApi()
        self.credential = credential
        config = GatewayConfig(ANY_PORT, ANY_PORT, credential(GATEWAY), limits=limits)
        self.gateway = Gateway(config, self.api)
        self.servers: list[FakeMediaServer] = []
        self.participants: list[FakeParticipants] = []
        self._stack = stack
        self._session: aiohttp.ClientSession | None = None
        policy = {"from": "All"}
        key_set = {"name": "default", "secretRef": {"name": "keys"}, "namespaces": policy}
        self.api.put("mediaclusters", "media", "main", spec={"tokens": {"keySets": [key_set]}})
        self.api.secrets["media/keys"] = {"k1": TOKEN_KEY}

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    async def start(self) -> None:
        self._session = await self._stack.enter_async_context(aiohttp.ClientSession())
        self._stack.push_async_callback(self.gateway.close)
        await self.gateway.start()

    async def add_servers(self, count: int = 1) -> None:
        """Servers main-0, main-1, … with routers r0, r1, … of the session, all ready and connected."""
        for index in range(count):
            own, commanding = self.credential(SERVER), self.credential(OPERATOR)
            participants = await self._stack.enter_async_context(FakeParticipants(own.listening()))
            server = FakeMediaServer(own, participants=participants.address)
            await self._stack.enter_async_context(server)
            self.participants.append(participants)
            self.servers.append(server)
            dial = commanding.dial(SERVER)
            async with dialled(dial.url(str(server.address), CONTROL_PATH), dial) as operator:
                await operator.hello(commanding, cluster_uid="uid-main", server_name=f"media/main-{index}")
                await operator.apply(desired(router_entry(f"r{index}", 0)))
            spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": server.endpoint}}
            self.api.put("mediaservers", "media", f"main-{index}", spec=spec)
        self.put_session()
        await self.connected(count)

    def put_session(self, *, name: str = "standup", ready: bool = True, routers: int | None = None) -> None:
        count = len(self.servers) if routers is None else routers
        status = [
            {"name": f"r{index}", "serverName": f"main-{index}", "workerSlot": 0, "ready": ready}
            for index in range(count)
        ]
        ref = {"name": "main", "namespace": "media"}
        self.api.put("mediasessions", "shop", name, spec={"clusterRef": ref}, status={"routers": status})

    async def connected(self, count: int) -> None:
        links = self.gateway.links
        await self.until(lambda: [link.usable for link in links.all()].count(True) == count)

    async def until(self, condition: Callable[[], bool]) -> None:
        assert await self.gateway._changed.until(condition, 5), "not in time"

    def load(self, *participants: int) -> None:
        """Participants of r0, r1, …, as the servers' next report of load says; see loaded()."""
        for index, count in enumerate(participants):
            figures = RouterLoad(participants=count, producers=0, consumers=0)
            self.servers[index].router_loads[router_key("shop", f"r{index}")] = figures

    async def loaded(self, *participants: int) -> None:
        """Set the load and wait until the gateway has it."""
        self.load(*participants)
        links = self.gateway.links.all()
        async with asyncio.timeout(5):
            while [link.load.routers for link in links if link.load] != [  # noqa: ASYNC110  load wakes nobody
                server.load().routers for server in self.servers
            ]:
                await asyncio.sleep(0.02)

    # -- participants ---------------------------------------------------------------------------------

    def token(self, **changed: Any) -> str:
        now = time.time()
        claims = {"iss": "uid-main", "sub": "ann", "session": "shop/standup", "jti": "1"}
        key = changed.pop("key", TOKEN_KEY)
        kid = changed.pop("kid", "k1")
        return mint(ParticipantClaims(**{**claims, "exp": now + 60, "nbf": now, **changed}), kid, key)

    async def dial(
        self, *, path: str = "/", protocols: tuple[str, ...] = ("protoo",), **query: str
    ) -> Socket:
        """A participant's socket; query parameters replace those of ann with a good token."""
        params = {"roomId": "shop/standup", "peerId": "ann", "token": self.token(), **query}
        url = f"http://{self.gateway.address}{path}"
        socket = await self.session.ws_connect(
            url, params=params, protocols=protocols, timeout=aiohttp.ClientWSTimeout(ws_close=1)
        )
        self._stack.push_async_callback(socket.close)
        return socket

    async def closed(self, socket: Socket) -> tuple[int, str]:
        """Code and reason that a socket is closed with."""
        while (message := await socket.receive(timeout=10)).type is not aiohttp.WSMsgType.CLOSE:
            assert message.type is aiohttp.WSMsgType.TEXT, message
        return message.data, str(message.extra)

    async def refused(self, **query: str) -> tuple[int, str]:
        return await self.closed(await self.dial(**query))

    async def admitted(self, **query: str) -> tuple[Socket, int]:
        """A participant that came through, and the index of the server that it came to."""
        before = [len(participants.arrivals) for participants in self.participants]
        socket = await self.dial(**query)
        await socket.send_str("hello")
        assert await socket.receive_str(timeout=5) == "hello"
        after = [len(participants.arrivals) for participants in self.participants]
        (index,) = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if new > old]
        return socket, index


@pytest.fixture
def limits() -> Limits:
    return Limits(session_wait=0.2, router_wait=0.5)


@pytest.fixture
def api_down() -> bool:
    return False


@pytest.fixture
async def world(limits: Limits, api_down: bool) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        made = World(stack, limits)
        made.api.down = api_down
        await made.start()
        yield made
