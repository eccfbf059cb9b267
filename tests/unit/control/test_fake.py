"""The faults that a fake media server can show, as its diallers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from contract.control_client import ControlClient, dialled
from contract.control_contract import desired, ready, router_entry

from mediaserver.control.contract import (
    CONTROL_PATH,
    Address,
    LinkEntry,
    LinkState,
    PeerAge,
    RouterLoad,
    RouterState,
    WorkerState,
    link_key,
    router_key,
)
from mediaserver.control.fake import FakeMediaServer, FakeNetwork
from mediaserver.wire.errors import (
    ConnectionLost,
    DeadlineExceeded,
    MembershipError,
    ProtocolError,
    RemoteError,
)
from mediaserver.wire.membership import ClusterKey

KEY = ClusterKey(b"the key of the cluster under test")
A = router_key("shop", "a")


@pytest.fixture
async def server() -> AsyncIterator[FakeMediaServer]:
    async with FakeMediaServer(KEY) as server:
        yield server


def url(server: FakeMediaServer) -> str:
    return f"http://{server.address}{CONTROL_PATH}"


def router(client: ControlClient, name: str = "a") -> RouterState:
    state = client.reported[router_key("shop", name)]
    assert isinstance(state, RouterState)
    return state


async def test_hang(server: FakeMediaServer) -> None:
    server.faults.hang = True
    async with dialled(url(server)) as client:
        with pytest.raises(DeadlineExceeded, match="challenge"):
            await client.hello(KEY)


async def test_garbage(server: FakeMediaServer) -> None:
    server.faults.garbage = True
    async with dialled(url(server)) as client:
        await client.until(lambda: client.ended is not None, "the dialler gives up")
        assert isinstance(client.ended, ProtocolError)


async def test_other_protocol(server: FakeMediaServer) -> None:
    server.faults.control_protocol = 99
    async with dialled(url(server)) as client:
        with pytest.raises(RemoteError, match="99 is"):
            await client.hello(KEY)


async def test_other_pipe_protocol(server: FakeMediaServer) -> None:
    server.faults.pipe_protocol = 99
    async with dialled(url(server)) as client:
        assert (await client.hello(KEY)).pipe_protocol == 99


async def test_bad_proof(server: FakeMediaServer) -> None:
    server.faults.bad_proof = True
    async with dialled(url(server)) as client:
        with pytest.raises(MembershipError):
            await client.hello(KEY)


async def test_silence(server: FakeMediaServer) -> None:
    async with dialled(url(server)) as client:
        await client.hello(KEY)
        await client.apply(desired(router_entry("a", 0)))
        server.silence()
        with pytest.raises(DeadlineExceeded):
            await client.connection.call("dump", router_entry("a", 0), RouterState, timeout=0.1)
        heard = client.connection.last_heard
        await asyncio.sleep(1.2)
        assert client.connection.last_heard == heard
        assert not client.connection.closed
        server.wake()
        await client.until(lambda: bool(client.loads), "it goes on where it was")
        assert ready(client, "a")


async def test_killed_and_restarted(server: FakeMediaServer) -> None:
    address, instance = server.address, server.instance_id
    async with dialled(url(server)) as client:
        await client.hello(KEY, epoch=3)
        await client.apply(desired(router_entry("a", 0)), epoch=3)
        await server.kill()
        await client.until(lambda: client.ended is not None, "the connection ends")
    with pytest.raises(ConnectionLost):
        async with dialled(url(server)):
            pass
    await server.restart()
    assert server.address == address
    async with dialled(url(server)) as client:
        hello = await client.hello(KEY, epoch=3)
        assert hello.instance_id != instance
        assert hello.highest_epoch == 3
        await client.until(lambda: bool(client.reported), "a report")
        assert A not in client.reported


async def test_forget(server: FakeMediaServer) -> None:
    async with dialled(url(server)) as client:
        await client.hello(KEY, epoch=9)
    server.forget()
    async with dialled(url(server)) as client:
        assert (await client.hello(KEY, cluster_uid="uid-2", epoch=1)).cluster_uid == "uid-2"


async def test_converging_takes_its_time() -> None:
    async with FakeMediaServer(KEY, converge_delay=0.3) as server, dialled(url(server)) as client:
        await client.hello(KEY)
        await client.apply(desired(router_entry("a", 0)))
        await client.resync()
        assert A not in client.reported
        await client.until(lambda: ready(client, "a"), "ready in the end")


async def test_workers_routers_and_links_that_fail(server: FakeMediaServer) -> None:
    link = LinkEntry(
        namespace="shop",
        session_uid="uid-standup",
        local_router="a",
        remote_router="b",
        remote_server="media/main-2",
        remote_peer=Address(host="127.0.0.1", port=1),
        srtp=True,
        rtx=True,
    )
    key = link_key("shop", "b", "a")
    async with dialled(url(server)) as client:
        await client.hello(KEY)
        await client.apply({**desired(router_entry("a", 0)), key: link})
        await client.until(lambda: ready(client, "a"), "ready")
        state = client.reported[key]
        assert isinstance(state, LinkState)
        assert state.ready
        server.faults.links[key] = ("PipeProtocol", "the other end speaks 2")
        server.faults.workers[0] = WorkerState(slot=0, state="Failing", restarts=5, reason="it keeps dying")
        server.report()
        await client.until(lambda: not ready(client, "a"), "told")
        assert (router(client).reason, router(client).message) == ("WorkerFailing", "it keeps dying")
        state = client.reported[key]
        assert isinstance(state, LinkState)
        assert (state.ready, state.reason) == (False, "PipeProtocol")
        server.faults.workers.clear()
        server.faults.routers[A] = ("Unsupported", "no such codec")
        server.report()
        await client.until(lambda: router(client).reason == "Unsupported", "told")


async def test_load_as_set(server: FakeMediaServer) -> None:
    server.router_loads[A] = RouterLoad(participants=3, producers=4, consumers=5)
    server.worker_cpu[1] = 0.5
    server.peers = [PeerAge(server="media/main-2", instance_id="x", age=4.0)]
    async with dialled(url(server)) as client:
        await client.hello(KEY)
        await client.apply(desired(router_entry("a", 0)))
        await client.until(lambda: bool(client.loads), "load")
    load = client.loads[-1]
    assert load.routers[A].participants == 3
    assert load.workers[1].cpu == 0.5
    assert load.peers == server.peers


async def test_fakes_hear_each_other() -> None:
    now = 100.0
    network = FakeNetwork()
    first = FakeMediaServer(KEY, network=network, clock=lambda: now)
    second = FakeMediaServer(KEY, network=network, clock=lambda: now)
    async with first, second:
        async with dialled(url(second)) as client:
            await client.hello(KEY, server_name="media/main-2")
        link = LinkEntry(
            namespace="shop",
            session_uid="u",
            local_router="a",
            remote_router="b",
            remote_server="media/main-2",
            remote_peer=None,
            srtp=True,
            rtx=True,
        )
        first.set_desired({"link": link})
        assert first.load().peers == [PeerAge(server="media/main-2", instance_id=second.instance_id, age=0.0)]
        second.silence()
        now += 4
        assert first.load().peers[0].age == 4.0
        second.wake()
        assert first.load().peers[0].age == 0.0
