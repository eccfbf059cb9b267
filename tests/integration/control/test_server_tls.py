"""The real media server with certificates: `/control` as the fake one, `/peer`, who lets participants in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from contract.control_tls import Subject, TlsContract, secured
from mafalda_operator.cli.local.ports import PortPicker
from support.certificates import GATEWAY, OPERATOR, OTHER_SERVER, SERVER, Authority

from mediaserver import shim
from mediaserver.cascade.greeting import Dialling, Identity, Process
from mediaserver.config import ServerConfig
from mediaserver.control.contract import ERROR_BAD_PROOF, PEER_PATH
from mediaserver.pool import PoolConfig
from mediaserver.server import MediaServer, StartError
from mediaserver.wire.errors import ConnectionLost, HandshakeFailed, RemoteError
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.rpc import Methods, connect, running

HOST = "127.0.0.1"


@dataclass(frozen=True)
class RealSubject(Subject):
    participants: str = ""
    """HOST:PORT."""


def configured(tls_dir: Path) -> ServerConfig:
    ports = PortPicker(host=HOST)
    pipes = ports.range(10)
    internal, participants, health = (ListenAddress(HOST, ports.port()) for _ in range(3))
    pool = PoolConfig(
        workers=2,
        client_host=HOST,
        client_port=ports.range(2).start,
        pipe_host=HOST,
        pipe_port=pipes.start,
        pipe_end_port=pipes.stop - 1,
    )
    return ServerConfig(
        internal=internal, participants=participants, health=health, pool=pool, tls_dir=tls_dir
    )


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[RealSubject]:
    authority = Authority()
    config = configured(authority.directory(tmp_path, SERVER))
    server = MediaServer(config)
    try:
        await server.start()
        yield RealSubject(str(config.internal), authority, str(config.participants))
    finally:
        await server.close()


class TestRealServer(TlsContract):
    pass


async def test_a_server_needs_a_certificate_of_a_server(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"tls\.crt is for operator\.mafalda\.internal, but a media server"):
        MediaServer(configured(Authority().directory(tmp_path, OPERATOR)))


async def greet(subject: RealSubject, name: str) -> str:
    """Dial `/peer` as a server whose certificate is for ``name``; the instance that answers."""
    certificates = subject.authority.certificates(name)
    dial = certificates.dial(SERVER)
    methods = Methods()
    greeter = Dialling(methods)
    async with aiohttp.ClientSession() as session:
        connection = await connect(
            session, dial.url(subject.address, PEER_PATH), methods, name="the server under test", dial=dial
        )
        async with running(connection):
            own = Identity("uid-1", "media/main-0")
            other = await greeter.greet(connection, certificates, own, Process("x", 1), "media/main-1")
    return other.instance_id


async def test_peers_are_of_the_same_cluster(subject: RealSubject) -> None:
    operator = subject.authority.certificates(OPERATOR)
    async with secured(subject, operator) as client:
        hello = await client.hello(operator)
        assert await greet(subject, SERVER) == hello.instance_id
        for name in (OTHER_SERVER, OPERATOR, GATEWAY):
            with pytest.raises(RemoteError) as caught:
                await greet(subject, name)
            assert caught.value.code == ERROR_BAD_PROOF
            assert f"the certificate is for {name}, but only {SERVER}" in caught.value.message


@pytest.mark.parametrize("path", ["/ws", shim.PATH])
async def test_only_gateways_bring_participants_and_applications(subject: RealSubject, path: str) -> None:
    async def status(name: str) -> tuple[int, str]:
        dial = subject.authority.certificates(name).dial(SERVER)
        url = dial.url(subject.participants, path)
        assert dial.context is not None
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, ssl=dial.context, server_hostname=dial.server_name) as response,
        ):
            return response.status, await response.text()

    reached, _ = await status(GATEWAY)
    assert reached in (426, 503)  # it is no participant, and there are no tenants here; but it is a member
    for name in (SERVER, OPERATOR, OTHER_SERVER):
        refused, text = await status(name)
        assert (refused, f"is for {name}" in text) == (403, True)


async def test_who_has_a_cluster_key_only(subject: RealSubject) -> None:
    key = ClusterKey(b"k" * 32)
    with pytest.raises(ConnectionLost, match="as one that wants TLS does"):
        async with secured(subject, key):
            pass


async def test_renewed_files_are_taken_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mediaserver.wire.tls.LOOK_SECONDS", 0.02)
    old, new = Authority(), Authority()
    server = MediaServer(configured(old.directory(tmp_path, SERVER)))
    try:
        await server.start()
        subject = Subject(str(server._config.internal), old)
        async with secured(subject, old.certificates(OPERATOR)) as first:
            await first.hello(old.certificates(OPERATOR))
            new.directory(tmp_path, SERVER)
            operator = new.certificates(OPERATOR)
            while True:
                try:
                    async with secured(subject, operator) as second:
                        await second.hello(operator, role="observer")
                except HandshakeFailed:
                    continue
                break
            loads = len(first.loads)
            await first.until(lambda: len(first.loads) > loads, "the first connection goes on")
    finally:
        await server.close()
