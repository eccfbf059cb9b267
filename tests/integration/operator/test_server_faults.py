"""Media servers that die, fall silent, lie, or are none."""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
import time

import pytest
from integration.operator.world import World
from mafalda_operator.effects.api import EVENTS, SERVERS, SESSIONS

from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.membership import ClusterKey


@pytest.mark.parametrize("how", ["killed", "silent"])
async def test_a_lost_servers_router_is_replaced(world: World, how: str) -> None:
    await world.cluster_of(servers=3)
    await world.operator()
    await world.session("standup", routers=3)
    await world.ready("standup")
    await world.connected()
    before = await world.routers()
    victim = world.servers.pop("m1")
    started = time.monotonic()
    if how == "killed":
        await victim.kill()
    else:
        victim.silence()
    try:

        async def replaced() -> bool:
            routers = await world.routers()
            places = {(server, slot) for _, server, slot in routers.values()}
            return len(routers) == 3 and len(places) == 3 and all(server != "m1" for server, _ in places)

        await world.eventually(replaced, "replaced", timeout=30)
        await world.ready("standup")
        print(f"replaced {time.monotonic() - started:.1f} s after the server was {how}")
        after = await world.routers()
        kept = {name for name, (_, server, _) in before.items() if server != "m1"}
        assert kept <= after.keys()
        events = (await world.api.list(EVENTS, world.name)).items
        assert any(event["reason"] == "ServerLost" for event in events)
    finally:
        victim.wake()
        await victim.close()


async def test_a_server_that_comes_back_after_its_loss_is_cleaned_up(world: World) -> None:
    await world.cluster_of(servers=3)
    await world.operator()
    await world.session("standup", routers=2)
    await world.ready("standup")
    (name, *_) = {server for _, server, _ in (await world.routers()).values()}
    victim = world.servers[name]
    victim.silence()

    async def moved() -> bool:
        return all(server != name for _, server, _ in (await world.routers()).values())

    await world.eventually(moved, "moved away", timeout=30)
    victim.wake()
    await world.connected(name)
    await world.consistent(2, sessions=1)


async def test_cut_off_from_all_servers_nothing_moves(world: World) -> None:
    await world.cluster_of(servers=3)
    await world.operator()
    await world.session("standup", routers=3)
    await world.ready("standup")
    await world.connected()
    before = await world.routers()
    for server in world.servers.values():
        server.silence()

    async def frozen() -> bool:
        names = [(await world.condition(SERVERS, name, "Connected")).get("status") for name in world.servers]
        return set(names) == {"False"}

    await world.eventually(frozen, "all servers not connected", timeout=30)
    await asyncio.sleep(4)
    assert await world.routers() == before
    for server in world.servers.values():
        server.wake()
    await world.connected(timeout=30)
    await world.consistent(3, sessions=1)
    assert await world.routers() == before
    await world.ready("standup")


async def connected_reason(world: World, name: str, reason: str) -> str:
    """Waits for Connected=False with that reason; its message."""

    async def told() -> bool:
        condition = await world.condition(SERVERS, name, "Connected")
        return (condition.get("status"), condition.get("reason")) == ("False", reason)

    await world.eventually(told, f"Connected=False {reason}")
    return (await world.condition(SERVERS, name, "Connected"))["message"]


async def still_works(world: World) -> None:
    """Others are untouched by a bad server."""
    await world.session("standup", routers=2)
    await world.ready("standup")
    assert {server for _, server, _ in (await world.routers()).values()} == {"m0", "m1"}


async def test_an_endpoint_that_refuses(world: World) -> None:
    await world.cluster_of(servers=2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    await world.media_server("bad", f"127.0.0.1:{port}")
    await world.operator()
    message = await connected_reason(world, "bad", "Refused")
    assert f"127.0.0.1:{port}" in message
    assert "--internal-listen" in message
    await still_works(world)


async def test_an_endpoint_that_hangs(world: World) -> None:
    await world.cluster_of(servers=2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        await world.media_server("bad", f"127.0.0.1:{deaf.getsockname()[1]}")
        await world.operator()
        await connected_reason(world, "bad", "Timeout")
        await still_works(world)


async def test_an_endpoint_that_takes_the_connection_and_says_nothing(world: World) -> None:
    await world.cluster_of(servers=2)
    bad = await world.server("bad")
    bad.faults.hang = True
    await world.operator()
    await connected_reason(world, "bad", "Timeout")
    await still_works(world)


async def test_an_endpoint_that_speaks_garbage(world: World) -> None:
    await world.cluster_of(servers=2)

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\xffSSH-2.0-nonsense\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    await world.media_server("noise", f"127.0.0.1:{port}")
    bad = await world.server("bad")
    bad.faults.garbage = True
    await world.operator()
    await connected_reason(world, "noise", "Garbage")
    await connected_reason(world, "bad", "Garbage")
    await still_works(world)
    listener.close()


async def test_another_control_protocol(world: World) -> None:
    await world.cluster_of(servers=2)
    bad = await world.server("bad")
    bad.faults.control_protocol = 99
    await world.operator()
    await connected_reason(world, "bad", "VersionSkew")
    await still_works(world)


async def test_another_cluster_and_its_remedy(world: World) -> None:
    await world.cluster_of(servers=2)
    bad = await world.server("bad", cluster_uid="somebody-elses")
    bad.cluster_name = "other/theirs"
    await world.operator()
    message = await connected_reason(world, "bad", "OtherCluster")
    assert "--forget" in message
    assert "other/theirs" in message
    await still_works(world)
    bad.forget()
    await world.connected("bad")


async def test_another_cluster_key(world: World) -> None:
    await world.cluster_of(servers=2)
    stranger = FakeMediaServer(ClusterKey(secrets.token_bytes(32)))
    await stranger.start()
    try:
        await world.media_server("stranger", stranger.endpoint)
        bad = await world.server("bad")
        bad.faults.bad_proof = True
        await world.operator()
        assert "--cluster-key-file" in await connected_reason(world, "stranger", "BadProof")
        assert "--cluster-key-file" in await connected_reason(world, "bad", "BadProof")
        await still_works(world)
    finally:
        await stranger.close()


async def test_another_pipe_protocol_is_told_in_the_session(world: World) -> None:
    await world.cluster()
    await world.server("m0", workers=1)
    other = await world.server("m1", workers=1)
    await world.operator()
    await world.session("standup", routers=2)
    await world.ready("standup")
    await other.kill()
    other.faults.pipe_protocol = 99
    await other.start()

    async def told() -> bool:
        return (await world.condition(SESSIONS, "standup", "Linked")).get("reason") == "PipeProtocol"

    await world.eventually(told, "Linked=False PipeProtocol")
    assert (await world.condition(SESSIONS, "standup", "Available"))["status"] == "True"
    await world.session("later", routers=2)

    async def refused() -> bool:
        condition = await world.condition(SESSIONS, "later", "Scheduled")
        return condition.get("status") == "False" and "pipe protocol" in condition["message"]

    await world.eventually(refused, "no session is placed over servers that cannot be linked")


async def test_a_server_whose_key_file_differs_by_form_is_the_same(world: World) -> None:
    """The key may be given raw or as base64."""
    secret = base64.b64decode(world.key_file.read_text())
    same = FakeMediaServer(ClusterKey(secret))
    await same.start()
    try:
        await world.cluster()
        await world.media_server("same", same.endpoint)
        await world.operator()
        await world.connected("same")
    finally:
        await same.close()
