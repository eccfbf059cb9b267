"""The gateway as a process, against a real API server, with fake media servers."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from contract.control_client import dialled
from contract.control_contract import desired, router_entry
from doubles.participants import FakeParticipants
from mafalda_operator.cli.local.cluster import LocalCluster

from mediaserver.control.contract import CONTROL_PATH
from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.tokens import ParticipantClaims, mint

SECRET = b"the key of the cluster under test"
TOKEN_KEY = b"t" * 32
API = "mafalda.io/v1alpha1"


class Process:
    """`mafalda-gateway`, on ports of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.text = ""
        self._reading = asyncio.create_task(self._read())
        self._listening = asyncio.Event()

    @classmethod
    async def start(cls, *arguments: str) -> Process:
        command = [sys.executable, "-m", "mediaserver.gateway", *arguments]
        return cls(
            await asyncio.create_subprocess_exec(
                *command, stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
            )
        )

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.text += line.decode()
            if line.startswith(b"{"):
                self.lines.append(json.loads(line))
                if self.lines[-1]["message"] == "gateway listens":
                    self._listening.set()

    async def listening(self) -> dict[str, Any]:
        await asyncio.wait_for(self._listening.wait(), 20)
        return next(line for line in self.lines if line["message"] == "gateway listens")

    async def ended(self) -> int:
        code = await asyncio.wait_for(self.process.wait(), 20)
        await self._reading
        return code

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.ended()


class World:
    """A namespace with a MediaCluster, two servers, one session of two routers; and the gateway."""

    def __init__(self, cluster: LocalCluster, key_file: Path) -> None:
        self.cluster = cluster
        self.namespace = f"gateway-{uuid.uuid4().hex[:8]}"
        self.key_file = key_file
        self.servers: list[FakeMediaServer] = []
        self.participants: list[FakeParticipants] = []
        self.url = self.health = ""
        self.gateway: Process

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self.cluster.kubectl, *arguments, stdin=stdin)

    async def apply(self, *objects: dict[str, Any]) -> None:
        items = [{"apiVersion": API, **item} for item in objects]
        content = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
        await self.kubectl("apply", "-f", "-", stdin=content)

    async def uid(self, kind: str, name: str) -> str:
        return await self.kubectl("-n", self.namespace, "get", kind, name, "-o", "jsonpath={.metadata.uid}")

    async def set_up(self, stack: AsyncExitStack) -> None:
        await self.kubectl("create", "namespace", self.namespace)
        meta = {"namespace": self.namespace}
        await self.apply({"kind": "MediaCluster", "metadata": {**meta, "name": "main"}, "spec": {}})
        await self.put_key("k1", TOKEN_KEY)
        uid = await self.uid("mediacluster", "main")
        for index in range(2):
            participants = await stack.enter_async_context(FakeParticipants())
            server = FakeMediaServer(ClusterKey(SECRET), participants=participants.address)
            await stack.enter_async_context(server)
            self.participants.append(participants)
            self.servers.append(server)
            entry = router_entry(f"r{index}", 0, namespace=self.namespace)
            async with dialled(f"http://{server.address}{CONTROL_PATH}") as operator:
                name = f"{self.namespace}/main-{index}"
                await operator.hello(ClusterKey(SECRET), cluster_uid=uid, server_name=name)
                await operator.apply(desired(entry))
            await self.apply(
                {
                    "kind": "MediaServer",
                    "metadata": {**meta, "name": f"main-{index}"},
                    "spec": {"clusterRef": {"name": "main"}, "endpoint": {"address": server.endpoint}},
                }
            )
        await self.apply(
            {
                "kind": "MediaSession",
                "metadata": {**meta, "name": "standup"},
                "spec": {"clusterRef": {"name": "main"}},
            }
        )
        await self.set_routers(2)

    async def put_key(self, kid: str, key: bytes) -> None:
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": self.namespace, "name": "main-token-keys"},
            "data": {kid: base64.b64encode(key).decode()},
        }
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(secret))

    async def set_routers(self, count: int) -> None:
        routers = [
            {"name": f"r{i}", "serverName": f"main-{i}", "workerSlot": 0, "ready": True} for i in range(count)
        ]
        patch = json.dumps({"status": {"routers": routers}})
        await self.kubectl(
            "-n", self.namespace, "patch", "mediasession", "standup", "--subresource=status",
            "--type=merge", "-p", patch,
        )  # fmt: skip

    async def start_gateway(self) -> None:
        self.gateway = await Process.start(
            "--listen", "127.0.0.1:0", "--health-listen", "127.0.0.1:0",
            "--kubeconfig", str(self.cluster.kubeconfig), "--cluster-key-file", str(self.key_file),
        )  # fmt: skip
        addresses = await self.gateway.listening()
        self.url, self.health = (f"http://{addresses[name]}" for name in ("address", "health"))
        await self.hears_servers(2)

    async def hears_servers(self, count: int) -> None:
        """Wait until the gateway hears so many servers: before, it chooses among those that it does hear."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            while True:
                async with session.get(f"{self.health}/metrics") as answer:
                    text = await answer.text()
                found = re.search(r'mafalda_gateway_servers\{state="connected"\} (\S+)', text)
                if found is not None and float(found[1]) >= count:
                    return
                await asyncio.sleep(0.05)

    def token(self, **changed: Any) -> str:
        now = time.time()
        claims = {"iss": "main", "sub": "ann", "session": f"{self.namespace}/standup", "jti": "1"}
        kid, key = changed.pop("kid", "k1"), changed.pop("key", TOKEN_KEY)
        return mint(ParticipantClaims(**{**claims, "exp": now + 60, "nbf": now, **changed}), kid, key)

    async def dial(self, session: aiohttp.ClientSession, **query: str) -> aiohttp.ClientWebSocketResponse:
        params = {"roomId": f"{self.namespace}/standup", "peerId": "ann", "token": self.token(), **query}
        return await session.ws_connect(self.url, params=params, protocols=("protoo",))

    async def admitted(
        self, session: aiohttp.ClientSession, **query: str
    ) -> tuple[aiohttp.ClientWebSocketResponse, int]:
        before = [len(participants.arrivals) for participants in self.participants]
        socket = await self.dial(session, **query)
        await socket.send_str("hello")
        message = await socket.receive(timeout=10)
        assert message.data == "hello", f"{message}; {self.gateway.text}"
        after = [len(participants.arrivals) for participants in self.participants]
        return socket, [new > old for old, new in zip(before, after, strict=True)].index(True)

    async def dial_until_ended(self, session: aiohttp.ClientSession, seconds: float) -> None:
        """Dial until the gateway knows that the session has ended; it admits until then."""
        async with asyncio.timeout(seconds):
            while True:
                async with await self.dial(session) as socket:
                    await socket.send_str("hello")
                    message = await socket.receive(timeout=10)
                if (message.data, message.extra) == (4000, "session ended"):
                    return
                assert message.data == "hello", message
                await asyncio.sleep(0.1)


async def closed(socket: aiohttp.ClientWebSocketResponse) -> tuple[int, str]:
    while (message := await socket.receive(timeout=15)).type is not aiohttp.WSMsgType.CLOSE:
        assert message.type is aiohttp.WSMsgType.TEXT, message
    return message.data, str(message.extra)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.key"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
async def world(embedded_cluster: LocalCluster, key_file: Path) -> AsyncIterator[World]:
    made = World(embedded_cluster, key_file)
    async with AsyncExitStack() as stack:
        await made.set_up(stack)
        await made.start_gateway()
        try:
            yield made
        finally:
            await made.gateway.stop()
            await made.kubectl("delete", "namespace", made.namespace, "--wait=false")


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def test_participants_come_through(world: World, session: aiohttp.ClientSession) -> None:
    assert {(await world.admitted(session))[1] for _ in range(4)} == {0, 1}
    arrival = world.participants[0].arrivals[0]
    assert arrival.router == f"{world.namespace}/r0"
    refused = await world.dial(session, token=world.token(key=b"f" * 32))
    assert await closed(refused) == (4000, "token refused: forged")
    async with session.get(f"{world.health}/readyz") as answer:
        assert answer.status == 200
    async with session.get(f"{world.health}/metrics") as answer:
        assert 'mafalda_gateway_servers{state="connected"} 2.0' in await answer.text()
    assert world.token() not in world.gateway.text
    assert "token=" not in world.gateway.text


async def test_a_participant_that_vanishes(world: World, session: aiohttp.ClientSession) -> None:
    """Under uvloop, too, the server sees a broken line."""
    socket, index = await world.admitted(session)
    socket._response.connection.transport.abort()  # type: ignore[union-attr]
    arrival = world.participants[index].arrivals[0]
    await asyncio.wait_for(arrival.ended.wait(), 5)
    assert arrival.code == 1006


async def test_changes_are_followed(world: World, session: aiohttp.ClientSession) -> None:
    await world.admitted(session)
    new = b"n" * 32
    await world.put_key("k2", new)
    async with asyncio.timeout(15):  # keys are read again every two seconds at most
        while True:
            socket = await world.dial(session, token=world.token(kid="k2", key=new))
            await socket.send_str("hello")
            if (await socket.receive(timeout=5)).data == "hello":
                break
            await asyncio.sleep(0.2)
    await world.kubectl("-n", world.namespace, "delete", "mediasession", "standup")
    await world.dial_until_ended(session, 15)


async def test_the_api_server_goes_and_comes(world: World, session: aiohttp.ClientSession) -> None:
    carried, index = await world.admitted(session)
    assert index == 0
    await asyncio.to_thread(world.cluster.stop_apiserver, grace=0)
    try:
        assert {(await world.admitted(session))[1] for _ in range(3)} == {0, 1}
        await asyncio.gather(world.servers[0].kill(), world.participants[0].stop())
        assert await closed(carried) == (4001, "media server lost")
        assert [(await world.admitted(session))[1] for _ in range(3)] == [1, 1, 1]
    finally:
        await asyncio.to_thread(world.cluster.start_apiserver)
    await world.kubectl("-n", world.namespace, "delete", "mediasession", "standup")
    await world.dial_until_ended(session, 40)


async def test_an_api_server_that_hangs(world: World, session: aiohttp.ClientSession) -> None:
    """Joins go on with what is known."""
    await world.admitted(session)
    await asyncio.to_thread(world.cluster.pause_apiserver)
    try:
        deadline = time.monotonic() + 4
        waits = []
        while time.monotonic() < deadline:
            begin = time.monotonic()
            await world.admitted(session)
            waits.append(time.monotonic() - begin)
            await asyncio.sleep(0.2)
    finally:
        await asyncio.to_thread(world.cluster.resume_apiserver)
    assert max(waits) < 4
    assert sorted(waits)[len(waits) // 2] < 0.5


async def test_sigterm(world: World, session: aiohttp.ClientSession) -> None:
    socket, index = await world.admitted(session)
    world.gateway.process.send_signal(signal.SIGTERM)
    assert await closed(socket) == (4002, "gateway stopping")
    assert await world.gateway.ended() == 0
    assert await world.gateway.process.stdout.read() == b""  # type: ignore[union-attr]
    arrival = world.participants[index].arrivals[0]
    await asyncio.wait_for(arrival.ended.wait(), 5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--listen", "nowhere"], 2, r"'nowhere' is not HOST:PORT"),
        (["--cluster-key-file", "/absent/key"], 2, r"/absent/key cannot be read: No such file"),
        (["--kubeconfig", "/absent/config"], 1, r"/absent/config can't be used.*--kubeconfig"),
        (["--listen", "192.0.2.1:1"], 1, r"cannot listen on 192\.0\.2\.1:1"),
    ],
)
async def test_settings_that_cannot_be_used(
    key_file: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    config = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "contexts": [context],
                "users": [{"name": "u", "user": {"token": "x"}}],
                "current-context": "c",
            }
        )
    )
    given = {
        "--cluster-key-file": str(key_file),
        "--kubeconfig": str(config),
        "--health-listen": "127.0.0.1:0",
    }
    given.update(zip(arguments[::2], arguments[1::2], strict=True))
    gateway = await Process.start(*(word for pair in given.items() for word in pair))
    assert await gateway.ended() == code
    assert re.search(message, gateway.text), gateway.text
    assert "Traceback" not in gateway.text
