"""Real workers behind a ChannelTap: a relay between two pairs of sockets, as a tenant's connection is."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from mediaserver.mediasoup import Worker, find_worker_bin
from mediaserver.mediasoup.channel import Channel
from mediaserver.mediasoup.events import log_handler_error
from mediaserver.mediasoup.process import WORKER_VERSION, WorkerProcess, spawn
from mediaserver.remote.policy import TenantPolicy
from mediaserver.remote.tap import ChannelTap, TapError

DEADLINE: Final = 10.0
APPLICATION_PID: Final = 12
"""What an application takes for its worker: no process of this machine that a test would end."""
SERVER: Final = "127.0.0.5"
PIPES: Final = "127.0.0.6"
POLICY: Final = TenantPolicy(
    addresses="Rewrite",
    client_host=SERVER,
    announced_address=None,
    client_ports=(21_000, 21_199),
    pipe_host=PIPES,
    pipe_ports=(21_200, 21_299),
    pipe_srtp="Auto",
)


class Gate:
    """Bounds of its own, as a token's."""

    def __init__(self) -> None:
        self.consumers: int | None = None
        self.bandwidth: int | None = None
        self.taps: list[ChannelTap] = []

    def may_consume(self) -> str | None:
        if self.consumers is not None and sum(tap.consumers for tap in self.taps) >= self.consumers:
            return f"the bound of {self.consumers} consumers is reached"
        return self.may_produce()

    def may_produce(self) -> str | None:
        if self.bandwidth is not None and sum(tap.bitrate for tap in self.taps) >= self.bandwidth:
            return f"the bound of {self.bandwidth} bits a second is reached"
        return None


class Tapped:
    """A worker of our binding, and the tap that its channel runs through."""

    def __init__(self, process: WorkerProcess, tap: ChannelTap) -> None:
        self.tap = tap
        self.pid = process.pid
        self.worker: Worker
        self._process = process
        self._requests, self._outgoing = socket.socketpair()
        self._answers, self._incoming = socket.socketpair()
        self._ends = (self._requests, self._outgoing, self._answers, self._incoming)
        for end in self._ends:
            end.setblocking(False)
        self._relays: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Waits until the worker tells the application's end that it runs."""
        loop = asyncio.get_running_loop()
        self._relays = [loop.create_task(self._to_worker()), loop.create_task(self._to_application())]
        channel = Channel(outgoing=self._outgoing, incoming=self._incoming, name="tapped worker")
        running: asyncio.Future[int] = loop.create_future()
        channel.subscribe(str(APPLICATION_PID), lambda event, _: running.set_result(event))
        await channel.start()
        await asyncio.wait_for(running, DEADLINE)
        self.worker = Worker(self._process, channel, hook=log_handler_error, app_data=None)

    async def close(self) -> None:
        self._process.kill()
        async with asyncio.timeout(DEADLINE):
            await self._process.exited
        for relay in self._relays:
            relay.cancel()
        outcomes = await asyncio.gather(*self._relays, return_exceptions=True)
        for end in (self._requests, self._answers, self._process.outgoing, self._process.incoming):
            end.close()
        assert not [error for error in outcomes if isinstance(error, TapError)]

    async def _to_worker(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._requests, 65_536):
            passed, refusals = self.tap.to_worker(data)
            for end, said in ((self._process.outgoing, passed), (self._answers, refusals)):
                if said:
                    await loop.sock_sendall(end, said)

    async def _to_application(self) -> None:
        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._process.incoming, 65_536):
            if passed := self.tap.to_application(data):
                await loop.sock_sendall(self._answers, passed)

    async def measure(self) -> None:
        """Asks the worker what its transports carry. Not while the application asks for something."""
        await asyncio.get_running_loop().sock_sendall(self._process.outgoing, self.tap.stats_requests())

    def sockets(self) -> set[tuple[str, str, int]]:
        """As `sockets_of` its process."""
        return sockets_of(self.pid)


def sockets_of(pid: int) -> set[tuple[str, str, int]]:
    """Protocol, address and port of all that a process listens on, as the kernel has it."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if found := re.fullmatch(r"socket:\[(\d+)\]", str(link.readlink())):
                inodes.add(found[1])
    bound = set()
    for protocol in ("udp", "udp6", "tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{protocol}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                address, _, port = fields[1].partition(":")
                bound.add((protocol, _address(address), int(port, 16)))
    return bound


def _address(text: str) -> str:
    """As /proc/net writes it: words of four bytes, each turned round."""
    raw = bytes.fromhex(text)
    words = (raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return str(ipaddress.ip_address(b"".join(words)))


@contextlib.asynccontextmanager
async def tapped_worker(policy: TenantPolicy = POLICY, gate: Gate | None = None) -> AsyncIterator[Tapped]:
    """A worker that runs here and is used through a tap."""
    gate = gate or Gate()
    environment = {**os.environ, "MEDIASOUP_VERSION": WORKER_VERSION}
    process = await spawn(find_worker_bin(), ["--logLevel=error"], environment)
    tap = ChannelTap(policy, application_pid=APPLICATION_PID, worker_pid=process.pid, gate=gate)
    gate.taps.append(tap)
    tapped = Tapped(process, tap)
    try:
        await tapped.open()
        yield tapped
        tapped.worker.close()
    finally:
        await tapped.close()
