"""The ways from an application to the gateway: TLS, an HTTP proxy, both; a certificate not trusted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.remote import HOST, SHIM, RemoteServer, environment, remote_worker

from mediaserver.mediasoup import WorkerStartError, create_worker


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def terminator(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """An ingress that speaks TLS and carries to a port; yields its own."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(HOST, port)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    server = await asyncio.start_server(carry, HOST, 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Proxy:
    """An HTTP proxy that admits CONNECT (RFC 9110 section 9.3.6) with these credentials only."""

    def __init__(self, authorization: str = "") -> None:
        self.asked: list[str] = []
        self._authorization = authorization

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, HOST, 0)
        async with server:
            yield server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        self.asked.append(f"{method} {target}")
        if self._authorization not in head:
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = target.rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a key and the certificate, for localhost, that it signed itself."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return both


@pytest.fixture
def context(certificate: Path) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate)
    return made


async def test_over_tls(context: ssl.SSLContext, certificate: Path) -> None:
    async with RemoteServer() as server, terminator(server.port, context) as port:
        env = environment(
            0, MAFALDA_URL=f"wss://localhost:{port}/any/path/", MAFALDA_CA_FILE=str(certificate)
        )
        with pytest.raises(WorkerStartError, match="answers HTTP 404; check MAFALDA_URL"):
            await create_worker(worker_bin=SHIM, env=env)
        env["MAFALDA_URL"] = f"wss://localhost:{port}"
        async with remote_worker(0, env) as worker:
            # More than one record of TLS, both ways.
            routers = await asyncio.gather(*(worker.create_router() for _ in range(2000)))
            assert set((await worker.dump()).router_ids) == {router.id for router in routers}


async def test_a_certificate_that_is_not_trusted_is_told(context: ssl.SSLContext, certificate: Path) -> None:
    async with RemoteServer() as server, terminator(server.port, context) as port:
        env = environment(0, MAFALDA_URL=f"wss://localhost:{port}", MAFALDA_CONNECT_TIMEOUT="0.1")
        with pytest.raises(WorkerStartError, match="certificate verify failed"):
            await create_worker(worker_bin=SHIM, env=env)
        env |= {"MAFALDA_URL": f"wss://{HOST}:{port}", "MAFALDA_CA_FILE": str(certificate)}
        with pytest.raises(WorkerStartError, match=r"IP address mismatch|certificate"):
            await create_worker(worker_bin=SHIM, env=env)
        env |= {"MAFALDA_CA_FILE": "/nowhere.pem"}
        with pytest.raises(WorkerStartError, match=r"MAFALDA_CA_FILE /nowhere\.pem cannot be used"):
            await create_worker(worker_bin=SHIM, env=env)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_through_an_http_proxy(secure: bool, context: ssl.SSLContext, certificate: Path) -> None:
    proxy = Proxy("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=")
    async with (
        RemoteServer() as server,
        terminator(server.port, context) as tls,
        proxy.open() as port,
    ):
        target = f"localhost:{tls}" if secure else f"{HOST}:{server.port}"
        env = environment(
            0,
            MAFALDA_URL=f"{'wss' if secure else 'ws'}://{target}",
            MAFALDA_CA_FILE=str(certificate),
            NO_PROXY="elsewhere",
            ALL_PROXY=f"http://user:secret@{HOST}:{port}",
        )
        async with remote_worker(0, env) as worker:
            assert (await worker.dump()).pid == worker.pid
        assert proxy.asked == [f"CONNECT {target}"]


async def test_a_proxy_that_refuses_is_told_without_its_password() -> None:
    async with RemoteServer() as server, Proxy("Proxy-Authorization: other").open() as port:
        env = environment(
            server.port,
            NO_PROXY="",
            ALL_PROXY=f"http://user:secret@{HOST}:{port}",
            MAFALDA_CONNECT_TIMEOUT="0.1",
        )
        with pytest.raises(WorkerStartError, match=f"the proxy at {HOST}:{port} answers 407") as caught:
            await create_worker(worker_bin=SHIM, env=env)
        assert "secret" not in str(caught.value)
