"""A dialler of `/control` for tests: greets, applies, and keeps what is reported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import aiohttp
import msgspec

from mediaserver.control.contract import (
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
    TenantWorkers,
)
from mediaserver.control.contract.greeting import Greeter
from mediaserver.wire.errors import WireError
from mediaserver.wire.membership import IN_THE_CLEAR, Credential, Dial
from mediaserver.wire.replica import Delta, Receiver, Sender
from mediaserver.wire.rpc import Connection, Methods, connect

DEADLINE = 10.0


class ControlClient:
    """One connection. ``reported`` follows the server's reports; ``resyncs`` counts the server's requests."""

    def __init__(self) -> None:
        self.methods = Methods()
        self.greeter = Greeter(self.methods)
        self.sender: Sender[DesiredEntry] = Sender()
        self.reports: list[Delta] = []
        self.loads: list[Load] = []
        self.ended: WireError | None = None
        self._receiver: Receiver[ReportedEntry] = Receiver(ReportedEntry)
        self._changed = asyncio.Event()
        self._connection: Connection | None = None
        self.methods.on_notification("report", Report, self._report)
        self.methods.on_notification("load", Load, self._load)

    @property
    def connection(self) -> Connection:
        assert self._connection is not None, "dial first"
        return self._connection

    @property
    def reported(self) -> Mapping[str, ReportedEntry]:
        return self._receiver.entries

    async def dial(
        self, session: aiohttp.ClientSession, url: str, dial: Dial = IN_THE_CLEAR
    ) -> asyncio.Task[None]:
        """Connect; the task reads until the connection ends and notes in ``ended`` how."""
        self._connection = await connect(session, url, self.methods, name="the server under test", dial=dial)
        return asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.connection.run()
        except WireError as error:
            self.ended = error
        self._changed.set()

    async def hello(
        self,
        credential: Credential,
        *,
        role: Role = "operator",
        cluster_uid: str = "uid-1",
        cluster_name: str = "media/main",
        server_name: str = "media/main-1",
        epoch: int = 1,
    ) -> ServerHello:
        return await self.greeter.greet(
            self.connection,
            credential,
            role=role,
            cluster_uid=cluster_uid,
            cluster_name=cluster_name,
            server_name=server_name,
            epoch=epoch,
        )

    async def apply(self, desired: Mapping[str, DesiredEntry], *, epoch: int = 1) -> ApplyResult:
        """Send what changed; ``desired`` is the whole. An empty change is sent as one."""
        delta = self.sender.update(desired) or self.sender.whole()
        return await self.send(delta, epoch=epoch)

    async def send(self, delta: Delta, *, epoch: int = 1) -> ApplyResult:
        return await self.connection.call("apply", Apply(epoch=epoch, delta=delta), ApplyResult)

    async def resync(self) -> None:
        await self.connection.call("resync", Empty(), Empty)

    async def dump(self) -> Dump:
        return await self.connection.call("dump", Empty(), Dump)

    async def tenants(self) -> TenantWorkers:
        return await self.connection.call("tenants", Empty(), TenantWorkers)

    async def until(self, condition: Callable[[], bool], what: str, *, deadline: float = DEADLINE) -> None:
        """Wait until a report, a load or the end of the connection makes ``condition`` true."""
        try:
            async with asyncio.timeout(deadline):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise AssertionError(f"not within {deadline:g} s: {what}; reported: {self.reported}") from error

    def _report(self, report: Report) -> None:
        self.reports.append(report.delta)
        self._receiver.apply(msgspec.json.decode(msgspec.json.encode(report.delta), type=Delta))
        self._changed.set()

    def _load(self, load: Load) -> None:
        self.loads.append(load)
        self._changed.set()


@asynccontextmanager
async def dialled(url: str, dial: Dial = IN_THE_CLEAR) -> AsyncIterator[ControlClient]:
    """A client that is connected and has not greeted."""
    client = ControlClient()
    async with aiohttp.ClientSession() as session:
        running = await client.dial(session, url, dial)
        try:
            yield client
        finally:
            await client.connection.close()
            await asyncio.gather(running, return_exceptions=True)
