"""A worker of our own binding that runs on a media server: what it does, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support.media_server import until
from support.remote import (
    SHIM,
    TENANT_PORTS,
    Line,
    RemoteServer,
    death,
    environment,
    process_exists,
    remote_worker,
    tenant_settings,
    token,
    worker_tokens,
)

from mediaserver.mediasoup import (
    InvalidArgumentError,
    RequestRejectedError,
    TransportListenInfo,
    WorkerStartError,
    create_worker,
)
from mediaserver.mediasoup.rtp_parameters import (
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
)

AUDIO = RtpCodecCapability(mime_type="audio/opus", clock_rate=48000, channels=2)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[RemoteServer]:
    async with RemoteServer() as running:
        yield running


async def test_a_worker_is_to_its_application_as_if_it_ran_here(server: RemoteServer) -> None:
    async with remote_worker(server.port) as worker:
        (tenant,) = server.tenants.workers()
        assert tenant.pid != worker.pid
        assert (await worker.dump()).pid == worker.pid
        usage = await worker.get_resource_usage()
        assert usage.ru_maxrss > 0
        router = await worker.create_router(media_codecs=[AUDIO])
        info = TransportListenInfo(ip="0.0.0.0", protocol="udp")
        transport = await router.create_webrtc_transport(listen_infos=[info])
        (candidate,) = transport.ice_candidates
        assert candidate.address == "127.0.0.1"
        assert TENANT_PORTS[0] <= candidate.port <= TENANT_PORTS[1]
        real = tenant.pid
    await until(lambda: not process_exists(real), "the real worker is gone")
    await until(lambda: not server.tenants.workers(), "no tenant is left")


async def test_figures_of_tenants(server: RemoteServer) -> None:
    async with remote_worker(server.port, environment(server.port, token=token(sub="shop", jti="t1"))) as one:
        router = await one.create_router(media_codecs=[AUDIO])
        await router.create_plain_transport(listen_info=TransportListenInfo(ip="127.0.0.1", protocol="udp"))
        load = server.tenants.load()
        assert (load.workers, load.by_token) == (1, {"t1": 1})
        assert load.free == server.tenants.settings.most_workers - 1
        (worker,) = server.tenants.workers()
        assert (worker.subject, worker.token, worker.attached) == ("shop", "t1", True)
        assert worker.transports == 1
        assert worker.memory > 1_000_000


async def test_wrong_settings_are_the_workers_own_answer(server: RemoteServer) -> None:
    with pytest.raises(WorkerStartError, match="refuses its settings"):
        await create_worker(
            worker_bin=SHIM,
            env=environment(server.port),
            log_level="loud",  # type: ignore[arg-type]
        )
    await until(lambda: not server.tenants.workers(), "no tenant is left")


@pytest.mark.parametrize(
    ("claims", "what"),
    [
        ({"exp": 1000, "nbf": 0}, r"the token is refused \(expired\)"),
        ({"iss": "other"}, r"the token is refused \(wrongIssuer\)"),
    ],
)
async def test_a_refused_token_is_told_in_one_line(
    server: RemoteServer, claims: dict[str, Any], what: str
) -> None:
    with pytest.raises(WorkerStartError, match=what):
        await create_worker(worker_bin=SHIM, env=environment(server.port, token=token(**claims)))


async def test_bounds_of_a_token(server: RemoteServer) -> None:
    env = environment(server.port, token=token(workers=1, consumers=1))
    async with remote_worker(server.port, env) as worker:
        with pytest.raises(WorkerStartError, match="bound of 1 workers is reached"):
            await create_worker(worker_bin=SHIM, env=env)
        router = await worker.create_router(media_codecs=[AUDIO])
        transport = await router.create_direct_transport()
        producer = await transport.produce(
            kind="audio",
            rtp_parameters=RtpParameters(
                codecs=[
                    RtpCodecParameters(mime_type="audio/opus", payload_type=100, clock_rate=48000, channels=2)
                ],
                encodings=[RtpEncodingParameters(ssrc=1)],
            ),
        )
        consumer = await transport.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
        with pytest.raises(RequestRejectedError, match="bound of 1 consumers"):
            await transport.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
        consumer.close()
        await worker.dump()  # a close counts once the worker has answered it
        await transport.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)


async def test_no_room_is_told(server: RemoteServer) -> None:
    async with RemoteServer(tenant_settings(most_workers=1)) as small, remote_worker(small.port):
        env = environment(small.port, MAFALDA_CONNECT_TIMEOUT="0.3")
        with pytest.raises(WorkerStartError, match="all 1 places for applications' workers are taken"):
            await create_worker(worker_bin=SHIM, env=env)


async def test_signals_go_to_the_worker_and_its_end_comes_back(server: RemoteServer) -> None:
    async with remote_worker(server.port) as worker:
        dying = death(worker)
        os.kill(worker.pid, signal.SIGTERM)
        error = await dying
        assert error.exit_code == 0 or error.signal == signal.SIGTERM


async def test_a_killed_worker_ends_the_application_side_by_the_same_signal(server: RemoteServer) -> None:
    async with remote_worker(server.port) as worker:
        dying = death(worker)
        (tenant,) = server.tenants.workers()
        os.kill(tenant.pid, signal.SIGKILL)
        assert (await dying).signal == signal.SIGKILL
    await until(lambda: not server.tenants.workers(), "no tenant is left")


async def test_a_killed_shim_leaves_nothing_behind_after_the_resume_timeout() -> None:
    async with (
        RemoteServer(tenant_settings(resume_timeout=0.5)) as server,
        remote_worker(server.port) as worker,
    ):
        (tenant,) = server.tenants.workers()
        dying = death(worker)
        os.kill(worker.pid, signal.SIGKILL)
        await dying
        await until(lambda: not server.tenants.workers(), "no tenant is left")
        assert not process_exists(tenant.pid)


async def test_revoking_ends_workers_and_says_so(server: RemoteServer) -> None:
    by_jti = environment(server.port, token=token("1", jti="gone"))
    by_kid = environment(server.port, token=token("2", jti="stays"))
    async with remote_worker(server.port, by_jti) as one, remote_worker(server.port, by_kid) as other:
        dying = death(one)
        server.tenants.set_tokens(worker_tokens(revoked=("gone",)))
        assert "its token has been revoked" in str(await dying)
        assert not other.died
        dying = death(other)
        server.tenants.set_tokens(worker_tokens(kids=("1",), revoked=("gone",)))
        assert "the key '2'" in str(await dying)


def openssl(*arguments: object) -> str:
    told = subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True)
    return told.stdout.strip()


async def test_dtls_files_live_on_the_server_only_while_they_are_read(
    server: RemoteServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x")
    await asyncio.to_thread(openssl, *make, "-keyout", key, "-out", certificate)
    async with remote_worker(
        server.port, dtls_certificate_file=certificate, dtls_private_key_file=key
    ) as worker:
        router = await worker.create_router(media_codecs=[AUDIO])
        info = TransportListenInfo(ip="127.0.0.1", protocol="udp")
        transport = await router.create_webrtc_transport(listen_infos=[info])
        told = {print_.algorithm: print_.value for print_ in transport.dtls_parameters.fingerprints}
        real = await asyncio.to_thread(
            openssl, "x509", "-in", certificate, "-noout", "-fingerprint", "-sha256"
        )
        assert told["sha-256"] == real.partition("=")[2]
        assert not any("mafalda-dtls-" in name for name in await asyncio.to_thread(os.listdir, tmp_path))


# -- the line -----------------------------------------------------------------------------------------------


async def test_nothing_is_lost_or_reordered_while_the_line_is_cut_again_and_again(
    server: RemoteServer,
) -> None:
    async with Line(server.port) as line, remote_worker(line.port) as worker:
        routers = []
        while line.connections < 10:
            making = [asyncio.create_task(worker.create_router(media_codecs=[AUDIO])) for _ in range(100)]
            await making[0]
            line.cut()
            routers += await asyncio.gather(*making)
        assert [router.id for router in worker.routers] == [router.id for router in routers]
        assert set((await worker.dump()).router_ids) == {router.id for router in routers}


async def test_a_frozen_line_is_found_and_replaced(server: RemoteServer) -> None:
    async with Line(server.port) as line, remote_worker(line.port) as worker:
        line.freeze()
        asking = asyncio.create_task(worker.dump())
        await until(lambda: line.connections > 1, "the line was dialled anew")
        line.thaw()
        assert (await asking).pid == worker.pid
        assert not worker.died


async def test_a_line_that_stays_away_ends_the_worker_on_both_sides() -> None:
    async with (
        RemoteServer(tenant_settings(resume_timeout=1.0)) as server,
        Line(server.port) as line,
        remote_worker(line.port) as worker,
    ):
        dying = death(worker)
        line.refuse(True)
        line.cut()
        assert "not reached again within 1 s" in str(await dying)
        await until(lambda: not server.tenants.workers(), "no tenant is left")


async def test_more_than_the_buffer_holds_ends_the_worker_with_that_reason() -> None:
    async with (
        RemoteServer(tenant_settings(buffer=64 * 1024)) as server,
        Line(server.port) as line,
        remote_worker(line.port) as worker,
    ):
        dying = death(worker)
        line.refuse(True)
        line.cut()
        await until(lambda: not server.tenants.workers()[0].attached, "the tenant is detached")
        asking = [asyncio.create_task(worker.dump()) for _ in range(3000)]
        assert "waited for the connection to come back" in str(await dying)
        await asyncio.gather(*asking, return_exceptions=True)


async def test_a_restarted_server_says_that_the_worker_is_gone(server: RemoteServer) -> None:
    async with Line(server.port) as line, remote_worker(line.port) as worker:
        dying = death(worker)
        server.tenants._tokens._instance = "instance-2"
        line.cut()
        assert "the worker is gone" in str(await dying)


async def test_the_servers_end_is_told() -> None:
    server = RemoteServer()
    await server.__aenter__()
    async with remote_worker(server.port) as worker:
        dying = death(worker)
        await server.__aexit__()
        assert "the media server stops" in str(await dying)


async def test_bad_addresses_are_refused_as_mediasoup_refuses_them(server: RemoteServer) -> None:
    async with remote_worker(server.port) as worker:
        with pytest.raises((InvalidArgumentError, RequestRejectedError)):
            await worker.create_webrtc_server(listen_infos=[])
        made = await worker.create_webrtc_server(
            listen_infos=[TransportListenInfo(ip="10.1.2.3", protocol="udp", port=9)]
        )
        assert not made.closed
