"""A media server as a process: starting, failing to start, telling its health, stopping, leaving nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from contract.control_client import dialled
from contract.control_contract import desired, ready, router_entry

from mediaserver.control.contract import ERROR_OTHER_CLUSTER, RouterState, WorkerState, router_key, worker_key
from mediaserver.wire.errors import RemoteError

# Fixtures come from conftest.py, whose types can't be imported from here.
ServerProcess = Any
MakeServer = Callable[..., ServerProcess]
Until = Callable[[Callable[[], bool]], Awaitable[None]]


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def slot_of(client: Any, slot: int) -> WorkerState:
    state = client.reported.get(worker_key(slot))
    assert isinstance(state, WorkerState)
    return state


# -- life -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_starts_and_stops_and_leaves_nothing(make_server: MakeServer, number: signal.Signals) -> None:
    server = make_server(workers=2)
    server.start()
    await server.ready()
    workers = server.worker_pids()
    assert len(workers) == 2
    server.send(number)
    assert await server.ended() == 0
    assert not any(alive(pid) for pid in workers)
    for line in server.log().splitlines():
        event = json.loads(line)
        assert {"ts", "level", "message"} <= event.keys()
        assert event["level"] not in ("error", "critical"), line
    for port in (server.internal, server.participants, server.health, server.client_port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))


async def test_stops_while_it_starts(make_server: MakeServer, until: Until) -> None:
    server = make_server(workers=2)
    server.start()
    await until(lambda: "listening" in server.log())
    server.send(signal.SIGTERM)
    assert await server.ended() == 0


async def test_workers_end_with_a_killed_server(make_server: MakeServer, until: Until) -> None:
    server = make_server(workers=2)
    server.start()
    await server.ready()
    workers = server.worker_pids()
    server.kill()
    await until(lambda: not any(alive(pid) for pid in workers))


async def test_connections_are_closed_when_it_stops(server: ServerProcess) -> None:
    async with dialled(server.control_url) as client:
        await client.hello(server.key)
        await client.apply(desired(router_entry("a", 0)))
        await client.until(lambda: ready(client, "a"), "the router is ready")
        server.send(signal.SIGTERM)
        await client.until(lambda: client.ended is not None, "the connection ends")
        assert "stops" in str(client.ended)
        assert await server.ended() == 0


# -- settings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--internal-listen", "nowhere", ["--internal-listen", "HOST:PORT"]),
        ("--pipe-ports", "20099-20000", ["--pipe-ports", "20099-20000"]),
        ("--pipe-address", "0.0.0.0", ["--pipe-address", "internal"]),
        ("--client-address", "0.0.0.0", ["--client-address", "--announce"]),
        ("--client-address", "media.example.com", ["--client-address", "IP address"]),
        ("--workers", "0", ["--workers", "1 to"]),
        ("--drain-timeout", "soon", ["--drain-timeout", "15m"]),
        ("--client-port", "65536", ["--client-port"]),
    ],
)
async def test_a_wrong_setting_is_named(
    make_server: MakeServer, flag: str, value: str, words: list[str]
) -> None:
    server = make_server()
    server.flags[flag] = value
    server.start()
    assert await server.ended() == 2
    for word in words:
        assert word in server.log()


async def test_overlapping_ports_are_named(make_server: MakeServer) -> None:
    server = make_server()
    server.flags["--pipe-ports"] = f"{server.client_port}-{server.client_port + 9}"
    server.start()
    assert await server.ended() == 2
    assert "--pipe-ports" in server.log()
    assert "--client-port" in server.log()


async def test_ephemeral_ports_are_warned_of(make_server: MakeServer) -> None:
    server = make_server()
    server.flags["--pipe-ports"] = "40000-40009"
    server.start()
    await server.ready()
    assert "ephemeral" in server.log()


async def test_settings_from_the_environment(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make_server()
    monkeypatch.setenv("MAFALDA_MEDIASERVER_HEALTH_LISTEN", server.flags.pop("--health-listen"))
    monkeypatch.setenv("MAFALDA_CLUSTER_KEY_FILE", server.flags.pop("--cluster-key-file"))
    server.start()
    await server.ready()


@pytest.mark.parametrize("listener", ["internal", "participants", "health"])
async def test_a_port_in_use_is_named_with_its_flag(make_server: MakeServer, listener: str) -> None:
    server = make_server()
    with socket.create_server(("127.0.0.1", getattr(server, listener))):
        server.start()
        assert await server.ended() == 1
    last = json.loads(server.log().splitlines()[-1])
    assert f"--{listener}-listen" in last["reason"]
    assert f"127.0.0.1:{getattr(server, listener)}" in last["reason"]


async def test_a_missing_key_or_worker_is_named(make_server: MakeServer, tmp_path: Path) -> None:
    for flag in ("--cluster-key-file", "--worker-bin"):
        server = make_server(f"without{flag}")
        server.flags[flag] = str(tmp_path / "missing")
        server.start()
        assert await server.ended() == 1
        last = json.loads(server.log().splitlines()[-1])
        assert last["message"] == "cannot start"
        assert str(tmp_path / "missing") in last["reason"]


# -- workers ----------------------------------------------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_its_router_reopened(
    server: ServerProcess, until: Until
) -> None:
    (pid,) = server.worker_pids()
    async with dialled(server.control_url) as client:
        await client.hello(server.key)
        await client.apply(desired(router_entry("a", 0)))
        await client.until(lambda: ready(client, "a"), "the router is ready")
        first = client.reported[router_key("shop", "a")]
        os.kill(pid, signal.SIGKILL)
        await client.until(
            lambda: ready(client, "a") and client.reported[router_key("shop", "a")] != first,
            "the router is open again",
        )
        worker = slot_of(client, 0)
        assert (worker.state, worker.restarts) == ("Running", 1)
        (dump,) = (await client.dump()).workers
        assert dump["pid"] != pid
        assert [router["name"] for router in dump["routers"]] == ["shop/a"]
    assert server.worker_pids() == [dump["pid"]]
    await server.ready()
    _, metrics = await server.get("/metrics")
    assert 'mafalda_mediaserver_worker_restarts_total{slot="0"} 1.0' in metrics
    await until(lambda: not alive(pid))


async def test_a_worker_port_in_use_is_told_and_taken_when_it_is_free(
    make_server: MakeServer, until: Until
) -> None:
    server = make_server(workers=2)
    with socket.create_server(("127.0.0.1", server.client_port + 1)):
        server.start()
        await until(lambda: "--internal-listen" in server.log())
        async with dialled(server.control_url) as client:
            await client.hello(server.key)
            await client.until(lambda: failing(client, 1), "the slot is failing")
            for word in (f"127.0.0.1:{server.client_port + 1}", "--client-port"):
                assert word in slot_of(client, 1).reason
            assert slot_of(client, 0).state == "Running"
            status, body = await server.get("/readyz")
            assert status == 503
            assert "worker slot 1 is Failing" in body
            assert "--client-port" in body
    await server.ready()


def failing(client: Any, slot: int) -> bool:
    state = client.reported.get(worker_key(slot))
    return isinstance(state, WorkerState) and state.state == "Failing"


@pytest.mark.parametrize(
    "codec",
    [
        {"kind": "video", "mimeType": "video/H266", "clockRate": 90000},
        {"kind": "video", "mimeType": "video/VP8"},
        {"colour": "blue"},
    ],
)
async def test_codecs_that_cannot_be_are_told_and_may_be_corrected(
    server: ServerProcess, codec: dict[str, Any]
) -> None:
    async with dialled(server.control_url) as client:
        await client.hello(server.key)
        wrong = msgspec.structs.replace(router_entry("a", 0), media_codecs=[codec])
        await client.apply(desired(wrong))
        key = router_key("shop", "a")
        await client.until(lambda: key in client.reported, "the problem is told")
        state = client.reported[key]
        assert isinstance(state, RouterState)
        assert (state.ready, state.reason) == (False, "InvalidCodecs")
        assert "mediaCodecs" in state.message
        await client.apply(desired(router_entry("a", 0)))
        await client.until(lambda: ready(client, "a"), "the corrected router is ready")


# -- membership -------------------------------------------------------------------------------------------


async def greets(server: ServerProcess, uid: str) -> None:
    async with dialled(server.control_url) as client:
        await client.hello(server.key, cluster_uid=uid, cluster_name=f"media/{uid}")


async def test_the_cluster_is_kept_over_a_restart_until_it_is_to_be_forgotten(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server()
    server.flags["--state-dir"] = str(tmp_path / "state")
    server.start()
    await server.ready()
    await greets(server, "one")
    server.kill()

    server.start()
    await server.ready()
    with pytest.raises(RemoteError) as refused:
        await greets(server, "two")
    assert refused.value.code == ERROR_OTHER_CLUSTER
    for word in ("media/one", "media/two", "--forget"):
        assert word in refused.value.message
    server.send(signal.SIGTERM)
    assert await server.ended() == 0

    server.start("--forget")
    await server.ready()
    await greets(server, "two")


# -- garbage ----------------------------------------------------------------------------------------------


async def test_garbage_hurts_nobody(server: ServerProcess) -> None:
    async with dialled(server.control_url) as client, aiohttp.ClientSession() as session:
        await client.hello(server.key)
        await client.apply(desired(router_entry("a", 0)))
        await client.until(lambda: ready(client, "a"), "the router is ready")
        for path in ("/control", "/peer", "/nothing"):
            async with session.get(f"http://127.0.0.1:{server.internal}{path}") as response:
                assert 400 <= response.status < 500
        reader, writer = await asyncio.open_connection("127.0.0.1", server.internal)
        writer.write(os.urandom(4096))
        await writer.drain()
        await reader.read()
        writer.close()
        for path in ("/control", "/peer"):
            async with session.ws_connect(f"http://127.0.0.1:{server.internal}{path}") as garbler:
                await garbler.send_bytes(os.urandom(100))
                while (await garbler.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                    continue
        await client.resync()
        assert ready(client, "a")
    await server.ready()
