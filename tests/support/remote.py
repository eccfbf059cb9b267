"""Remote Mediasoup without a gateway: a media server's side of it, real workers, and lines that break."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from mediaserver import shim
from mediaserver.control.contract import WorkerTokens
from mediaserver.mediasoup import (
    WORKER_VERSION,
    Worker,
    WorkerDiedError,
    create_worker,
    find_worker_bin,
)
from mediaserver.remote.endpoint import WorkerEndpoint
from mediaserver.remote.policy import TenantPolicy
from mediaserver.remote.settings import TenantSettings
from mediaserver.remote.tenants import Tenants
from mediaserver.wire.listen import ListenAddress, Listener, listen
from mediaserver.wire.worker_tokens import WorkerClaims, mint

HOST = "127.0.0.1"
KEYS = {"1": b"k" * 32, "2": b"l" * 32}
ISSUER = "cluster-uid"
SHIM = Path(sys.executable).parent / "mafalda-worker"
TENANT_PORTS = (24000, 24199)
PIPE_PORTS = (24200, 24299)


def worker_tokens(*, kids: tuple[str, ...] = ("1", "2"), revoked: tuple[str, ...] = ()) -> WorkerTokens:
    keys = {kid: base64.b64encode(KEYS[kid]).decode() for kid in kids}
    return WorkerTokens(issuers=[ISSUER], keys=keys, revoked=sorted(revoked))


def token(kid: str = "1", **changes: Any) -> str:
    """An application's token."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "sub": "app",
        "nbf": now,
        "exp": now + 7200,  # some are made when tests are collected, and used at the end of a long run
        "jti": secrets.token_hex(8),
    }
    return mint(WorkerClaims(**{**claims, **changes}), kid, KEYS[kid])


def tenant_settings(**changes: Any) -> TenantSettings:
    settings = TenantSettings(
        policy=TenantPolicy(
            addresses="Rewrite",
            client_host=HOST,
            announced_address=None,
            client_ports=TENANT_PORTS,
            pipe_host=HOST,
            pipe_ports=PIPE_PORTS,
            pipe_srtp="Never",
        ),
        binaries={WORKER_VERSION: find_worker_bin()},
        cores=2,
        most_workers=32,
        most_cores=64.0,
        resume_timeout=5.0,
        heartbeat=0.2,
        silence=1.0,
    )
    return replace(settings, **changes)


class RemoteServer:
    """What a media server has for applications' workers, without the rest of it."""

    def __init__(self, settings: TenantSettings | None = None) -> None:
        self.tenants = Tenants(
            settings or tenant_settings(), instance_id="instance-1", server_name=lambda: "media/one"
        )
        self.endpoint = WorkerEndpoint(self.tenants)
        self.tenants.set_tokens(worker_tokens())
        self._listener: Listener | None = None

    async def __aenter__(self) -> RemoteServer:
        app = web.Application()
        app.router.add_get(shim.PATH, self.endpoint.handle)
        self._listener = await listen(app, ListenAddress(HOST, 0))
        self.tenants.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.tenants.close()
        await self.endpoint.close()
        assert self._listener is not None
        await self._listener.close()

    @property
    def port(self) -> int:
        assert self._listener is not None
        return self._listener.address.port


def environment(port: int, **changes: str) -> dict[str, str]:
    """What an application's environment says."""
    return {
        "MAFALDA_URL": f"ws://{HOST}:{port}",
        "MAFALDA_TOKEN": changes.pop("token", None) or token(),
        "NO_PROXY": "*",
        **changes,
    }


@contextlib.asynccontextmanager
async def remote_worker(
    port: int, env: Mapping[str, str] | None = None, **options: Any
) -> AsyncIterator[Worker]:
    """A worker behind mafalda-worker, as our own binding starts it."""
    worker = await create_worker(worker_bin=SHIM, env=env or environment(port), **options)
    try:
        yield worker
    finally:
        worker.close()
        await worker.wait_closed()


def death(worker: Worker, seconds: float = 15.0) -> asyncio.Future[WorkerDiedError]:
    """Why the worker dies, listened for from now on; TimeoutError when it has not in so many seconds."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[WorkerDiedError] = loop.create_future()
    late = TimeoutError(f"worker {worker.pid} did not die within {seconds:g} s")
    timer = loop.call_later(seconds, lambda: told.done() or told.set_exception(late))
    told.add_done_callback(lambda _: timer.cancel())
    worker.on_died.once(lambda error: told.done() or told.set_result(error))
    return told


class Line:
    """A TCP line to a port that can be cut, frozen (as where packets are lost) and refused."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self._open.set()
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._refusing = False
        self.connections = 0

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._carry, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._open.set()
        self.cut()
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    def cut(self) -> None:
        """Ends every connection at once."""
        for pair in tuple(self._pairs):
            for writer in pair:
                writer.transport.abort()

    def refuse(self, refusing: bool) -> None:
        """Whether new connections are ended at once."""
        self._refusing = refusing

    def freeze(self) -> None:
        """Carries nothing any more, and says so to nobody."""
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self._port)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        finally:
            self._pairs.discard(pair)
            for one in pair:
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(64 * 1024):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        for pair in tuple(self._pairs):
            if writer in pair:
                for one in pair:
                    one.close()


def process_exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
