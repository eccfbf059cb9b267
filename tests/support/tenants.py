"""Tenants without workers or networks: process, tap and application's side do as they are told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from io import FileIO
from typing import Any, cast

from support.remote import KEYS, tenant_settings

from mediaserver import shim
from mediaserver.mediasoup.process import ExitStatus
from mediaserver.remote.process import DtlsFiles, TenantProcess
from mediaserver.remote.settings import TenantSettings
from mediaserver.remote.tap import ChannelTap, TapError
from mediaserver.remote.tenant import Tenant
from mediaserver.remote.tokens import Bearer, Origin
from mediaserver.remote.tunnel import Tunnel
from mediaserver.wire.worker_tokens import WorkerClaims

NO_PID = 2**22 + 1
"""More than Linux gives to any process."""


def claims(**changes: Any) -> WorkerClaims:
    given: dict[str, Any] = {"iss": "cluster-uid", "sub": "app", "nbf": 0, "exp": 2**40, "jti": "t1"}
    return WorkerClaims(**{**given, **changes})


def bearer(kid: str = "1", **changes: Any) -> Bearer:
    return Bearer(claims(**changes), kid, KEYS[kid])


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeTransport:
    """Of a tunnel; what was written is in `taken`."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.taken = bytearray()
        self.unsent = 0
        self.reading = True
        self.closed = self.aborted = False
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.taken += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        """What waits is never taken: only `abort` ends it then."""
        if not self.closed:
            self.closed = True
            if not self.unsent:
                asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        if not self.aborted and (not self.closed or self.unsent):
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)
        self.closed = self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Application:
    """The other side of a tunnel; `stream` goes on over several."""

    def __init__(self, clock: FakeClock, stream: shim.Stream | None = None) -> None:
        self.tunnel = Tunnel(clock)
        self.transport = FakeTransport(self.tunnel)
        self.tunnel.connection_made(cast(asyncio.Transport, self.transport))
        self.stream = stream or shim.Stream()
        self.frames = shim.Frames(client=True)
        self.welcome: dict[str, Any] | None = None
        self.goodbye: tuple[int, str] | None = None
        self.records: list[shim.Record] = []

    def give(self, opcode: int, payload: bytes = b"") -> None:
        self.tunnel.data_received(self.frames.encode(opcode, payload))

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.give(shim.BINARY, self.stream.send(kind, payload))

    def heartbeat(self) -> None:
        self.give(shim.BINARY, self.stream.heartbeat())

    def read(self) -> list[shim.Record]:
        """The records that came since the last time; `records` has them all."""
        before = len(self.records)
        data = bytes(self.transport.taken)
        self.transport.taken.clear()
        for opcode, payload in self.frames.feed(data):
            if opcode == shim.TEXT:
                self.welcome = json.loads(payload)
            elif opcode == shim.CLOSE:
                self.goodbye = int.from_bytes(payload[:2], "big"), payload[2:].decode()
            elif opcode == shim.BINARY:
                record = self.stream.receive(payload)
                if record is not None:
                    self.records.append(record)
        return self.records[before:]

    def said(self, kind: int) -> bytes:
        """All that came as records of one kind."""
        self.read()
        return b"".join(record.payload for record in self.records if record.kind == kind)


class FakeProcess:
    """A worker's process: `reads` and `says` are its ends of the channel."""

    def __init__(self) -> None:
        self.pid = NO_PID
        self.requests, self.reads = socket.socketpair()
        self.answers, self.says = socket.socketpair()
        (output, self.stdout), (errors, self.stderr) = os.pipe(), os.pipe()
        self.output, self.errors = FileIO(output), FileIO(errors)
        for stream in (self.requests, self.reads, self.answers, self.says):
            stream.setblocking(False)
        self.exited: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.signals: list[int] = []

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.end(ExitStatus(signal=signal.SIGKILL))

    def end(self, status: ExitStatus) -> None:
        if not self.exited.done():
            self.reads.close()
            self.says.close()
            os.close(self.stdout)
            os.close(self.stderr)
            self.exited.set_result(status)


class FakeTap:
    """Passes everything on; `refuse` answers everything itself, `fault` is raised."""

    def __init__(self) -> None:
        self.running = False
        self.consumers = self.transports = self.pipes = self.bitrate = 0
        self.refusal = b""
        self.fault: Exception | None = None

    def to_worker(self, data: bytes) -> tuple[bytes, bytes]:
        if self.fault is not None:
            raise self.fault
        return (b"", self.refusal) if self.refusal else (data, b"")

    def to_application(self, data: bytes) -> bytes:
        if self.fault is not None:
            raise self.fault
        self.running = True
        return data

    def stats_requests(self) -> bytes:
        return b"stats?"


class World:
    """One tenant; whatever is left of it when a test ends is ended by `close`."""

    def __init__(self, **changes: Any) -> None:
        self.clock = FakeClock()
        self.settings: TenantSettings = tenant_settings(buffer=100_000, **changes)
        self.process = FakeProcess()
        self.tap = FakeTap()
        self.finished = 0
        self.files = DtlsFiles({"dtlsCertificateFile": "AAAA"})
        self.tenant = Tenant(
            Origin(id="w1", bearer=bearer(), version="3.27.1", ticket="ticket"),
            cast(TenantProcess, self.process),
            cast(ChannelTap, self.tap),
            self.files,
            self.settings,
            clock=self.clock,
            finished=self._count,
        )

    def _count(self, tenant: Tenant) -> None:
        self.finished += 1

    def attach(self, stream: shim.Stream | None = None) -> Application:
        application = Application(self.clock, stream)
        self.tenant.attach(application.tunnel, 0 if stream is None else stream.received)
        return application

    def tick(self, seconds: float) -> None:
        self.clock.now += seconds
        self.tenant.tick(self.clock.now)

    async def close(self) -> None:
        await self.tenant.close("the test is over", 0.0)
        assert self.finished == 1


__all__ = ["Application", "FakeClock", "FakeProcess", "FakeTap", "FakeTransport", "TapError", "World"]
