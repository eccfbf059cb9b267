"""Real media server processes, and an operator made by hand that commands them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
from mafalda_operator.cli.local.ports import PortPicker

from mediaserver.control.contract import (
    CONTROL_PATH,
    Apply,
    ApplyResult,
    DesiredEntry,
    Dump,
    Empty,
    Load,
    Report,
    ReportedEntry,
    Role,
    ServerHello,
)
from mediaserver.control.contract.greeting import Greeter
from mediaserver.control.validate import key_of
from mediaserver.wire.membership import ClusterKey
from mediaserver.wire.replica import Receiver, Sender
from mediaserver.wire.rpc import Connection, Methods, connect, running

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[3]
PIPE_PORTS = 20
UID = "0d5c1f6e-uid"
CLUSTER = "media/main"


class ServerProcess:
    """One `mafalda-mediaserver`, with free ports of its own; stopped at the test's end if it still runs."""

    def __init__(
        self, name: str, directory: Path, key_file: Path, ports: PortPicker, *, workers: int
    ) -> None:
        self.name = name
        self.key = ClusterKey.load(key_file)
        self.internal, self.participants, self.health = (ports.port() for _ in range(3))
        client = ports.range(workers)
        pipes = ports.range(PIPE_PORTS)
        self.client_port = client.start
        self.flags = {
            "--internal-listen": f"{HOST}:{self.internal}",
            "--participants-listen": f"{HOST}:{self.participants}",
            "--health-listen": f"{HOST}:{self.health}",
            "--client-address": HOST,
            "--client-port": str(client.start),
            "--pipe-address": HOST,
            "--pipe-ports": f"{pipes.start}-{pipes.stop - 1}",
            "--workers": str(workers),
            "--cluster-key-file": str(key_file),
        }
        self.log_file = directory / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """Starts the process; `more` are further flags."""
        arguments = [f"{flag}={value}" for flag, value in self.flags.items()]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mediaserver", *arguments, *more],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        return self.log_file.read_text()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self, timeout: float = 10.0) -> int:
        """The exit code, once it has ended. Nothing may have been printed on stdout."""
        assert self.process is not None
        out, _ = await asyncio.to_thread(self.process.communicate, timeout=timeout)
        assert out == b""
        return self.process.returncode

    async def ready(self, timeout: float = 15.0) -> None:
        """Waits for /readyz to say so."""
        async with asyncio.timeout(timeout):
            while True:
                assert self.process is not None
                assert self.process.poll() is None, self.log()
                with contextlib.suppress(aiohttp.ClientError):
                    status, _ = await self.get("/readyz")
                    if status == 200:
                        return
                await asyncio.sleep(0.02)

    async def get(self, path: str) -> tuple[int, str]:
        """What the health listener answers."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"http://{HOST}:{self.health}{path}") as response,
        ):
            return response.status, await response.text()

    def worker_pids(self) -> list[int]:
        """Of the worker processes that are its children now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate(timeout=10)


class Commander:
    """An operator (or observer) by hand: keeps what the server reports, applies what it is given."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.hello: ServerHello | None = None
        self.connection: Connection | None = None
        self.loads: list[Load] = []
        self._receiver: Receiver[ReportedEntry] = Receiver(ReportedEntry)
        self._sender: Sender[DesiredEntry] = Sender()
        self._news = asyncio.Condition()
        self._telling: set[asyncio.Task[None]] = set()
        self._epoch = 1

    @property
    def states(self) -> dict[str, ReportedEntry]:
        return dict(self._receiver.entries)

    @contextlib.asynccontextmanager
    async def connected(
        self,
        *,
        role: Role = "operator",
        epoch: int = 1,
        uid: str = UID,
        cluster: str = CLUSTER,
        key: ClusterKey | None = None,
    ) -> AsyncIterator[Commander]:
        """Dials and greets. Raises WireError as the greeting does."""
        methods = Methods()
        methods.on_notification("report", Report, self._reported)
        methods.on_notification("load", Load, self._loaded)
        greeter = Greeter(methods)
        url = f"ws://{HOST}:{self.server.internal}{CONTROL_PATH}"
        async with (
            aiohttp.ClientSession() as session,
            running(await connect(session, url, methods, name=self.server.name)) as self.connection,
        ):
            self._epoch = epoch
            self.hello = await greeter.greet(
                self.connection,
                key or self.server.key,
                role=role,
                cluster_uid=uid,
                cluster_name=cluster,
                server_name=f"media/{self.server.name}",
                epoch=epoch,
            )
            yield self

    def _reported(self, report: Report) -> None:
        self._receiver.apply(report.delta)
        self._tell()

    def _loaded(self, load: Load) -> None:
        self.loads.append(load)
        self._tell()

    def _tell(self) -> None:
        async def tell() -> None:
            async with self._news:
                self._news.notify_all()

        task = asyncio.create_task(tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def apply(self, *entries: DesiredEntry) -> ApplyResult:
        """Wants exactly these entries."""
        delta = self._sender.update({key_of(entry): entry for entry in entries})
        assert delta is not None, "nothing new is wanted"
        assert self.connection is not None
        result = await self.connection.call("apply", Apply(epoch=self._epoch, delta=delta), ApplyResult)
        assert not result.resync
        return result

    async def dump(self) -> Dump:
        assert self.connection is not None
        return await self.connection.call("dump", Empty(), Dump)

    async def until(
        self, condition: Callable[[dict[str, ReportedEntry]], bool], timeout: float = 10.0
    ) -> None:
        """Waits for a report that fulfils the condition."""
        try:
            async with self._news, asyncio.timeout(timeout):
                await self._news.wait_for(lambda: condition(self.states))
        except TimeoutError:
            raise AssertionError(f"not so within {timeout} s; reported: {self.states}") from None

    async def measured(self, condition: Callable[[Load], bool], timeout: float = 5.0) -> Load:
        """The next load that fulfils the condition."""
        seen = len(self.loads)
        async with self._news, asyncio.timeout(timeout):
            await self._news.wait_for(lambda: any(condition(load) for load in self.loads[seen:]))
        return next(load for load in self.loads[seen:] if condition(load))


class MakeServer(Protocol):
    def __call__(self, name: str = "s1", *, workers: int = 1) -> ServerProcess: ...


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    return path


@pytest.fixture
def make_server(tmp_path: Path, key_file: Path) -> Iterator[MakeServer]:
    """Makes server processes, not started yet; none outlives the test."""
    ports = PortPicker(host=HOST)
    made: list[ServerProcess] = []

    def make(name: str = "s1", *, workers: int = 1) -> ServerProcess:
        made.append(ServerProcess(name, tmp_path, key_file, ports, workers=workers))
        return made[-1]

    yield make
    for server in made:
        server.kill()


@pytest.fixture
async def server(make_server: MakeServer) -> ServerProcess:
    """A ready server with one worker."""
    made = make_server()
    made.start()
    await made.ready()
    return made


@pytest.fixture
def commander() -> Callable[[ServerProcess], Commander]:
    return Commander


Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Waits for a condition of the outside world, which tells nobody when it comes true."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.02)

    return wait
