"""Cases of test-Worker.js: the process's life, settings, end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiortc import RTCCertificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from support.mediasoup_suite import DEADLINE, case, refused, rejected, seen, soon

from mediaserver.mediasoup import (
    CloseReason,
    RequestRejectedError,
    Worker,
    WorkerStartError,
    create_worker,
    find_worker_bin,
    observer,
)

StartWorker = Callable[..., Awaitable[Worker]]


async def ended(worker: Worker) -> None:
    await asyncio.wait_for(worker.wait_closed(), DEADLINE)


@case("test-Worker", "mediasoup.workerBin matches mediasoup-worker absolute path")
def test_worker_bin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = find_worker_bin()
    assert found.is_absolute()
    assert found.name == "mediasoup-worker"
    other = tmp_path / "other-worker"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o700)
    monkeypatch.setenv("MAFALDA_WORKER_BIN", str(other))
    assert find_worker_bin() == other


@case("test-Worker", "mediasoup.createWorker() succeeds")
async def test_create_worker(start_worker: StartWorker, tmp_path: Path) -> None:
    told: list[Worker] = []
    forget = observer.on_new_worker.subscribe(told.append)
    try:
        worker = await start_worker()
    finally:
        forget()
    assert told == [worker]
    assert worker.pid > 0
    assert (worker.closed, worker.subprocess_closed, worker.died) == (False, False, False)
    gone = soon(worker.on_subprocess_close)
    worker.close()
    await gone
    assert (worker.closed, worker.subprocess_closed, worker.died) == (True, True, False)
    certificate = RTCCertificate.generateCertificate()
    certificate_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(certificate._cert.public_bytes(Encoding.PEM))
    key_file.write_bytes(
        certificate._key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    settled = await start_worker(
        log_level="debug",
        log_tags=["info"],
        rtc_min_port=0,
        rtc_max_port=9_999,
        dtls_certificate_file=certificate_file,
        dtls_private_key_file=key_file,
        libwebrtc_field_trials="WebRTC-Bwe-AlrLimitedBackoff/Disabled/",
        app_data={"zone": "a"},
    )
    assert settled.app_data == {"zone": "a"}
    assert (settled.closed, settled.died) == (False, False)
    settled.close()
    await ended(settled)
    assert (settled.subprocess_closed, settled.died) == (True, False)


@case("test-Worker", "mediasoup.createWorker() with wrong settings rejects with TypeError")
@pytest.mark.parametrize(
    "settings",
    [
        {"log_level": "chicken"},
        {"rtc_min_port": 1_000, "rtc_max_port": 999},
        {"rtc_min_port": 1_000, "rtc_max_port": 65_536},
        {"dtls_certificate_file": "/not/there/cert.pem"},
        {"dtls_private_key_file": "/not/there/key.pem"},
    ],
    ids=["log level", "ports reversed", "port too high", "no certificate", "no key"],
)
async def test_create_worker_wrong_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(WorkerStartError, match="refuses its settings"):
        await create_worker(**settings)


@case("test-Worker", "mediasoup.createWorker() with wrong `workerBin` rejects with Error")
async def test_create_worker_wrong_bin(tmp_path: Path) -> None:
    with pytest.raises(WorkerStartError, match="no mediasoup-worker at"):
        await create_worker(worker_bin=tmp_path / "mediasoup-worker")


@case("test-Worker", "worker.updateSettings() succeeds")
async def test_update_settings(worker: Worker) -> None:
    await worker.update_settings(log_level="debug", log_tags=["ice"])


@case("test-Worker", "worker.updateSettings() with wrong settings rejects with TypeError")
async def test_update_settings_wrong(worker: Worker) -> None:
    wrong: Any = "chicken"
    await rejected(RequestRejectedError, worker.update_settings(log_level=wrong))
    await worker.dump()


@case("test-Worker", "worker.updateSettings() rejects with WorkerClosedError if closed")
async def test_update_settings_closed(worker: Worker) -> None:
    worker.close()
    await ended(worker)
    await refused(CloseReason.CLOSED, worker.update_settings(log_level="error"))


@case("test-Worker", "worker.dump() succeeds")
async def test_dump(start_worker: StartWorker) -> None:
    worker = await start_worker(worker_bin=find_worker_bin())
    dump = await worker.dump()
    assert dump.pid == worker.pid
    assert (dump.webrtc_server_ids, dump.router_ids) == ([], [])
    assert (dump.channel_request_handlers, dump.channel_notification_handlers) == ([], [])


@case("test-Worker", "worker.dump() rejects with WorkerClosedError if closed")
async def test_dump_closed(worker: Worker) -> None:
    worker.close()
    await ended(worker)
    await refused(CloseReason.CLOSED, worker.dump())


@case("test-Worker", "worker.getResourceUsage() succeeds")
async def test_get_resource_usage(worker: Worker) -> None:
    usage = await worker.get_resource_usage()
    assert usage.ru_maxrss > 0
    assert all(isinstance(getattr(usage, name), int) for name in usage.__struct_fields__)


@case("test-Worker", "worker.close() succeeds")
async def test_close(start_worker: StartWorker) -> None:
    worker = await start_worker(log_level="warn")
    closes = seen(worker.observer.on_close)
    worker.close()
    await ended(worker)
    assert closes == [CloseReason.CLOSED]
    assert (worker.closed, worker.subprocess_closed, worker.died) == (True, True, False)


@case("test-Worker", 'Worker emits "died" if mediasoup-worker process died unexpectedly')
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_died(start_worker: StartWorker, number: int) -> None:
    worker = await start_worker(log_level="warn")
    closes = seen(worker.observer.on_close)
    died = soon(worker.on_died)
    os.kill(worker.pid, number)
    error = await died
    assert error.pid == worker.pid
    assert closes == [CloseReason.WORKER_DIED]
    assert (worker.closed, worker.subprocess_closed, worker.died) == (True, True, True)


@case("test-Worker", "mediasoup-worker process ignores PIPE, HUP, ALRM, USR1 and USR2 signals")
async def test_ignored_signals(worker: Worker) -> None:
    deaths = seen(worker.on_died)
    for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(worker.pid, number)
        # The signal is delivered before the worker runs on, so an answer proves that it survived.
        assert (await worker.dump()).pid == worker.pid
    assert deaths == []
    assert (worker.closed, worker.subprocess_closed, worker.died) == (False, False, False)
    gone = soon(worker.on_subprocess_close)
    worker.close()
    await gone
