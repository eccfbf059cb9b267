"""Observer links: what each media server says of itself, and whether it can be heard at all."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import structlog

from mediaserver.control.contract import (
    CONTROL_PATH,
    LEAVING_KEY,
    Load,
    Report,
    ReportedEntry,
    RouterState,
    ServerHello,
    router_key,
)
from mediaserver.control.contract.greeting import Greeter
from mediaserver.gateway.resources import ObjectKey
from mediaserver.wire.errors import PeerSilent, ProtocolError, ResyncNeededError, WireError
from mediaserver.wire.membership import Credential, Dial
from mediaserver.wire.replica import Receiver
from mediaserver.wire.rpc import Connection, Methods, connect

SILENCE_SECONDS = 2.0
"""A server of which nothing is heard for so long takes no participants, and loses those it has."""
CONNECT_SECONDS = 2.0
MIN_PAUSE, MAX_PAUSE = 0.1, 2.0
_NOT_REACHED = "not reached yet"

log = structlog.get_logger()


@dataclass(frozen=True)
class Target:
    """Whom to dial, and as what."""

    server: ObjectKey
    address: str
    """HOST:PORT of its internal listener."""
    cluster: ObjectKey
    cluster_uid: str
    server_name: str = ""
    """The name that its certificate must have, if there is TLS."""


class ServerLink:
    """Dials one server again and again; owned by whoever awaits ``run``."""

    def __init__(
        self,
        target: Target,
        session: aiohttp.ClientSession,
        credential: Credential,
        *,
        changed: Callable[[], None],
        loaded: Callable[[], None],
        lost: Callable[[ObjectKey, str], None],
    ) -> None:
        """``lost`` is called with a reason when a server that was there has been away or silent too long.

        ``loaded`` is called when load came, which happens every second; the first also counts as a change.
        """
        self.target = target
        self.hello: ServerHello | None = None
        """While connected."""
        self.load: Load | None = None
        self.load_at = 0.0
        """By time.monotonic(): when ``load`` came."""
        self.problem = _NOT_REACHED
        """Why it is not connected."""
        self._session = session
        self._credential = credential
        self._changed = changed
        self._loaded = loaded
        self._lost = lost
        self._reports: Receiver[ReportedEntry] | None = None
        self._mourning: asyncio.TimerHandle | None = None
        self._pause = MIN_PAUSE

    @property
    def usable(self) -> bool:
        """Whether it is connected and has said what it has."""
        return self.hello is not None and self._reports is not None and self._reports.revision is not None

    @property
    def pending(self) -> bool:
        """Whether its first dial, or the first figures of its load, may come in at any moment."""
        return self.load is None and (self.hello is not None or self.problem == _NOT_REACHED)

    def router_ready(self, router: ObjectKey) -> bool:
        """Whether the server itself says that the router takes participants."""
        if not self.usable or self._reports is None:
            return False
        state = self._reports.entries.get(router_key(*router))
        return isinstance(state, RouterState) and state.ready

    def router_leaving(self, router: ObjectKey) -> bool:
        """Whether its server sends the router's participants elsewhere."""
        state = self._reports.entries.get(router_key(*router)) if self._reports is not None else None
        return isinstance(state, RouterState) and state.leaving

    @property
    def leaving(self) -> bool:
        """Whether the server was told to end."""
        return self._reports is not None and LEAVING_KEY in self._reports.entries

    def participants(self, router: ObjectKey) -> int:
        """How many the router has, as of the last second."""
        load = self.load.routers.get(router_key(*router)) if self.load is not None else None
        return load.participants if load is not None else 0

    def dial(self) -> Dial:
        """How to dial this server, also for its participants. Raises MembershipError."""
        return self._credential.dial(self.target.server_name)

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        try:
            while True:
                error = await self._attempt()
                self._went_down(error)
                await asyncio.sleep(self._pause * random.uniform(0.8, 1.2))
                self._pause = min(self._pause * 2, MAX_PAUSE)
        finally:
            self._down("the gateway does not follow it any more")
            if self._mourning is not None:
                self._mourning.cancel()

    async def _attempt(self) -> WireError:
        """One connection, to its end; why it ended."""
        methods = Methods()
        greeter = Greeter(methods)
        reports: Receiver[ReportedEntry] = Receiver(ReportedEntry, ignore_unknown=True)
        methods.on_notification("report", Report, lambda report: self._take_report(reports, report))
        methods.on_notification("load", Load, self._take_load)
        name = f"MediaServer {self.target.server}"
        try:
            dial = self.dial()
            connection = await connect(
                self._session,
                dial.url(self.target.address, CONTROL_PATH),
                methods,
                name=name,
                dial=dial,
                timeout=CONNECT_SECONDS,
                silence=SILENCE_SECONDS,
            )
        except WireError as error:
            return error
        running = asyncio.create_task(connection.run())
        try:
            await self._greet(connection, greeter, reports)
            await running
        except WireError as error:
            await connection.close()
            # The connection's own end says more than what a call on it met.
            end = (await asyncio.gather(running, return_exceptions=True))[0]
            return end if isinstance(end, PeerSilent) else error
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        return ProtocolError(f"{name}: the link was closed by the gateway")

    async def _greet(self, connection: Connection, greeter: Greeter, reports: Receiver[Any]) -> None:
        hello = await greeter.greet(
            connection,
            self._credential,
            role="observer",
            cluster_uid=self.target.cluster_uid,
            cluster_name=str(self.target.cluster),
            server_name=str(self.target.server),
        )
        if self._mourning is not None:
            self._mourning.cancel()
            self._mourning = None
        self._reports = reports
        self.hello, self.problem, self._pause = hello, "", MIN_PAUSE
        log.info("media server connected", server=str(self.target.server), instance=hello.instance_id)
        self._changed()

    def _take_report(self, reports: Receiver[ReportedEntry], report: Report) -> None:
        try:
            reports.apply(report.delta)
        except ResyncNeededError as error:
            # Dialling anew brings the whole map, and is the one way in which it can come.
            raise ProtocolError(f"a report does not fit: {error}") from error
        self._changed()

    def _take_load(self, load: Load) -> None:
        first = self.load is None
        self.load, self.load_at = load, time.monotonic()
        self._loaded()
        if first:
            self._changed()

    # -- being away -----------------------------------------------------------------------------------

    def _went_down(self, error: WireError) -> None:
        reason = str(error)
        if reason != self.problem:
            log.warning("media server not connected", server=str(self.target.server), reason=reason)
        was_there = self._down(reason)
        if was_there and isinstance(error, PeerSilent):
            self._mourn(reason)
        elif was_there:
            loop = asyncio.get_running_loop()
            self._mourning = loop.call_later(SILENCE_SECONDS, self._mourn, reason)

    def _mourn(self, reason: str) -> None:
        self._mourning = None
        log.warning("media server lost", server=str(self.target.server), reason=reason)
        self._lost(self.target.server, reason)

    def _down(self, reason: str) -> bool:
        """Note that it is not connected; whether it was."""
        was_there = self.hello is not None
        self.hello = self.load = self._reports = None
        self.problem = reason
        if was_there:
            self._changed()
        return was_there


class ServerLinks:
    """One link for each target; the set is given anew whenever it may have changed."""

    def __init__(self, make: Callable[[Target], ServerLink]) -> None:
        self._make = make
        self._links: dict[ObjectKey, tuple[ServerLink, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def get(self, server: ObjectKey) -> ServerLink | None:
        found = self._links.get(server)
        return found[0] if found else None

    def all(self) -> list[ServerLink]:
        return [link for link, _ in self._links.values()]

    def set_targets(self, targets: Mapping[ObjectKey, Target]) -> None:
        """Start and end links so that there is one for each target, as it is now."""
        for server, (link, task) in list(self._links.items()):
            if targets.get(server) != link.target:
                del self._links[server]
                self._end(task)
        for server, target in targets.items():
            if server not in self._links:
                link = self._make(target)
                self._links[server] = link, asyncio.create_task(link.run(), name=f"link {server}")

    def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        self.set_targets({})
        await asyncio.gather(*self._ending, return_exceptions=True)
