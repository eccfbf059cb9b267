"""The pool with real workers: what unit tests with fakes can't show."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from mafalda_operator.cli.local.ports import PortPicker

from mediaserver.pool import PoolConfig, Probing, WorkerPool, WorkerSlot

HOST = "127.0.0.1"


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    ports = PortPicker(host=HOST)
    pipes = ports.range(4)
    config = PoolConfig(
        workers=1,
        client_host=HOST,
        client_port=ports.range(1).start,
        pipe_host=HOST,
        pipe_port=pipes.start,
        pipe_end_port=pipes.stop - 1,
        announced=("media.example.com",),
    )
    made = WorkerPool(config, probing=Probing(interval=0.05, deadline=0.2, misses=3))
    await made.start()
    yield made
    await made.close()


async def next_up(pool: WorkerPool) -> WorkerSlot:
    future: asyncio.Future[WorkerSlot] = asyncio.get_running_loop().create_future()
    pool.on_slot_up.once(future.set_result)
    return await asyncio.wait_for(future, 10)


async def test_a_worker_that_hangs_is_killed_and_replaced(pool: WorkerPool) -> None:
    (slot,) = pool.slots
    assert slot.worker is not None
    downs: list[str] = []
    pool.on_slot_down.subscribe(lambda down: downs.append(down[1]))
    pid = slot.worker.pid
    router = await slot.worker.create_router()
    waiting = asyncio.create_task(next_up(pool))
    os.kill(pid, signal.SIGSTOP)
    await waiting
    assert slot.worker.pid != pid
    assert slot.restarts == 1
    assert router.closed
    assert downs == [f"worker {pid} did not answer 3 times in a row and was killed"]


async def test_slots_listen_on_their_port_and_pipes_on_theirs(pool: WorkerPool) -> None:
    (slot,) = pool.slots
    assert slot.worker is not None
    assert slot.webrtc_server is not None
    dump = await slot.webrtc_server.dump()
    for sockets in (dump.udp_sockets, dump.tcp_servers):
        assert [(socket.ip, socket.port) for socket in sockets] == [(HOST, pool.config.client_port)]
    router = await slot.worker.create_router()
    ports = set()
    for _ in range(4):
        pipe = await router.create_pipe_transport(listen_info=pool.pipe_listen_info())
        assert pipe.tuple.local_address == HOST, "pipes are never announced"
        ports.add(pipe.tuple.local_port)
    assert ports == set(range(pool.config.pipe_port, pool.config.pipe_end_port + 1))
