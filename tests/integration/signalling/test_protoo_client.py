"""protoo-client from npm, as the reference for what clients do with our close codes."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.media_server import MediaServer, token

NODE_TESTS = Path(__file__).parents[2] / "node"
DEADLINE = 15.0


class NodeClient:
    """A Node process; `event` gives what it printed, in order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), DEADLINE)
        assert line, f"node ended with {await self.process.wait()}"
        event: dict[str, Any] = json.loads(line)
        return event

    async def expect(self, name: str) -> dict[str, Any]:
        """The next event, which must be of that name."""
        event = await self.event()
        assert event["event"] == name, event
        return event

    async def ask(self, method: str, data: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"method": method, "data": data}).encode() + b"\n")
        return await self.event()


Dial = Callable[..., Awaitable[NodeClient]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    node = shutil.which("node")
    assert node is not None, "Node.js is needed (README, Requirements)"
    assert (NODE_TESTS / "node_modules").is_dir(), "run `make node` first"
    clients: list[NodeClient] = []

    async def dial(server: MediaServer, sub: str = "node", **claims: Any) -> NodeClient:
        url = f"{server.url}&peerId={sub}&token={quote(token(sub, **claims))}"
        process = await asyncio.create_subprocess_exec(
            node,
            "protoo_client.js",
            url,
            cwd=NODE_TESTS,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        clients.append(NodeClient(process))
        return clients[-1]

    yield dial
    for client in clients:
        if client.process.returncode is None:
            client.process.kill()
        await client.process.wait()


async def test_it_joins_and_asks(server: MediaServer, dial: Dial) -> None:
    client = await dial(server)
    await client.expect("open")
    joined = await client.expect("joined")
    assert joined["peers"] == []
    assert joined["codecs"] >= 2
    made = await client.ask("createWebRtcTransport", {"producing": True})
    assert {"iceParameters", "iceCandidates", "dtlsParameters"} < set(made["data"])
    refused = await client.ask("teleport", {})
    assert (refused["code"], refused["reason"]) == (501, "unknown method 'teleport'")
    other = await dial(server, "other")
    await other.expect("open")
    assert [peer["id"] for peer in (await other.expect("joined"))["peers"]] == ["node"]
    assert (await client.expect("notification"))["data"]["id"] == "other"


async def test_it_does_not_dial_again_after_4000(server: MediaServer, dial: Dial) -> None:
    client = await dial(server)
    await client.expect("open")
    await client.expect("joined")
    await dial(server)  # the same participant, joining anew
    await client.expect("close")
    assert await asyncio.wait_for(client.process.wait(), DEADLINE) == 0


async def test_a_refused_token_is_not_tried_again(server: MediaServer, dial: Dial) -> None:
    client = await dial(server, exp=1)
    await client.expect("open")
    names = []
    while (name := (await client.event())["event"]) != "close":
        names.append(name)
    assert "open" not in names, "it dialled again"
    assert "joined" not in names
    assert await asyncio.wait_for(client.process.wait(), DEADLINE) == 0


async def test_it_dials_again_after_4001_and_4002(server: MediaServer, dial: Dial) -> None:
    client = await dial(server)
    await client.expect("open")
    await client.expect("joined")
    await server.close_router("standup-a", "no longer desired")
    await client.expect("disconnected")  # 4001: the router moved
    await client.expect("open")  # and now 4002, as there is no router here
    names = {(await client.event())["event"] for _ in range(3)}
    assert {"disconnected", "open"} <= names
    await server.open("standup-b")
    async with asyncio.timeout(DEADLINE):
        while (await client.event())["event"] != "joined":
            pass
