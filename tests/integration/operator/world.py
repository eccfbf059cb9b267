"""A namespace of its own on the embedded cluster, with a MediaCluster, fake media servers and operators."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mafalda_operator.effects.api import CLUSTERS, NAMESPACES, ROUTERS, SERVERS, SESSIONS, KubeApi, Resource
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import NotFound

from mediaserver.control.contract import RouterEntry
from mediaserver.control.fake import FakeMediaServer, FakeNetwork
from mediaserver.wire.membership import ClusterKey, Credential

ROOT = Path(__file__).parents[3]
_numbers = itertools.count(1)


@dataclass
class OperatorProcess:
    process: asyncio.subprocess.Process
    log: Path

    def kill(self) -> None:
        self.process.kill()

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def end(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await asyncio.wait_for(self.process.wait(), 15)

    @property
    def output(self) -> str:
        return self.log.read_text()


@dataclass
class World:
    kubeconfig: Path
    directory: Path
    name: str = ""
    servers: dict[str, FakeMediaServer] = field(default_factory=dict)
    operators: list[OperatorProcess] = field(default_factory=list)
    network: FakeNetwork = field(default_factory=FakeNetwork)

    async def __aenter__(self) -> World:
        self.name = f"world-{next(_numbers)}-{secrets.token_hex(3)}"
        self.key_file = self.directory / "cluster.key"
        self.key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        self.key: Credential = ClusterKey.load(self.key_file)
        """Of the fake media servers."""
        self.credential = ("--cluster-key-file", str(self.key_file))
        """Of operators."""
        self.api = KubeApi(Credentials(self.kubeconfig))
        await self.api.create(NAMESPACES, None, {"metadata": {"name": self.name}})
        return self

    async def __aexit__(self, *_: object) -> None:
        for operator in self.operators:
            if operator.process.returncode is None:
                operator.resume()
                operator.kill()
                await operator.process.wait()
        for server in self.servers.values():
            server.wake()
            await server.close()
        await self.delete_namespace()
        await self.api.close()

    async def delete_namespace(self) -> None:
        try:
            namespace = await self.api.get(NAMESPACES, None, self.name)
            await self.api.delete(NAMESPACES, None, self.name, uid=namespace["metadata"]["uid"])
        except NotFound:
            return

    # -- making -----------------------------------------------------------------------------------------

    async def cluster(self, **spec: Any) -> dict[str, Any]:
        body = {"metadata": {"name": "main"}, "spec": {"publicURL": "ws://127.0.0.1:8080", **spec}}
        return await self.api.create(CLUSTERS, self.name, body)

    async def server(self, name: str, *, address: str | None = None, **options: Any) -> FakeMediaServer:
        """A fake media server and its MediaServer."""
        fake = FakeMediaServer(self.key, network=self.network, **options)
        await fake.start()
        self.servers[name] = fake
        await self.media_server(name, address or fake.endpoint)
        return fake

    async def media_server(self, name: str, address: str) -> None:
        spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": address}}
        await self.api.create(SERVERS, self.name, {"metadata": {"name": name}, "spec": spec})

    async def cluster_of(self, servers: int = 3, workers: int = 2) -> None:
        await self.cluster()
        for number in range(servers):
            await self.server(f"m{number}", workers=workers)

    async def session(self, name: str, routers: int = 2) -> None:
        spec = {"clusterRef": {"name": "main"}, "routers": {"min": routers}}
        await self.api.create(SESSIONS, self.name, {"metadata": {"name": name}, "spec": spec})

    async def delete_session(self, name: str) -> None:
        session = await self.api.get(SESSIONS, self.name, name)
        await self.api.delete(SESSIONS, self.name, name, uid=session["metadata"]["uid"])

    async def operator(
        self, *arguments: str, kubeconfig: Path | None = None, identity: str = "first"
    ) -> OperatorProcess:
        log = self.directory / f"operator-{len(self.operators)}.log"
        with log.open("w") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "mafalda_operator", "--kubeconfig", str(kubeconfig or self.kubeconfig)),
                *(*self.credential, "--metrics-listen", "127.0.0.1:0"),
                *("--lease-namespace", self.name, "--identity", identity, "--namespace", self.name),
                *(("--log-level", "debug") if os.environ.get("MAFALDA_DEBUG") else ()),
                *arguments,
                stderr=output,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"},
            )
        operator = OperatorProcess(process, log)
        self.operators.append(operator)
        return operator

    # -- looking ----------------------------------------------------------------------------------------

    async def condition(self, resource: Resource, name: str, kind: str) -> dict[str, str]:
        try:
            obj = await self.api.get(resource, self.name, name)
        except NotFound:
            return {}
        conditions = (obj.get("status") or {}).get("conditions") or []
        return next((one for one in conditions if one["type"] == kind), {})

    async def is_ready(self, name: str) -> bool:
        return (await self.condition(SESSIONS, name, "Ready")).get("status") == "True"

    async def ready(self, *names: str, timeout: float = 20) -> None:
        async def all_ready() -> bool:
            return all([await self.is_ready(name) for name in names])

        await self.eventually(all_ready, f"{names} ready", timeout)

    async def connected(self, *names: str, timeout: float = 20) -> None:
        async def all_connected() -> bool:
            found = [await self.condition(SERVERS, name, "Connected") for name in names or self.servers]
            return all(condition.get("status") == "True" for condition in found)

        await self.eventually(all_connected, "servers connected", timeout)

    async def routers(self) -> dict[str, tuple[str, str, int]]:
        """Session, server and slot by the router's name."""
        listing = await self.api.list(ROUTERS, self.name)
        return {
            item["metadata"]["name"]: (
                item["spec"]["sessionName"],
                item["spec"].get("serverName", ""),
                item["spec"].get("workerSlot", -1),
            )
            for item in listing.items
        }

    def hosted(self) -> dict[str, tuple[str, str, int]]:
        """The same as the media servers have it."""
        return {
            entry.name: (entry.session, name, entry.worker_slot)
            for name, server in self.servers.items()
            for entry in server.desired.values()
            if isinstance(entry, RouterEntry)
        }

    async def consistent(self, routers_each: int, sessions: int, timeout: float = 20) -> None:
        """The API server and the servers agree, and each session has its routers on separate workers."""

        async def agree() -> bool:
            routers = await self.routers()
            counts = Counter(session for session, _, _ in routers.values())
            return (
                routers == self.hosted()
                and len(counts) == sessions
                and set(counts.values()) <= {routers_each}
                and len(set(routers.values())) == len(routers)
            )

        await self.eventually(agree, "API server and media servers agree", timeout)

    async def consistent_all(self, timeout: float = 20) -> None:
        """The API server and the media servers agree."""

        async def agree() -> bool:
            return await self.routers() == self.hosted()

        await self.eventually(agree, "API server and media servers agree", timeout)

    async def eventually(
        self, condition: Callable[[], Awaitable[bool]], what: str, timeout: float = 20
    ) -> None:
        deadline = time.monotonic() + timeout
        while not await condition():
            if time.monotonic() > deadline:
                logs = "\n".join(operator.output[-4000:] for operator in self.operators)
                sessions = [item.get("status") for item in (await self.api.list(SESSIONS, self.name)).items]
                state = f"routers {await self.routers()}\nhosted {self.hosted()}\nsessions {sessions}"
                raise AssertionError(f"not within {timeout} s: {what}\n{state}\n{logs}")
            await asyncio.sleep(0.05)
