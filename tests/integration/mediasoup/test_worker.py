"""The worker process: start, settings, end, and what its death does."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from integration.mediasoup.rtp import LOOPBACK, MEDIA_CODECS, next_value, until

from mediaserver.mediasoup import (
    ClosedError,
    CloseReason,
    InvalidArgumentError,
    RequestRejectedError,
    RequestTimeoutError,
    RtpCodecCapability,
    UnsupportedError,
    Worker,
    WorkerDiedError,
    WorkerStartError,
    create_worker,
)

StartWorker = Callable[..., Awaitable[Worker]]


async def test_a_worker_starts_answers_and_ends(start_worker: StartWorker) -> None:
    worker = await start_worker(log_level="warn", log_tags=["info", "ice"], rtc_min_port=20_000)
    dump = await worker.dump()
    assert dump.pid == worker.pid
    assert (dump.router_ids, dump.webrtc_server_ids) == ([], [])
    usage = await worker.get_resource_usage()
    assert usage.ru_maxrss > 1_000
    await worker.update_settings(log_level="error", log_tags=["rtp"])
    reasons: list[CloseReason] = []
    worker.on_close.subscribe(reasons.append)
    worker.close()
    worker.close()
    await asyncio.wait_for(worker.wait_closed(), 10)
    assert reasons == [CloseReason.CLOSED]
    assert not worker.died
    with pytest.raises(ClosedError, match=f"Worker {worker.pid} is closed"):
        await worker.dump()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"log_level": "chicken"},
        {"rtc_min_port": 1_000, "rtc_max_port": 999},
        {"dtls_certificate_file": "/not/there.pem", "dtls_private_key_file": "/not/there.key"},
    ],
)
async def test_wrong_settings_are_refused_with_the_workers_words(settings: dict[str, object]) -> None:
    with pytest.raises(WorkerStartError, match=r"refuses its settings.*it said"):
        await create_worker(**settings)  # type: ignore[arg-type]


async def test_the_workers_log_lines_are_logged(
    start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="mediaserver.mediasoup.worker"):
        worker = await start_worker(log_level="debug", log_tags=["info"])
        await worker.dump()
    assert f"[worker {worker.pid}]" in caplog.text
    assert "starting mediasoup-worker process [version:3.27.1]" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
async def test_when_it_dies_everything_in_it_closes_once(start_worker: StartWorker, number: int) -> None:
    worker, other = await start_worker(), await start_worker()
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    server = await worker.create_webrtc_server(listen_infos=[LOOPBACK])
    transport = await router.create_webrtc_transport(webrtc_server=server)
    seen: list[tuple[str, CloseReason]] = []
    for node in (worker, router, server, transport):
        node.on_close.subscribe(lambda reason, kind=node.KIND: seen.append((kind, reason)))  # type: ignore[misc]
    os.kill(worker.pid, number)
    error = await next_value(worker.on_died)
    if number == signal.SIGTERM:  # the worker handles it and ends by itself
        assert (error.signal, error.exit_code) == (None, 0)
    else:
        assert (error.signal, error.exit_code) == (number, None)
    assert seen == [
        (kind, CloseReason.WORKER_DIED) for kind in ("WebRtcTransport", "Router", "WebRtcServer", "Worker")
    ]
    assert worker.died
    assert transport.ice_state == "closed"
    with pytest.raises(ClosedError, match="worker died"):
        await router.dump()
    await other.dump()


async def test_a_thousand_requests_in_flight_fail_when_the_worker_dies(start_worker: StartWorker) -> None:
    worker = await start_worker()
    router = await worker.create_router()
    os.kill(worker.pid, signal.SIGSTOP)
    calls = [asyncio.create_task(router.dump()) for _ in range(1000)]
    await asyncio.sleep(0)
    os.kill(worker.pid, signal.SIGKILL)
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
    assert {type(result) for result in results} == {WorkerDiedError}
    with pytest.raises(ClosedError):
        await worker.dump()


async def test_a_stopped_worker_costs_a_deadline_and_goes_on_afterwards(start_worker: StartWorker) -> None:
    worker = await start_worker(request_timeout=0.2)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(RequestTimeoutError, match=r"WORKER_CREATE_ROUTER within 0\.2 s"):
        await worker.create_router()
    os.kill(worker.pid, signal.SIGCONT)
    # The router that it makes now was given up, so it is closed again.
    await until(lambda: worker._channel.pending_requests == 0, "late answers")
    assert (await worker.dump()).router_ids == []


async def test_a_stopped_worker_is_killed_after_close(
    start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediaserver.mediasoup.worker._CLOSE_GRACE", 0.2)
    worker = await start_worker()
    os.kill(worker.pid, signal.SIGSTOP)
    worker.close()
    await asyncio.wait_for(worker.wait_closed(), 5)


async def test_closing_the_worker_fails_calls_that_wait(start_worker: StartWorker) -> None:
    worker = await start_worker()
    router = await worker.create_router()
    calls = [asyncio.create_task(router.dump()), asyncio.create_task(worker.dump())]
    await asyncio.sleep(0)
    worker.close()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [result.reason for result in results if isinstance(result, ClosedError)] == [
        CloseReason.WORKER_CLOSED,
        CloseReason.CLOSED,
    ]


async def test_workers_do_not_hold_each_others_channels(start_worker: StartWorker) -> None:
    """Each ends when we close its channel, although others were started after it."""
    workers = [await start_worker() for _ in range(3)]
    for worker in workers:
        assert _open_sockets(worker.pid) == 2
    workers[0].close()
    await asyncio.wait_for(workers[0].wait_closed(), 2)
    assert [worker.closed for worker in workers] == [True, False, False]


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import asyncio
        from mediaserver.mediasoup import create_worker
        async def main():
            workers = [await create_worker() for _ in range(2)]
            print(*(worker.pid for worker in workers), flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """)
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert [os.getpgid(pid) for pid in pids] == pids
        parent.kill()

    async def gone() -> None:
        for pid in pids:
            await until(lambda pid=pid: not _runs(pid), f"worker {pid} ends")  # type: ignore[misc]

    asyncio.run(gone())


def _open_sockets(pid: int) -> int:
    descriptors = Path(f"/proc/{pid}/fd").iterdir()
    return sum(str(descriptor.readlink()).startswith("socket:") for descriptor in descriptors)


def _runs(pid: int) -> bool:
    """Whether the process exists and is more than a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_routers_have_the_capabilities_of_their_codecs(worker: Worker) -> None:
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    assert [codec.mime_type for codec in router.rtp_capabilities.codecs] == [
        "audio/opus",
        "video/VP8",
        "video/rtx",
    ]
    assert (await router.dump()).id == router.id
    assert (await worker.dump()).router_ids == [router.id]
    assert worker.routers == [router]
    router.update_media_codecs([RtpCodecCapability(mime_type="video/AV1", clock_rate=90_000)])
    assert router.rtp_capabilities.codecs[0].mime_type == "video/AV1"
    router.close()
    assert (await worker.dump()).router_ids == []
    assert worker.routers == []
    with pytest.raises(ClosedError, match=f"Router {router.id} is closed"):
        await router.dump()
    with pytest.raises(UnsupportedError, match="audio/chicken"):
        await worker.create_router(
            media_codecs=[RtpCodecCapability(mime_type="audio/chicken", clock_rate=8_000)]
        )


async def test_webrtc_servers_bind_their_ports_once(worker: Worker) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LOOPBACK])
    dump = await server.dump()
    assert dump.id == server.id
    (socket,) = dump.udp_sockets
    assert socket.ip == "127.0.0.1"
    assert dump.tcp_servers == []
    taken = type(LOOPBACK)(ip="127.0.0.1", port=socket.port)
    with pytest.raises(RequestRejectedError, match="WORKER_CREATE_WEBRTCSERVER"):
        await worker.create_webrtc_server(listen_infos=[taken])
    with pytest.raises(InvalidArgumentError, match="listen_infos"):
        await worker.create_webrtc_server(listen_infos=[])
    server.close()
    again = await worker.create_webrtc_server(listen_infos=[taken])
    assert (await again.dump()).udp_sockets[0].port == socket.port
