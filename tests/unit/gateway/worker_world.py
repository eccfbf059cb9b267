"""A gateway between applications and fake media servers that run workers, with an API server in memory."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from contract.control_client import dialled
from doubles.api import FakeApi
from doubles.workers import FakeWorkers, accept_key, parse_head
from support.certificates import GATEWAY, OPERATOR, SERVER

from mediaserver import shim
from mediaserver.control import fake
from mediaserver.control.contract import CONTROL_PATH, TenantLoad, TenantOffer
from mediaserver.control.fake import FakeMediaServer
from mediaserver.gateway.server import Gateway, GatewayConfig
from mediaserver.gateway.worker_finding import WorkerLimits
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import ClusterKey, Credential
from mediaserver.wire.worker_tokens import Ticket, WorkerClaims, mint, mint_ticket

KEY = ClusterKey(b"the key of the cluster under test")
TOKEN_KEY = b"w" * 32
OTHER_KEY = b"o" * 32
VERSION = "3.27.1"
ANY_PORT = ListenAddress("127.0.0.1", 0)
SOCKET_KEY = base64.b64encode(b"sixteen bytes..!").decode()
IDLE = TenantLoad(workers=0, free=8, cpu=0.0)


@dataclass
class Tunnel:
    """An application's connection that was accepted."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def echoed(self, data: bytes) -> bytes:
        self.writer.write(data)
        async with asyncio.timeout(5):
            return await self.reader.readexactly(len(data))

    async def ended(self) -> None:
        """The other side closed it."""
        async with asyncio.timeout(10):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                pass

    def close(self) -> None:
        self.writer.close()


@dataclass
class Refusal:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def final(self) -> bool:
        return self.headers.get(shim.FINAL_HEADER.lower()) == "true"


class WorkerWorld:
    """MediaCluster media/main with servers main-0, main-1, … that run workers."""

    def __init__(
        self,
        stack: AsyncExitStack,
        limits: WorkerLimits,
        credential: Callable[[str], Credential] = lambda _: KEY,
    ) -> None:
        """``credential``: what the one of that name (support.certificates) shows who it is by."""
        self.api = FakeApi()
        self.credential = credential
        config = GatewayConfig(ANY_PORT, ANY_PORT, credential(GATEWAY), worker_limits=limits)
        self.gateway = Gateway(config, self.api)
        self.servers: list[FakeMediaServer] = []
        self.workers: list[FakeWorkers] = []
        self.http: aiohttp.ClientSession
        self._stack = stack
        self.put_cluster("media", "main")
        self.api.secrets["media/worker-keys"] = {"w1": TOKEN_KEY}

    def put_cluster(self, namespace: str, name: str, *, workers: bool = True, **metadata: str) -> None:
        key_set = {"name": "apps", "secretRef": {"name": "worker-keys"}, "workers": workers}
        spec = {"tokens": {"keySets": [key_set]}}
        self.api.put("mediaclusters", namespace, name, spec=spec, metadata=metadata)

    async def start(self) -> None:
        self.http = await self._stack.enter_async_context(aiohttp.ClientSession())
        self._stack.push_async_callback(self.gateway.close)
        await self.gateway.start()

    async def add_servers(self, count: int = 1, **settings: Any) -> None:
        """Connected, idle, with room for eight workers."""
        for _ in range(count):
            await self.add_server(**settings)
        await self.loaded()

    async def add_server(
        self,
        *,
        load: TenantLoad | None = IDLE,
        versions: tuple[str, ...] = (VERSION,),
        cores: int = 4,
        zone: str = "",
        offer: bool = True,
        **spec: Any,
    ) -> FakeMediaServer:
        index = len(self.servers)
        own, commanding = self.credential(SERVER), self.credential(OPERATOR)
        workers = await self._stack.enter_async_context(FakeWorkers(own.listening()))
        server = FakeMediaServer(own, participants=workers.address, zone=zone)
        server.tenant_offer = TenantOffer(versions=list(versions), cores=cores) if offer else None
        server.tenant_load = load
        await self._stack.enter_async_context(server)
        self.servers.append(server)
        self.workers.append(workers)
        dial = commanding.dial(SERVER)
        async with dialled(dial.url(str(server.address), CONTROL_PATH), dial) as operator:
            await operator.hello(commanding, cluster_uid="uid-main", server_name=f"media/main-{index}")
        content = {"clusterRef": {"name": "main"}, "endpoint": {"address": server.endpoint}, **spec}
        self.api.put("mediaservers", "media", f"main-{index}", spec=content)
        return server

    async def loaded(self) -> None:
        """Every server that can be heard has told its present load."""

        def told() -> bool:
            links = {link.target.server.name: link for link in self.gateway.links.all()}
            heard = [links.get(f"main-{index}") for index in range(len(self.servers))]
            return all(
                link is not None and link.load is not None and link.load.tenants == server.tenant_load
                for link, server in zip(heard, self.servers, strict=True)
            )

        async with asyncio.timeout(5):
            while not told():  # noqa: ASYNC110  load wakes nobody
                await asyncio.sleep(0.01)

    async def until(self, condition: Callable[[], bool]) -> None:
        assert await self.gateway._changed.until(condition, 5), "not in time"

    # -- applications ---------------------------------------------------------------------------------

    def token(self, **changed: Any) -> str:
        now = time.time()
        claims = {"iss": "uid-main", "sub": "conference", "jti": "t1", "exp": now + 60, "nbf": now - 1}
        kid, key = changed.pop("kid", "w1"), changed.pop("key", TOKEN_KEY)
        return mint(WorkerClaims(**{**claims, **changed}), kid, key)

    def ticket(self, index: int = 0, **changed: Any) -> str:
        said = {
            "iss": "uid-main",
            "sub": "conference",
            "server": f"media/main-{index}",
            "instance": self.servers[index].instance_id if index < len(self.servers) else "gone",
            "worker": "x",
            "token": "t1",
        }
        kid, key = changed.pop("kid", "w1"), changed.pop("key", TOKEN_KEY)
        return mint_ticket(Ticket(**{**said, **changed}), kid, key)

    def headers(self, **changed: str | None) -> dict[str, str]:
        """Those of mafalda-worker; `_` stands for `-`, None leaves one out."""
        made: dict[str, str | None] = {
            "Host": "gateway",
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": SOCKET_KEY,
            "Authorization": f"Bearer {self.token()}",
            shim.PROTOCOL_HEADER: "1",
            shim.VERSION_HEADER: VERSION,
        }
        made |= {name.replace("_", "-"): value for name, value in changed.items()}
        return {name: value for name, value in made.items() if value is not None}

    async def send(self, request: bytes) -> Tunnel | Refusal:
        """The answer to a request as it is."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.address.port)
        self._stack.callback(writer.close)
        writer.write(request)
        async with asyncio.timeout(10):
            first, pairs = parse_head(await reader.readuntil(b"\r\n\r\n"))
            headers = {name.lower(): value for name, value in pairs}
            if " 101 " in first:
                assert headers["sec-websocket-accept"] == accept_key(SOCKET_KEY)
                return Tunnel(reader, writer)
            text = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        return Refusal(int(first.split()[1]), headers, text)

    async def dial(self, *, method: str = "GET", **headers: str | None) -> Tunnel | Refusal:
        lines = [f"{method} /worker HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers(**headers).items()]
        return await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    async def opened(self, **headers: str | None) -> Tunnel:
        """A connection that came through, to whichever server."""
        tunnel = await self.dial(**headers)
        assert isinstance(tunnel, Tunnel), tunnel
        return tunnel

    async def carried(self, **headers: str | None) -> tuple[Tunnel, int]:
        """A connection that came through, and the index of the server that it came to."""
        before = [workers.received for workers in self.workers]
        tunnel = await self.opened(**headers)
        assert await tunnel.echoed(b"hello") == b"hello"
        after = [workers.received for workers in self.workers]
        (index,) = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if new > old]
        return tunnel, index

    async def refused(self, **headers: str | None) -> Refusal:
        answer = await self.dial(**headers)
        assert isinstance(answer, Refusal), answer
        assert answer.text.endswith("\n")
        assert answer.text.count("\n") == 1
        assert answer.headers["content-type"].startswith("text/plain")
        return answer

    async def metrics(self) -> str:
        async with self.http.get(f"http://{self.gateway.health_address}/metrics") as answer:
            return await answer.text()


def quick_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers tell their load more often, so that tests wait less."""
    monkeypatch.setattr(fake, "LOAD_INTERVAL", 0.05)
