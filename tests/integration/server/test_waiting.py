"""A media server process whose addresses come from a mounted ConfigMap, as in a pod."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from contract.control_client import dialled

# Fixtures come from conftest.py, whose types can't be imported from here.
MakeServer = Callable[..., Any]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


def in_a_pod(server: Any, addresses: Path) -> None:
    """Has the flags that the operator gives to pods."""
    for flag in ("internal", "participants", "health"):
        server.flags[f"--{flag}-listen"] = f":{getattr(server, flag)}"
    server.flags |= {
        "--listen-address": "127.0.0.1",
        "--client-address": "127.0.0.1,::1",
        "--ip-family": "IPv4",
        "--announce-from": "NodeExternalIP",
        "--announce": "media.example.com",
        "--addresses-dir": str(addresses),
        "--node": "n1",
        "--server-name": "main-abcde",
    }


async def test_it_waits_until_the_operator_has_written_the_addresses(
    make_server: MakeServer, tmp_path: Path, until: Until
) -> None:
    server = make_server()
    in_a_pod(server, tmp_path)
    server.start()
    await until(lambda: "waiting for addresses" in server.log())
    status, body = await server.get("/readyz")
    assert status == 503
    for word in ("NodeExternalIP", str(tmp_path / "node.n1"), "operator"):
        assert word in body
    assert (await server.get("/healthz"))[0] == 200
    (tmp_path / "node.n1").write_text(json.dumps([{"type": "ExternalIP", "address": "203.0.113.7"}]))
    await server.ready()
    async with dialled(server.control_url) as client:
        hello = await client.hello(server.key)
    assert hello.client.host == "203.0.113.7"
    assert hello.client_addresses == ["203.0.113.7", "media.example.com"]
    server.send(signal.SIGTERM)
    assert await server.ended() == 0


async def test_it_stops_while_it_waits(make_server: MakeServer, tmp_path: Path, until: Until) -> None:
    server = make_server()
    in_a_pod(server, tmp_path)
    server.start()
    await until(lambda: "waiting for addresses" in server.log())
    server.send(signal.SIGTERM)
    assert await server.ended() == 0
    assert server.log().count("waiting for addresses") == 1


async def test_the_health_port_is_named_if_it_is_taken(
    make_server: MakeServer, tmp_path: Path, until: Until
) -> None:
    first, second = make_server("first"), make_server("second")
    for server in (first, second):
        in_a_pod(server, tmp_path)
    second.flags["--health-listen"] = first.flags["--health-listen"]
    first.start()
    await until(lambda: "waiting for addresses" in first.log())
    second.start()
    assert await second.ended() == 1
    assert "--health-listen" in json.loads(second.log().splitlines()[-1])["reason"]
