"""Applications that want trouble: whatever they send, others go on and nothing is left of them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import gc
import json
import logging
import os
import random
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from integration.remote.tapped import sockets_of
from support.media_server import until
from support.remote import (
    HOST,
    ISSUER,
    KEYS,
    PIPE_PORTS,
    TENANT_PORTS,
    RemoteServer,
    process_exists,
    remote_worker,
    tenant_settings,
    token,
)

from mediaserver import shim
from mediaserver.mediasoup import TransportListenInfo, TransportPortRange, Worker, messages
from mediaserver.mediasoup.messages import Method
from mediaserver.mediasoup.process import WORKER_VERSION
from mediaserver.remote import process
from mediaserver.remote.descriptors import Descriptors
from mediaserver.wire.worker_tokens import Ticket, mint_ticket

DEADLINE = 20.0
HELLO: dict[str, Any] = {"pid": 1, "arguments": ["--logLevel=none"], "files": {}}
Change = Callable[[dict[str, str]], object]


def dump_requests(count: int) -> bytes:
    return b"".join(
        messages.encode_request(number + 1, Method.WORKER_DUMP, "", None) for number in range(count)
    )


class Hostile:
    """A connection to `/worker`; it says what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.frames = shim.Frames(client=True)
        self.stream = shim.Stream()
        self.welcome: dict[str, Any] = {}

    @classmethod
    async def connect(cls, port: int) -> Hostile:
        return cls(*await asyncio.open_connection(HOST, port))

    @classmethod
    async def greeted(cls, port: int, *, worker_token: str | None = None) -> Hostile:
        """With a worker of its own."""
        self = await cls.connect(port)
        assert await self.ask(head(worker_token)) == 101
        await self.greet(HELLO)
        return self

    async def ask(self, data: bytes) -> int:
        """The HTTP status; 0 when the connection was closed without one."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
        async with asyncio.timeout(DEADLINE):
            try:
                answer = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return 0
        return int(answer.split()[1])

    async def greet(self, hello: object) -> dict[str, Any]:
        payload = hello if isinstance(hello, bytes) else json.dumps(hello).encode()
        self.writer.write(self.frames.encode(shim.TEXT, payload))
        await self.read()
        return self.welcome

    def send(self, opcode: int, payload: bytes) -> None:
        self.writer.write(self.frames.encode(opcode, payload))

    def record(self, kind: int, payload: bytes) -> None:
        self.send(shim.BINARY, self.stream.send(kind, payload))

    async def read(self) -> bool:
        """Takes what has come; False once the connection has ended."""
        async with asyncio.timeout(DEADLINE):
            try:
                data = await self.reader.read(1 << 18)
            except ConnectionError:
                return False
        for opcode, payload in self.frames.feed(data):
            if opcode == shim.TEXT:
                self.welcome = json.loads(payload)
            elif opcode == shim.BINARY:
                self.stream.receive(payload)
        return bool(data)

    def close(self) -> None:
        self.writer.transport.abort()


def head(worker_token: str | None = None, **changes: str) -> bytes:
    headers = {
        "Host": "x",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"k" * 16).decode(),
        "Authorization": f"Bearer {token() if worker_token is None else worker_token}",
        shim.PROTOCOL_HEADER: str(shim.PROTOCOL),
        shim.VERSION_HEADER: WORKER_VERSION,
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = ["GET /worker HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


class Scene:
    """A server, and a worker of somebody else's that must go on."""

    def __init__(self, server: RemoteServer, bystander: Worker) -> None:
        self.server = server
        self.port = server.port
        self.bystander = bystander
        (self.other,) = server.tenants.workers()

    def mine(self) -> list[int]:
        """Processes of all workers but the bystander's."""
        return [worker.pid for worker in self.server.tenants.workers() if worker.pid != self.other.pid]

    async def hostile(self, **options: Any) -> Hostile:
        return await Hostile.greeted(self.port, **options)

    async def recovered(self) -> None:
        await until(lambda: len(self.server.tenants._held) == 1, "nobody else has a worker", DEADLINE)
        async with asyncio.timeout(DEADLINE):
            assert (await self.bystander.dump()).pid == self.bystander.pid


@pytest_asyncio.fixture
async def scene(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> AsyncIterator[Scene]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    caplog.set_level(logging.INFO)
    tasks, before = asyncio.all_tasks(), children()
    settings = tenant_settings(resume_timeout=0.5, buffer=1 << 20)
    async with RemoteServer(settings) as server, remote_worker(server.port) as bystander:
        scene = Scene(server, bystander)
        yield scene
        await scene.recovered()
        assert not list(tmp_path.glob("mafalda-dtls-*"))  # noqa: ASYNC240
        assert not server.tenants._starting
    gc.collect()  # what a task or a future was never asked for is logged now
    await until(lambda: asyncio.all_tasks() <= tasks | {asyncio.current_task()}, "no task is left")
    await until(lambda: children() <= before, "no process is left")
    said = caplog.text + "".join(capfd.readouterr())
    for word in ("Traceback", "unexpectedly", "never retrieved", "Error handling", "turn failed"):
        assert word not in said
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# -- before the upgrade -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "statuses"),
    [
        (head(""), {401}),
        (head("\xff\xfe.\xff.\xff"), {401}),
        (head("x" * 8000), {400, 401}),
        (head(Authorization="Basic x"), {401}),
        (head(Connection="close"), {400}),
        (head(Upgrade="h2c"), {400}),
        (head(Sec_WebSocket_Version="12"), {400}),
        (head(Sec_WebSocket_Key="short"), {400}),
        (head(Sec_WebSocket_Key="\xff" * 24), {400}),
        (head(**{shim.PROTOCOL_HEADER: "2"}), {400}),
        (head(**{shim.PROTOCOL_HEADER: "\xff"}), {400}),
        (head(**{shim.VERSION_HEADER: "\xff" * 100}), {409}),
        (head(**{shim.VERSION_HEADER: "../../bin/sh"}), {409}),
        (head(**{shim.TICKET_HEADER: ""}), {401}),
        (head(**{shim.TICKET_HEADER: "\xff"}), {401}),
        (head().replace(b"GET", b"POST", 1), {405}),
        (head().replace(b"HTTP/1.1", b"HTTP/9.9", 1), {400}),
        (head()[:-2] + b"X: " + b"y" * 70_000 + b"\r\n\r\n", {400}),
        (b"\x16\x03\x01" + bytes(100) + b"\r\n\r\n", {400}),
    ],
)
async def test_heads_are_refused(scene: Scene, request_head: bytes, statuses: set[int]) -> None:
    client = await Hostile.connect(scene.port)
    assert await client.ask(request_head) in statuses
    client.close()
    assert not scene.mine()


@pytest.mark.parametrize("seed", range(3))
async def test_heads_with_random_faults(scene: Scene, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        data = bytearray(head())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data) - 4)
            match rng.randrange(3):
                case 0:
                    data[at] = rng.randrange(256)
                case 1:
                    del data[at : at + rng.randint(1, 40)]
                case _:
                    data[at:at] = rng.randbytes(rng.randint(1, 40))
        client = await Hostile.connect(scene.port)
        client.writer.write(bytes(data))
        client.writer.write_eof()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE):
                await client.reader.read()
        client.close()
    assert not scene.mine()


def ticket(worker: str, kid: str = "1", key: bytes | None = None, **changes: str) -> str:
    told = {"iss": ISSUER, "sub": "app", "server": "media/one", "instance": "instance-1", **changes}
    return mint_ticket(Ticket(worker=worker, **{"token": "mine", **told}), kid, key or KEYS[kid])


async def test_no_ticket_leads_to_a_worker_of_others(scene: Scene) -> None:
    mine = await scene.hostile(worker_token=token(jti="mine"))
    own, other = mine.welcome["worker"], scene.other.id
    for forged, status in (
        (ticket(other), 410),
        (ticket(other, "2"), 410),
        (ticket(own, token="other"), 410),
        (ticket(own, instance="instance-0"), 410),
        (ticket(own, key=b"z" * 32), 401),
        (mine.welcome["ticket"][:-4] + "AAAA", 401),
        (token(jti="mine"), 401),
    ):
        client = await Hostile.connect(scene.port)
        assert await client.ask(head(**{shim.TICKET_HEADER: forged})) == status
        client.close()
    (tenant,) = [tenant for tenant in scene.server.tenants.workers() if tenant.id == own]
    assert tenant.attached
    mine.close()


# -- hellos -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"\xff\xfe",
        b"[" * 60_000,
        b"null",
        b"x" * (shim.HELLO_LIMIT + 1),
        {},
        {"pid": 2**32},
        {"pid": -1},
        {"received": 0},
        {**HELLO, "arguments": ["--logTag=" + "x" * 100] * 65},
        *(
            {**HELLO, "arguments": [argument]}
            for argument in (
                "--dtlsCertificateFile=/etc/passwd",
                "--dtlsPrivateKeyFile=/etc/shadow",
                "--rtcMin=1",
                "--rtcMinPor=1024",
                "--rtcMinPort",
                "--rtcMinPort=70000",
                "--rtcMinPort 1024",
                "-m=1024",
                "--",
                "--logTag=\0--rtcMinPort=1",
                "--logTag=\ud800",
                "\ud800" * 1000,
                "--logLevel\n--rtcMinPort=1",
            )
        ),
        *(
            {**HELLO, "files": files}
            for files in (
                {"/etc/passwd": "AAAA"},
                {"\ud800": "AAAA"},
                {"dtlsCertificateFile": "é"},
                {"dtlsCertificateFile": "AAAA", "dtlsPrivateKeyFile": "A"},
                {"dtlsCertificateFile": "AAAA", "dtlsPrivateKeyFile": "A" * 40_000},
            )
        ),
    ],
    ids=repr,
)
async def test_hellos_are_refused(scene: Scene, hello: object) -> None:
    client = await Hostile.connect(scene.port)
    assert await client.ask(head()) == 101
    await client.greet(hello)
    assert client.welcome.keys() <= {"error", "exitCode"}
    while await client.read():
        pass
    assert not scene.mine()


async def test_a_worker_refuses_files_that_are_none_and_nothing_is_left(scene: Scene) -> None:
    files = {
        name: base64.b64encode(b"no PEM").decode() for name in ("dtlsCertificateFile", "dtlsPrivateKeyFile")
    }
    client = await Hostile.connect(scene.port)
    assert await client.ask(head()) == 101
    assert "ticket" in await client.greet({**HELLO, "files": files})
    await until(lambda: not scene.mine(), "the worker has ended")
    client.close()


@pytest.mark.parametrize("when", ["before", "after"])
async def test_applications_that_go_at_their_hello(scene: Scene, when: str) -> None:
    """Some while the worker is being started: none may be left, attached to a connection that is gone."""
    clients = [await Hostile.connect(scene.port) for _ in range(8)]
    for client in clients:
        assert await client.ask(head()) == 101
    for client in clients:
        if when == "after":
            client.send(shim.TEXT, json.dumps(HELLO).encode())
            client.send(shim.CLOSE, b"")
            await asyncio.sleep(0)
        client.close()
    await scene.recovered()


@pytest.mark.parametrize("what", ["start", "spawn"])
async def test_no_descriptors_are_left(scene: Scene, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The application is told, its place is free again, and the next one is served."""

    async def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    def fail_at_once(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    client = await Hostile.connect(scene.port)
    assert await client.ask(head()) == 101
    with monkeypatch.context() as patch:
        if what == "start":
            patch.setattr(Descriptors, "open", fail)
        else:
            patch.setattr(process, "posix_spawn", fail_at_once)
        told = await client.greet(HELLO)
    assert told["exitCode"] == shim.EXIT_UNAVAILABLE
    assert "Too many open files" in told["error"]
    await scene.recovered()
    (await scene.hostile()).close()


# -- frames and records -------------------------------------------------------------------------------------


def frame(rng: random.Random, client: Hostile) -> bytes:
    """A valid frame, which may carry a record out of order or of any kind."""
    kind, number = rng.randrange(12), rng.choice((0, 1, 2, 3, 2**63, 2**64 - 1))
    acknowledged = rng.choice((0, 0, 0, 1, 2**64 - 1))
    size = rng.choice((0, 1, 4, 16, 1000, 100_000))
    record = shim._HEAD.pack(kind, number, acknowledged) + rng.randbytes(size)
    return client.frames.encode(rng.choice((shim.BINARY,) * 4 + (shim.TEXT, shim.PING)), record)


def garbage(rng: random.Random, client: Hostile) -> bytes:
    return rng.randbytes(rng.randint(1, 5000))


def cut_off(rng: random.Random, client: Hostile) -> bytes:
    data = frame(rng, client)
    return data[: rng.randrange(len(data))]


def huge(rng: random.Random, client: Hostile) -> bytes:
    return (
        bytes((0x82, 0xFF)) + rng.choice((2**18 + 65, 2**32, 2**63, 2**64 - 1)).to_bytes(8, "big") + bytes(99)
    )


def wrong_mask(rng: random.Random, client: Hostile) -> bytes:
    return shim.Frames(client=False).encode(shim.BINARY, client.stream.heartbeat())


def pieces(rng: random.Random, client: Hostile) -> bytes:
    """Messages within messages, and ones that never end."""
    heads = [bytes((rng.choice((0x00, 0x01, 0x02, 0x80, 0x82)), 0x80)) + bytes(4) for _ in range(2000)]
    return b"".join(heads)


def requests(rng: random.Random, client: Hostile) -> bytes:
    """Whole records whose channel is garbage."""
    start = rng.choice((b"", b"\xff\xff\xff\xff", bytes(4), b"\x10\0\0\0", dump_requests(3)))
    record = client.stream.send(shim.REQUESTS, start + rng.randbytes(rng.randint(0, 3000)))
    return client.frames.encode(shim.BINARY, record)


def signals(rng: random.Random, client: Hostile) -> bytes:
    """With nobody's number, and ones that no application may send."""
    return b"".join(
        client.frames.encode(shim.BINARY, client.stream.send(shim.SIGNAL, bytes((number,))))
        for number in (0, 9, 19, 10, 64, 128, 255)
    )


def end_and_more(rng: random.Random, client: Hostile) -> bytes:
    stream = client.stream
    records = [
        stream.send(shim.END, b""),
        stream.send(shim.REQUESTS, dump_requests(5)),
        stream.send(shim.END, b"x"),
    ]
    return b"".join(client.frames.encode(shim.BINARY, record) for record in records)


FUZZERS = (frame, garbage, cut_off, huge, wrong_mask, pieces, requests, signals, end_and_more)


@pytest.mark.parametrize("fuzz", FUZZERS, ids=lambda fuzz: fuzz.__name__)
async def test_frames_and_records(scene: Scene, fuzz: Callable[[random.Random, Hostile], bytes]) -> None:
    async def attack(seed: int) -> None:
        rng = random.Random(seed)
        client = await scene.hostile()
        with contextlib.suppress(ConnectionError):
            for _ in range(rng.randint(1, 12)):
                client.writer.write(fuzz(rng, client))
                await client.writer.drain()
        client.close()

    for start in range(0, 16, 8):
        await asyncio.gather(*(attack(seed) for seed in range(start, start + 8)))
    await scene.recovered()


@pytest.mark.parametrize("number", [9, 19, 1, 10, 12, 0, 200])
async def test_no_other_signal_reaches_a_worker(scene: Scene, number: int) -> None:
    client = await scene.hostile()
    (pid,) = scene.mine()
    client.record(shim.SIGNAL, bytes((number,)))
    client.record(shim.REQUESTS, dump_requests(1))
    await until_answered(client)
    assert scene.mine() == [pid]
    client.close()


async def until_answered(client: Hostile) -> None:
    before = client.stream.received
    while client.stream.received == before:
        assert await client.read()


@pytest.mark.parametrize("kind", [shim.OUTPUT, shim.ERRORS, shim.ANSWERS, shim.EXIT, 8, 255])
async def test_kinds_that_only_a_server_sends(scene: Scene, kind: int) -> None:
    client = await scene.hostile()
    client.record(kind, b"\0\0")
    while await client.read():
        pass
    client.close()


async def test_an_end_that_is_never_acknowledged_holds_no_place_and_no_connection(scene: Scene) -> None:
    client = await scene.hostile()
    client.record(shim.END, b"")
    heartbeat = client.frames.encode(shim.BINARY, shim.Stream().heartbeat())
    async with asyncio.timeout(DEADLINE):
        with contextlib.suppress(ConnectionError):
            while not client.reader.at_eof():
                client.writer.write(heartbeat)
                await client.reader.read(1000)
    client.close()


# -- what one tenant takes from others ----------------------------------------------------------------------


async def test_an_application_that_reads_nothing_is_bounded(scene: Scene) -> None:
    """By whatever it is asked for: what the worker answers, what is refused, and pings."""
    clients = [await scene.hostile() for _ in range(3)]
    pids = scene.mine()
    refused = messages.encode_request(1, Method.ROUTER_CLOSE_TRANSPORT, "x" * 300, None)
    most = 0

    async def flood(client: Hostile, write: Callable[[Hostile], object]) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(8):
                for _ in range(400):
                    write(client)
                    await client.writer.drain()

    async def watch() -> None:
        nonlocal most
        while True:
            for entry in scene.server.tenants._held.values():
                stream, tunnel = entry.tenant._stream, entry.tenant._tunnel
                unsent = tunnel._transport.get_write_buffer_size() if tunnel and tunnel._transport else 0
                most = max(most, stream.waiting, entry.tenant._held.size, unsent)
            for pid in pids:
                assert not process_exists(pid) or resident(pid) < 400_000_000
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    await asyncio.gather(
        flood(clients[0], lambda client: client.record(shim.REQUESTS, dump_requests(1000))),
        flood(clients[1], lambda client: client.record(shim.REQUESTS, refused * 200)),
        flood(clients[2], lambda client: [client.send(shim.PING, b"x" * 125) for _ in range(2000)]),
    )
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert most < 4 << 20
    for client in clients:
        client.close()


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


async def test_a_flood_of_one_leaves_another_its_turns(scene: Scene) -> None:
    client = await scene.hostile()
    answered = 0

    async def flood() -> None:
        """As much as a side that keeps to the protocol may."""
        nonlocal answered
        requests = dump_requests(200)
        while True:
            while client.stream.waiting < 1 << 19:
                client.record(shim.REQUESTS, requests)
            assert await client.read()
            answered += 1
            client.send(shim.BINARY, client.stream.heartbeat())

    flooding = asyncio.create_task(flood())
    await until(lambda: answered > 20, "the flood is on")
    during = answered
    async with asyncio.timeout(DEADLINE):
        for _ in range(50):
            await scene.bystander.dump()
    assert answered > during
    assert not flooding.done()
    flooding.cancel()
    await asyncio.gather(flooding, return_exceptions=True)
    client.close()


@pytest.mark.parametrize("ip", ["0.0.0.0", "::", "127.0.0.9", "169.254.169.254"])
async def test_every_socket_of_a_worker_is_where_it_may_be(scene: Scene, ip: str) -> None:
    """Whatever was asked for, by what the kernel has of the real process."""
    router = await scene.bystander.create_router(media_codecs=[])

    def asked(port: int, protocol: Any = "udp") -> TransportListenInfo:
        ports = TransportPortRange(min=1, max=60_000)
        return TransportListenInfo(ip=ip, protocol=protocol, port=port, port_range=ports)

    makers: list[Callable[[], Awaitable[object]]] = [
        lambda: scene.bystander.create_webrtc_server(listen_infos=[asked(22), asked(443, "tcp")]),
        lambda: router.create_webrtc_transport(listen_infos=[asked(53), asked(0, "tcp")]),
        lambda: router.create_plain_transport(
            listen_info=asked(4000), rtcp_listen_info=asked(4001), rtcp_mux=False
        ),
        lambda: router.create_pipe_transport(listen_info=asked(5000)),
    ]
    for make in makers:
        await make()
    sockets = await asyncio.to_thread(sockets_of, scene.other.pid)
    assert {address for _, address, _ in sockets} == {HOST}
    clients = [port for _, _, port in sockets if TENANT_PORTS[0] <= port <= TENANT_PORTS[1]]
    pipes = [port for _, _, port in sockets if PIPE_PORTS[0] <= port <= PIPE_PORTS[1]]
    assert (len(clients), len(pipes), len(sockets)) == (6, 1, 7)
    assert scene.server.tenants.pipes == 1
    router.close()
    await scene.bystander.dump()
    assert scene.server.tenants.pipes == 0
