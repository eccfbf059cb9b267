"""Certificates of a directory, and connections by TLS between those who have them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs
from support.certificates import GATEWAY, OPERATOR, OTHER_SERVER, SERVER, Authority, write

from mediaserver.wire import handshakes
from mediaserver.wire.certificates import read
from mediaserver.wire.errors import ConnectionLost, HandshakeFailed, MembershipError, NoCertificateError
from mediaserver.wire.listen import ListenAddress, listen, only
from mediaserver.wire.membership import ClusterKey, Credential
from mediaserver.wire.rpc import Connection, Methods, accept, connect, running
from mediaserver.wire.tls import CertificateFiles, Certificates, TlsRole, load_credential

KEY = ClusterKey(b"k" * 32)
CLIENT, SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
EXTENSION = x509.ExtendedKeyUsage


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(autouse=True)
def _fresh_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test hears each reason."""
    monkeypatch.setattr(handshakes, "_refusals", handshakes._Refusals())


# -- reading a directory ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "name"),
    [("operator", OPERATOR), ("gateway", GATEWAY), ("media-server", SERVER), ("observer", GATEWAY)],
)
def test_a_directory_serves_its_role(tmp_path: Path, authority: Authority, role: TlsRole, name: str) -> None:
    files = CertificateFiles(authority.directory(tmp_path, name), role)
    assert files.material is not None
    assert files.material.names == {name}
    assert files.peer_name == (SERVER if role == "media-server" else "")


@pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
def test_a_missing_file_is_named(tmp_path: Path, authority: Authority, file: str) -> None:
    (authority.directory(tmp_path, SERVER) / file).unlink()
    with pytest.raises(MembershipError, match=rf"{file} cannot be read .*No such file.*cert-manager"):
        CertificateFiles(tmp_path, "media-server")


@pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize(
    "content", [b"", b"no PEM\n", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"]
)
def test_a_file_that_is_no_pem_is_named(
    tmp_path: Path, authority: Authority, file: str, content: bytes
) -> None:
    (authority.directory(tmp_path, SERVER) / file).write_bytes(content)
    with pytest.raises(MembershipError, match=rf"{file} (holds no|is missing or empty)"):
        CertificateFiles(tmp_path, "media-server")


def test_a_key_of_another_certificate_is_told(tmp_path: Path, authority: Authority) -> None:
    other = authority.content(SERVER)
    (authority.directory(tmp_path, SERVER) / "tls.key").write_bytes(other["tls.key"])
    with pytest.raises(MembershipError, match=r"tls\.key is not the key of .*tls\.crt: exchange both"):
        CertificateFiles(tmp_path, "media-server")


def test_an_expired_certificate_is_told(tmp_path: Path, authority: Authority) -> None:
    authority.directory(tmp_path, SERVER, since=7200, lasts=3600)
    with pytest.raises(MembershipError, match=r"tls\.crt has expired, on 20.*: renew it"):
        CertificateFiles(tmp_path, "media-server")


def test_a_certificate_of_tomorrow_is_told(tmp_path: Path, authority: Authority) -> None:
    authority.directory(tmp_path, SERVER, since=-7200)
    with pytest.raises(MembershipError, match=r"tls\.crt is not valid before .*clock"):
        CertificateFiles(tmp_path, "media-server")


@pytest.mark.parametrize(
    ("role", "names", "told"),
    [
        ("operator", (GATEWAY,), OPERATOR),
        ("gateway", (SERVER,), GATEWAY),
        ("media-server", (OPERATOR,), r"CLUSTER\.NAMESPACE\.media-server\.mafalda\.internal"),
        ("media-server", (SERVER, OTHER_SERVER), "one MediaCluster only"),
        ("observer", (SERVER,), GATEWAY),
    ],
)
def test_a_certificate_of_another_role_is_told(
    tmp_path: Path, authority: Authority, role: TlsRole, names: tuple[str, ...], told: str
) -> None:
    with pytest.raises(MembershipError, match=rf"tls\.crt is for .*{told}.*DNS name"):
        CertificateFiles(authority.directory(tmp_path, *names), role)


@pytest.mark.parametrize(
    ("role", "name", "usages", "told"),
    [
        ("operator", OPERATOR, [CLIENT], None),
        ("gateway", GATEWAY, [SERVER_AUTH], "not made for client auth"),
        ("media-server", SERVER, [CLIENT], "not made for server auth: .* dials"),
        ("media-server", SERVER, [CLIENT, SERVER_AUTH], None),
    ],
)
def test_extended_key_usages(
    tmp_path: Path,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    role: TlsRole,
    name: str,
    usages: list[x509.ObjectIdentifier],
    told: str | None,
) -> None:
    monkeypatch.setattr(x509, "ExtendedKeyUsage", lambda _: EXTENSION(usages))
    authority.directory(tmp_path, name)
    monkeypatch.undo()
    if told is None:
        assert CertificateFiles(tmp_path, role).material is not None
        return
    with pytest.raises(MembershipError, match=rf"tls\.crt is {told}"):
        CertificateFiles(tmp_path, role)


def test_exactly_one_credential(tmp_path: Path) -> None:
    with pytest.raises(MembershipError, match="exclude each other"):
        load_credential(tmp_path / "key", tmp_path, "gateway")
    with pytest.raises(MembershipError, match=r"--cluster-key-file FILE .* or --tls-dir DIR"):
        load_credential(None, None, "gateway")


def test_a_certificate_that_ends_soon_is_warned_of(tmp_path: Path, authority: Authority) -> None:
    with capture_logs() as logs:
        CertificateFiles(authority.directory(tmp_path, SERVER), "media-server")
    assert [entry["event"] for entry in logs] == ["certificate ends soon"]


def test_without_a_certificate_nothing_is_dialled() -> None:
    none = Certificates(lacking="there is no CA yet")
    for act in (lambda: none.dial(SERVER), none.listening):
        with pytest.raises(NoCertificateError, match="there is no CA yet"):
            act()


def test_no_secret_shows(authority: Authority) -> None:
    material = authority.material(SERVER)
    shown = repr(material) + repr(Certificates(material))
    assert "PRIVATE KEY" not in shown


# -- connections ------------------------------------------------------------------------------------------


class Side:
    """A listener with what its diallers present."""

    def __init__(self, credential: Credential) -> None:
        self.credential = credential
        self.presented: list[frozenset[str] | None] = []
        self.connections: list[Connection] = []
        self.address = ListenAddress("127.0.0.1", 0)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        connection = await accept(request, Methods(), name="a dialler")
        self.presented.append(connection.presented)
        self.connections.append(connection)
        with suppress(ConnectionLost):
            await connection.run()
        return connection.response


@asynccontextmanager
async def listening(credential: Credential, *names: str) -> AsyncIterator[Side]:
    side = Side(credential)
    app = web.Application(middlewares=[only(credential, names)] if names else [])
    app.router.add_get("/", side.handle)
    listener = await listen(app, side.address, secured=credential.listening())
    side.address = listener.address
    try:
        yield side
    finally:
        await listener.close()


@asynccontextmanager
async def dialled(credential: Credential, side: Side, name: str = SERVER) -> AsyncIterator[Connection]:
    dial = credential.dial(name)
    async with aiohttp.ClientSession() as session:
        connection = await connect(
            session, dial.url(str(side.address), "/"), Methods(), name="the listener", dial=dial
        )
        async with running(connection):
            yield connection


async def test_both_sides_see_each_others_names(authority: Authority) -> None:
    async with (
        listening(authority.certificates(SERVER)) as side,
        dialled(authority.certificates(OPERATOR), side) as connection,
    ):
        assert connection.presented == {SERVER}
        assert side.presented == [{OPERATOR}]


async def test_a_key_file_goes_in_the_clear() -> None:
    async with listening(KEY) as side, dialled(KEY, side) as connection:
        assert connection.presented is None
        assert side.presented == [None]


Party = Callable[[Authority], Credential]


@pytest.mark.parametrize(
    ("listener", "dialler", "dialler_told", "listener_told"),
    [
        pytest.param(
            lambda right: right.certificates(SERVER),
            lambda _: Authority().certificates(OPERATOR),
            "of a CA that is not in this side's ca.crt",
            None,
            id="wrong CA",
        ),
        pytest.param(
            lambda right: right.certificates(OTHER_SERVER),
            lambda right: right.certificates(OPERATOR),
            f"it is not for {SERVER}",
            None,
            id="wrong name",
        ),
        pytest.param(
            lambda right: right.certificates(SERVER),
            lambda _: KEY,
            "closes the connection without an answer, as one that wants TLS does",
            "the dialler does not speak TLS, but this side has a --tls-dir",
            id="dialler without TLS",
        ),
        pytest.param(
            lambda _: KEY,
            lambda right: right.certificates(OPERATOR),
            "does not speak TLS, but this side has a --tls-dir",
            "the dialler does not speak HTTP here: if it speaks TLS",
            id="listener without TLS",
        ),
    ],
)
async def test_who_is_not_let_in_is_told(
    authority: Authority, listener: Party, dialler: Party, dialler_told: str, listener_told: str | None
) -> None:
    """The listener hears nothing of why a dialler does not go on with it; of a mixture both do."""
    with capture_logs() as logs:
        async with listening(listener(authority)) as side:
            with pytest.raises(ConnectionLost) as caught:
                async with dialled(dialler(authority), side):
                    pass
    assert dialler_told in str(caught.value)
    assert side.presented == []
    told = [entry["reason"] for entry in logs if entry["event"] == "a connection was refused by TLS"]
    assert listener_told is None or any(listener_told in reason for reason in told), logs


class _OneSided(Certificates):
    """Dials with what the CA in its hand does not go with."""

    def __init__(self, presented: Authority | None, trusted: Authority, *, since: float = 0.0) -> None:
        content = (presented or trusted).content(OPERATOR, since=since)
        content = {**content, "ca.crt": trusted.content(OPERATOR)["ca.crt"]}
        super().__init__(read(content, where=str, now=time.time() - since))
        if presented is None and not since:
            self._dialling = _no_certificate(trusted)


def _no_certificate(trusted: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=trusted.content(OPERATOR)["ca.crt"].decode())
    return context


@pytest.mark.parametrize(
    ("presented", "since", "told"),
    [
        (Authority, 0.0, "of a CA that is not in this side's ca.crt"),
        (lambda: None, 0.0, "the dialler presents no certificate"),
        (lambda: None, 7200.0, "has expired"),
    ],
    ids=["of another CA", "none", "expired"],
)
async def test_a_dialler_whose_certificate_is_not_accepted(
    authority: Authority, presented: Callable[[], Authority | None], since: float, told: str
) -> None:
    """TLS 1.3 lets the dialler's handshake end before the listener has looked at its certificate."""
    dialler = _OneSided(presented(), authority, since=since)
    with capture_logs() as logs:
        async with listening(authority.certificates(SERVER)) as side:
            with pytest.raises(HandshakeFailed, match="does not accept this side's certificate"):
                async with dialled(dialler, side):
                    pass
    assert side.presented == []
    assert any(told in entry.get("reason", "") for entry in logs), logs


async def test_a_listener_for_gateways_only(authority: Authority) -> None:
    async with listening(authority.certificates(SERVER), GATEWAY) as side:
        async with dialled(authority.certificates(GATEWAY), side):
            assert side.presented == [{GATEWAY}]
        for other in (SERVER, OPERATOR, OTHER_SERVER):
            with pytest.raises(ConnectionLost, match="403"):
                async with dialled(authority.certificates(other), side):
                    pass
    assert len(side.presented) == 1


# -- renewal ----------------------------------------------------------------------------------------------


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  files are looked at, they tell nothing
            await asyncio.sleep(0.005)


@asynccontextmanager
async def following(path: Path, role: TlsRole) -> AsyncIterator[CertificateFiles]:
    files = CertificateFiles(path, role, look=0.01)
    task = asyncio.create_task(files.follow())
    try:
        yield files
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _serial(connection: Connection) -> str:
    certificate = connection.socket.get_extra_info("ssl_object").getpeercert()
    return str(certificate["serialNumber"])


async def test_renewed_files_serve_new_connections_and_cut_none(tmp_path: Path) -> None:
    """Also over an exchange of the CA, step by step, by one side after the other."""
    authority = Authority()
    here = authority.directory(tmp_path / "server", SERVER)
    there = authority.directory(tmp_path / "operator", OPERATOR)
    async with (
        following(here, "media-server") as server,
        following(there, "operator") as operator,
        listening(server) as side,
        dialled(operator, side) as first,
    ):
        serials = {_serial(first)}
        steps = [authority.add_next, authority.promote, authority.drop_others]
        for step in steps:
            step()
            for path, name, files in ((here, SERVER, server), (there, OPERATOR, operator)):
                before = files.material
                authority.directory(path, name)
                await until(lambda files=files, before=before: files.material is not before)  # type: ignore[misc]
                if step is not authority.drop_others:
                    async with dialled(operator, side) as again:
                        serials.add(_serial(again))
        async with dialled(operator, side) as last:
            serials.add(_serial(last))
        assert not first.closed
        assert side.connections[0].closed is False
    assert len(serials) == 4


async def test_an_old_ca_is_not_trusted_any_more(tmp_path: Path) -> None:
    old, new = Authority(), Authority()
    here = old.directory(tmp_path / "server", SERVER)
    async with following(here, "media-server") as server, listening(server) as side:
        async with dialled(old.certificates(OPERATOR), side):
            pass
        before = server.material
        new.directory(here, SERVER)
        await until(lambda: server.material is not before)
        dialler = _OneSided(old, new)
        with pytest.raises(HandshakeFailed, match="does not accept this side's certificate"):
            async with dialled(dialler, side):
                pass
        async with dialled(new.certificates(OPERATOR), side):
            assert len(side.presented) == 2


async def test_files_that_are_spoiled_are_told_once_and_the_old_ones_stay(
    tmp_path: Path, authority: Authority
) -> None:
    here = authority.directory(tmp_path, SERVER)
    with capture_logs() as logs:
        async with following(here, "media-server") as server:
            held = server.material
            (here / "tls.key").write_bytes(authority.content(SERVER)["tls.key"])
            await until(lambda: any("not used" in entry["event"] for entry in logs))
            await asyncio.sleep(0.05)
            assert server.material is held
            authority.directory(here, SERVER)
            await until(lambda: server.material is not held)
    told = [entry["reason"] for entry in logs if "not used" in entry["event"]]
    assert len(told) == 1
    assert "is not the key of" in told[0]


async def test_a_volume_of_kubernetes_is_read_of_one_moment(tmp_path: Path, authority: Authority) -> None:
    """Its files are links by way of `..data`, which is exchanged as a whole."""
    write(tmp_path / "..1", authority.content(SERVER))
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with capture_logs() as logs:
        async with following(tmp_path, "media-server") as server:
            before = server.material
            write(tmp_path / "..2", authority.content(SERVER))
            (tmp_path / "..new").symlink_to("..2")
            (tmp_path / "..new").rename(tmp_path / "..data")
            await until(lambda: server.material is not before)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == []
