"""Real media server processes, each with free ports of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest
from mafalda_operator.cli.local.ports import PortPicker

from mediaserver.control.contract import CONTROL_PATH
from mediaserver.wire.membership import ClusterKey

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[3]
PIPE_PORTS = 20


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
    def control_url(self) -> str:
        return f"http://{HOST}:{self.internal}{CONTROL_PATH}"

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


Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Waits for a condition of the outside world, which tells nobody when it comes true."""

    async def wait(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  nothing outside this process sets an Event
                await asyncio.sleep(0.02)

    return wait
