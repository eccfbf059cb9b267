"""A whole system under test: control plane, operator, gateway, three media servers, real media."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from mafalda_operator.cli.demo import audit
from mafalda_operator.cli.demo.call import Call
from mafalda_operator.cli.demo.stack import GATEWAY, OPERATOR, Stack
from mafalda_operator.cli.token_keys import key_of_session
from mafalda_operator.model import ObjectKey

from mediaserver.control.contract import Dump
from mediaserver.wire.membership import ClusterKey

CLUSTER = ObjectKey("media", "main")
NAMESPACE = "shop"
READY_SECONDS = 20.0
TOKEN_SECONDS = 600.0
_names = (f"call-{number}" for number in itertools.count(1))


@dataclass
class Rig:
    """The running system, and what a test does to it."""

    stack: Stack
    _sessions: list[str] = field(default_factory=list)

    # -- sessions ---------------------------------------------------------------------------------------

    async def session(self, routers: int = 3) -> str:
        """The name of a new session that is Ready."""
        name = next(_names)
        manifest = {
            "apiVersion": "mafalda.io/v1alpha1",
            "kind": "MediaSession",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "clusterRef": {"name": CLUSTER.name, "namespace": CLUSTER.namespace},
                "routers": {"min": routers},
            },
        }
        await self.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        self._sessions.append(name)
        await self.until_ready(name)
        return name

    async def status(self, session: str) -> dict[str, Any]:
        text = await self.kubectl("-n", NAMESPACE, "get", "mediasession", session, "-o", "json")
        status: dict[str, Any] = json.loads(text).get("status") or {}
        return status

    async def until_ready(self, session: str, *, without: str | None = None) -> dict[str, Any]:
        """Its status once Ready, with no router on the server ``without``."""
        status: dict[str, Any] = {}

        async def ready() -> bool:
            nonlocal status
            status = await self.status(session)
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            servers = {router["serverName"] for router in status.get("routers", ())}
            return conditions.get("Ready") == "True" and without not in servers

        await until(f"{session} is Ready", ready, tell=lambda: status)
        return status

    async def delete_sessions(self) -> None:
        for name in self._sessions:
            await self.kubectl(
                "-n", NAMESPACE, "delete", "mediasession", name, "--ignore-not-found", "--wait=false"
            )
        self._sessions.clear()

    # -- participants -----------------------------------------------------------------------------------

    async def url_and_token(self, session: str, name: str) -> tuple[str, str]:
        key = ObjectKey(NAMESPACE, session)
        signing = await key_of_session(key, self.stack.cluster.kubeconfig)
        return (await self.status(session))["url"], signing.sign(key, name, seconds=TOKEN_SECONDS)

    @contextlib.asynccontextmanager
    async def call(self, session: str, names: tuple[str, ...]) -> AsyncIterator[Call]:
        """Participants who all send and receive, once every one decodes every other."""
        async with Call() as call:
            for name in names:
                await call.join(*await self.url_and_token(session, name), publish=True)
            await call.until("everybody receives everybody", call.all_flowing, seconds=READY_SECONDS)
            yield call

    def server_of(self, status: dict[str, Any], router: str) -> str:
        """The MediaServer of a router, by the session's status."""
        return str(
            next(
                found["serverName"] for found in status["routers"] if f"{NAMESPACE}/{found['name']}" == router
            )
        )

    # -- processes --------------------------------------------------------------------------------------

    async def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return await asyncio.to_thread(self.stack.cluster.kubectl, *arguments, stdin=stdin)

    async def restore(self) -> None:
        """Every process runs again and every server is Ready."""
        for server in self.stack.layout.servers:
            if not self.stack.cluster.processes.running(server.name):
                self.stack.start_server(server)
        if not self.stack.cluster.processes.running(GATEWAY):
            self.stack.start_gateway()
        if not self.stack.cluster.processes.running(OPERATOR):
            self.stack.start_operator()
        for name in (*(server.name for server in self.stack.layout.servers), GATEWAY, OPERATOR):
            await asyncio.to_thread(self.stack.await_healthy, name)

        async def all_ready() -> bool:
            return len(await self.ready_servers()) == len(self.stack.layout.servers)

        await until("every MediaServer is Ready", all_ready, tell=lambda: "")

    async def ready_servers(self) -> list[str]:
        listing = json.loads(await self.kubectl("-n", CLUSTER.namespace, "get", "mediaservers", "-o", "json"))
        return [
            item["metadata"]["name"]
            for item in listing["items"]
            if any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in item.get("status", {}).get("conditions", ())
            )
        ]

    async def dump(self, server: str) -> Dump:
        """What exists in a server's workers, by their own dumps."""
        cluster = json.loads(
            await self.kubectl("-n", CLUSTER.namespace, "get", "mediacluster", CLUSTER.name, "-o", "json")
        )
        return await audit.dump(
            next(layout for layout in self.stack.layout.servers if layout.name == server),
            ClusterKey.load(self.stack.key_file),
            cluster_uid=cluster["metadata"]["uid"],
            cluster_name=str(CLUSTER),
        )

    async def router_names(self, server: str) -> list[str]:
        """The routers that really exist in a server's workers (`namespace/name`)."""
        found = await self.dump(server)
        return [router["name"] for worker in found.workers for router in worker["routers"]]


async def until(
    what: str,
    holds: Callable[[], Any],
    *,
    tell: Callable[[], object],
    seconds: float = READY_SECONDS,
) -> None:
    """Wait until the coroutine function ``holds`` answers True; fail with what ``tell`` says instead."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s; seen: {tell()}"
        await asyncio.sleep(0.05)
