"""Two applications' workers on three media servers, behind the real gateway: media, and every fault."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from integration.mediasoup.rtp import (
    LOOPBACK,
    MEDIA_CODECS,
    RtpEndpoint,
    audio_parameters,
    numbers,
    plain_sink,
    plain_source,
    send_audio,
    until,
)
from mafalda_operator.cli.demo.stack import GATEWAY
from support.remote import HOST, Line, death

from benchmarks import remote_system
from benchmarks.remote_system import NAMESPACE, SECRET, RemoteSystem, server_layout
from mediaserver.mediasoup import (
    Router,
    Worker,
    WorkerStartError,
    create_worker,
    find_worker_bin,
)
from mediaserver.wire import tokens
from mediaserver.wire.worker_tokens import REVOKED

SERVERS = ("media-1", "media-2", "media-3")
FIRST_PORT = 25000
ROOT = Path(__file__).parents[3]


QUICK = "media-3"
"""Its workers wait for lost connections for 5 s only, so that tests of that need not take half a minute."""


def ports(index: int, offset: int) -> tuple[int, int]:
    first = FIRST_PORT + 200 * index + offset
    return first, first + 99


@pytest.fixture(scope="module")
def system() -> Iterator[RemoteSystem]:
    """Everything runs, with the settings that users get but for QUICK."""

    def servers(picker: Any) -> list[Any]:
        return [
            server_layout(
                name,
                picker,
                tenants=ports(index, 0),
                pipes=ports(index, 100),
                flags=(
                    "--tenant-workers=16",
                    *(("--tenant-resume-timeout=5s",) if name == QUICK else ()),
                ),
            )
            for index, name in enumerate(SERVERS)
        ]

    avoid = range(FIRST_PORT, FIRST_PORT + 200 * len(SERVERS))
    with remote_system.remote_system(servers, avoid=avoid) as running:
        try:
            yield running
        finally:
            for name in (*SERVERS, GATEWAY):
                print(f"--- {name}\n{running.stack.cluster.processes.log_tail(name, 30)}")


class Applications:
    """Workers and processes of a test, ended with it."""

    def __init__(self, system: RemoteSystem) -> None:
        self.system = system
        self._workers: list[Worker] = []
        self._processes: list[asyncio.subprocess.Process] = []

    async def worker(self, server: str | None = None, *, line: Line | None = None, **claims: Any) -> Worker:
        """A worker on that server; through a line, where one is given."""
        env = self.system.environment(server=server, **claims)
        if line is not None:
            env["MAFALDA_URL"] = f"ws://{HOST}:{line.port}"
        worker = await create_worker(
            worker_bin=env["MEDIASOUP_WORKER_BIN"], env={**env, "NO_PROXY": "*"}, request_timeout=60
        )
        self._workers.append(worker)
        return worker

    async def process(self, subject: str, server: str | None = None) -> asyncio.subprocess.Process:
        """Another process with two workers, in a process group of its own with their mafalda-worker."""
        env = {
            **self.system.environment(sub=subject, server=server),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "*",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", APPLICATION, env={**os.environ, **env},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._processes.append(process)
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 20) == b"ready\n"
        return process

    async def close(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            await worker.wait_closed()


@pytest_asyncio.fixture
async def applications(system: RemoteSystem) -> AsyncIterator[Applications]:
    stack = system.stack
    for server in stack.layout.servers:
        if not stack.cluster.processes.running(server.name):
            stack.start_server(server)
    await asyncio.to_thread(system.await_ready)
    made = Applications(system)
    yield made
    await made.close()


async def until_tenants(
    system: RemoteSystem, subjects: set[str], wanted: int, seconds: float = 15.0
) -> list[dict[str, Any]]:
    """The workers of these applications, once there are so many."""
    deadline = time.monotonic() + seconds
    while True:
        listed = [found for found in await asyncio.to_thread(system.workers) if found["subject"] in subjects]
        if len(listed) == wanted:
            return listed
        assert time.monotonic() < deadline, f"{wanted} workers are wanted; listed: {listed}"


async def router_of(worker: Worker) -> Router:
    return await worker.create_router(media_codecs=MEDIA_CODECS)


async def audio_crosses(near: Router, far: Router, ssrc: int) -> None:
    """RTP that comes in at one router goes out at the other, by the pipe between them."""
    source, sink = await RtpEndpoint.open(), await RtpEndpoint.open()
    try:
        incoming = await plain_source(near)
        producer = await incoming.produce(kind="audio", rtp_parameters=audio_parameters(ssrc))
        await near.pipe_to_router(producer_id=producer.id, router=far)
        outgoing = await plain_sink(far, sink)
        consumer = await outgoing.consume(producer_id=producer.id, rtp_capabilities=far.rtp_capabilities)
        sent = consumer.rtp_parameters.encodings[0].ssrc
        assert sent is not None
        # Packets that come before the pipe is up on both sides are lost, as anywhere.
        for first in range(1, 1000, 20):
            await send_audio(source, incoming, ssrc, 20, first=first)
            if len(numbers(sink.rtp, sent)) >= 60:
                break
        await until(lambda: len(numbers(sink.rtp, sent)) >= 60, "audio comes through")
    finally:
        source.transport.close()
        sink.transport.close()


async def test_two_applications_on_three_servers_with_pipes_between_their_workers(
    applications: Applications,
) -> None:
    shop = [await applications.worker(server, sub="shop") for server in SERVERS[:2]]
    school = [await applications.worker(server, sub="school") for server in SERVERS[1:]]
    for number, (one, other) in enumerate((shop, school)):
        near, far = await router_of(one), await router_of(other)
        await audio_crosses(near, far, 1000 + number)
        await audio_crosses(far, near, 2000 + number)
        for router in (near, far):
            for transport in router.transports:
                port = transport.tuple.local_port
                index = SERVERS.index(SERVERS[number] if router is near else SERVERS[number + 1])
                first = ports(index, 0)[0]
                assert first <= port < first + 200
    listed = await until_tenants(applications.system, {"shop", "school"}, 4)
    assert sorted((found["subject"], found["server"]) for found in listed) == [
        ("school", "media/media-2"),
        ("school", "media/media-3"),
        ("shop", "media/media-1"),
        ("shop", "media/media-2"),
    ]


async def test_pipes_that_the_application_connects_by_hand(applications: Applications) -> None:
    near, far = [await router_of(await applications.worker(server)) for server in SERVERS[:2]]
    ends = [
        await router.create_pipe_transport(listen_info=LOOPBACK, enable_srtp=True) for router in (near, far)
    ]
    for end, other in (ends, ends[::-1]):
        await end.connect(
            ip=other.tuple.local_address, port=other.tuple.local_port, srtp_parameters=other.srtp_parameters
        )
    source, sink = await RtpEndpoint.open(), await RtpEndpoint.open()
    incoming = await plain_source(near)
    producer = await incoming.produce(kind="audio", rtp_parameters=audio_parameters(77))
    piped = await ends[0].consume(producer_id=producer.id)
    await ends[1].produce(id=producer.id, kind="audio", rtp_parameters=piped.rtp_parameters)
    outgoing = await plain_sink(far, sink)
    consumer = await outgoing.consume(producer_id=producer.id, rtp_capabilities=far.rtp_capabilities)
    sent = consumer.rtp_parameters.encodings[0].ssrc
    assert sent is not None
    await send_audio(source, incoming, 77, 100)
    await until(lambda: len(numbers(sink.rtp, sent)) >= 90, "audio comes through")
    source.transport.close()
    sink.transport.close()


async def test_the_examples_application_runs_there_as_it_does_here(applications: Applications) -> None:
    system = applications.system
    here = {"MEDIASOUP_WORKER_BIN": str(find_worker_bin())}
    told = [await run_example(env) for env in (here, system.environment())]
    assert [lines[0] for lines in told] == ["heard: hello from the other worker"] * 2
    assert told[0][1].startswith("clients are told to send to 203.0.113.1, port ")
    assert told[1][1].startswith("clients are told to send to 127.0.0.1, port ")


async def run_example(environment: dict[str, str]) -> list[str]:
    modules = ROOT / "tests" / "node" / "node_modules"
    process = await asyncio.create_subprocess_exec(
        "node", str(ROOT / "examples" / "remote" / "app.js"),
        env={**os.environ, **environment, "NODE_PATH": str(modules), "NO_PROXY": "*"},
        stdout=subprocess.PIPE,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    return output.decode().splitlines()


# -- faults -------------------------------------------------------------------------------------------------


async def test_a_killed_server_ends_its_workers_and_no_others(applications: Applications) -> None:
    lost, other = await applications.worker(QUICK), await applications.worker("media-2")
    dying = death(lost, 60)
    await asyncio.to_thread(applications.system.stack.kill, QUICK)
    began = time.monotonic()
    error = await dying
    print(f"died after {time.monotonic() - began:.1f} s: {error}")
    assert "mafalda-worker: the worker is gone" in str(error)
    assert (await other.dump()).pid == other.pid


async def test_a_killed_gateway_is_a_pause(applications: Applications) -> None:
    worker = await applications.worker()
    stack = applications.system.stack
    await asyncio.to_thread(stack.kill, GATEWAY)
    asking = [asyncio.create_task(router_of(worker)) for _ in range(20)]
    began = time.monotonic()
    await asyncio.to_thread(stack.start_gateway)
    routers = await asyncio.wait_for(asyncio.gather(*asking), 25)
    print(f"answered {time.monotonic() - began:.1f} s after the gateway's new start")
    assert [router.id for router in worker.routers] == [router.id for router in routers]
    assert not worker.died


async def test_a_link_that_is_cut_for_one_ten_and_sixty_seconds(
    applications: Applications,
) -> None:
    """All three at once, each over a line of its own; neither side is told, as where packets are lost."""
    gateway = applications.system.stack.layout.gateway
    async with contextlib.AsyncExitStack() as lines:
        short, long, endless = [await lines.enter_async_context(Line(gateway)) for _ in range(3)]
        one, ten, sixty = [
            await applications.worker("media-1", line=line, sub="cut") for line in (short, long, endless)
        ]
        dying = death(sixty, 60)
        for line in (short, long, endless):
            line.freeze()
        began = time.monotonic()
        asking = [asyncio.create_task(router_of(worker)) for worker in (one, ten)]
        await asyncio.sleep(1)  # the fault lasts that long
        short.thaw()
        await asyncio.wait_for(asking[0], 10)
        assert short.connections == 1, "a second is no loss"
        await asyncio.sleep(began + 10 - time.monotonic())  # likewise
        long.thaw()
        await asyncio.wait_for(asking[1], 10)
        print(f"cut for 10 s: answered after {time.monotonic() - began:.1f} s")
        error = await dying
        print(f"cut for good: died after {time.monotonic() - began:.1f} s: {error}")
        assert "not reached again within 30 s" in str(error)
        assert not one.died
        assert not ten.died
        await until_tenants(applications.system, {"cut"}, 2)


@pytest.mark.parametrize("whom", ["the application", "the application and its workers' side"])
async def test_an_application_that_is_killed_leaves_nothing(applications: Applications, whom: str) -> None:
    process = await applications.process(whom, QUICK)
    await until_tenants(applications.system, {whom}, 2)
    if whom == "the application":
        process.kill()
        await process.wait()
        await until_tenants(applications.system, {whom}, 0)
        return
    os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
    # Nobody is left to say goodbye, so this takes the time in which a connection may come back.
    await until_tenants(applications.system, {whom}, 0)


@pytest.mark.parametrize("who", ["the application alone", "all of it", "the media server"])
async def test_who_stands_still_for_ten_seconds_goes_on(applications: Applications, who: str) -> None:
    stack = applications.system.stack
    process = await applications.process(who)
    listed = await until_tenants(applications.system, {who}, 2)
    if who == "the media server":
        pids = [stack.pids()[found["server"].partition("/")[2]] for found in listed]
    elif who == "all of it":
        pids = [-process.pid]  # the process group
    else:
        pids = [process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(10)  # the fault lasts that long
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go\n")
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    assert line == b"2 workers answer\n"
    process.stdin.close()
    await asyncio.wait_for(process.wait(), 10)
    await until_tenants(applications.system, {who}, 0)


APPLICATION = """
import asyncio, os, sys
from mediaserver.mediasoup import create_worker

async def main():
    workers = [await create_worker(worker_bin=os.environ["MEDIASOUP_WORKER_BIN"]) for _ in range(2)]
    print("ready", flush=True)
    if await asyncio.to_thread(sys.stdin.readline):
        answers = [await worker.dump() for worker in workers]
        print(len(answers), "workers answer", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    for worker in workers:
        worker.close()
        await worker.wait_closed()

asyncio.run(main())
"""


# -- tokens -------------------------------------------------------------------------------------------------


async def test_a_token_that_is_revoked_ends_its_workers_within_ten_seconds(
    applications: Applications,
) -> None:
    worker, other = await applications.worker(jti="stolen"), await applications.worker(jti="kept")
    dying = death(worker, 10)
    began = time.monotonic()
    await patch_secret(applications.system, base64.b64encode(b"stolen\n").decode())
    try:
        error = await dying
        print(f"ended {time.monotonic() - began:.2f} s after the patch")
        assert "its token has been revoked" in str(error)
        assert not other.died
        with pytest.raises(WorkerStartError, match="revoked"):
            await applications.worker(jti="stolen")
    finally:
        await patch_secret(applications.system, None)


async def patch_secret(system: RemoteSystem, revoked: str | None) -> None:
    """Sets the list of revoked tokens; None removes it."""
    patch = json.dumps({"data": {REVOKED: revoked}})
    kubectl = system.stack.cluster.kubectl
    await asyncio.to_thread(
        kubectl, "-n", NAMESPACE, "patch", "secret", SECRET, "--type=merge", f"--patch={patch}"
    )


async def test_tokens_of_one_kind_are_none_of_the_other(applications: Applications) -> None:
    system = applications.system
    kid, key = system.signing_key()
    now = time.time()
    claims = tokens.ParticipantClaims(
        iss=system.get("mediacluster", "main")["metadata"]["uid"],
        sub="alice", session="media/standup", nbf=now, exp=now + 60, jti="1",
    )  # fmt: skip
    participant = tokens.mint(claims, kid, key)
    env = {**system.environment(), "MAFALDA_TOKEN": participant, "NO_PROXY": "*"}
    with pytest.raises(WorkerStartError, match="wrongAudience"):
        await create_worker(worker_bin=env["MEDIASOUP_WORKER_BIN"], env=env)


async def test_another_version_is_told_with_both_and_the_remedy(applications: Applications) -> None:
    env = applications.system.environment()
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f"exec {remote_system.WORKER} 3<>/dev/null 4<>/dev/null",
        env={**os.environ, **env, "MEDIASOUP_VERSION": "3.20.0", "NO_PROXY": "*"},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    _, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 42
    assert b"mediasoup 3.20.0 needs a worker of its version and the media servers have 3.27.1" in errors
