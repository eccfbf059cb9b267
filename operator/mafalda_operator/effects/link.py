"""One control link: dials a media server, greets it, keeps its desired state in step, and hears it.

The link never ends by itself: what breaks is told in the view and dialled again, with backoff.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import structlog
from aiohttp import ClientSession

from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.link_problems import SilentReportError, VersionSkewError, problem_of
from mafalda_operator.model import ConnectionProblem, ObjectKey, Reported, ServerView
from mafalda_operator.planning.book import ServerChange
from mediaserver.control.contract import (
    CONTROL_PATH,
    CONTROL_PROTOCOL,
    ERROR_STALE_EPOCH,
    Apply,
    ApplyResult,
    DesiredEntry,
    Empty,
    Load,
    Report,
    ReportedEntry,
    ServerHello,
)
from mediaserver.control.contract.greeting import Greeter
from mediaserver.wire.errors import ConnectionLost, ProtocolError, RemoteError, ResyncNeededError, WireError
from mediaserver.wire.membership import Credential
from mediaserver.wire.replica import Delta, Receiver, Sender
from mediaserver.wire.rpc import Connection, Methods, connect

APPLY_DEADLINE = 10.0
REPORT_DEADLINE = 5.0
"""Seconds from the greeting to the first whole report."""
_STEADY = 5.0
"""Seconds after which a connection counts as having worked."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """Where to dial, and as whom. After ``silence`` seconds without a word a connection is given up."""

    server: ObjectKey
    address: str
    cluster: ObjectKey
    cluster_uid: str
    silence: float
    server_name: str = ""
    """The name that its certificate must have, if there is TLS."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What changed about a server: entries of its report; None means the connection, or all of them."""

    server: ObjectKey
    entries: tuple[ReportedEntry, ...] | None = None


class Epochs:
    """What a link needs of the leadership."""

    def __init__(self, current: Callable[[], int], meet: Callable[[int], None]) -> None:
        self.current = current
        self.meet = meet


@dataclass
class _Outgoing:
    """What the server should have: the sender's map plus changes that are not sent yet."""

    sender: Sender[DesiredEntry] = field(default_factory=Sender)
    changed: dict[str, DesiredEntry] = field(default_factory=dict)
    gone: dict[str, None] = field(default_factory=dict)
    whole: bool = True
    released: bool = False
    """Whether anything may be sent yet on this connection."""

    def add(self, change: ServerChange) -> None:
        for key, entry in change.changed.items():
            self.gone.pop(key, None)
            self.changed[key] = entry
        for key in change.gone:
            self.changed.pop(key, None)
            self.gone[key] = None

    def take(self) -> Delta | None:
        """What to send now, None when nothing changed."""
        changed, gone = self.changed, list(self.gone)
        self.changed, self.gone = {}, {}
        whole, self.whole = self.whole, False
        delta = self.sender.change(changed, gone)
        if whole and (delta is None or delta.base is not None):
            return self.sender.whole()
        return delta


class ControlLink:
    """``run`` must be awaited by somebody; ``on_heard`` is called from it, synchronously."""

    def __init__(
        self,
        target: Target,
        session: ClientSession,
        credential: Credential,
        epochs: Epochs,
        on_heard: Callable[[Heard], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.target = target
        self._session, self._epochs, self._on_heard = session, epochs, on_heard
        self._credential = credential
        self._clock = clock
        self._backoff = Backoff(first=0.2, longest=5.0, rng=rng or random.Random())
        self._connection: Connection | None = None
        self._connected = False
        self._report_received = False
        self._first_report = asyncio.Event()
        self._hello: ServerHello | None = None
        self._problem: ConnectionProblem | None = None
        self._last_heard: float | None = None
        self._reported = Reported()
        self._receiver: Receiver[ReportedEntry] = Receiver(ReportedEntry, ignore_unknown=True)
        self._load: tuple[Load, float] | None = None
        self._outgoing = _Outgoing()
        self._wake = asyncio.Event()
        self._asking = False
        self._tasks: asyncio.TaskGroup | None = None
        self._log = log.bind(server=str(target.server), cluster=str(target.cluster), address=target.address)

    # -- the owner's side -------------------------------------------------------------------------------

    @property
    def view(self) -> ServerView:
        greeted = self._connection if self._connected else None
        heard = greeted.last_heard if greeted is not None else self._last_heard
        load, load_at = self._load or (None, None)
        return ServerView(
            key=self.target.server,
            connected=self._connected,
            last_heard=heard,
            hello=self._hello,
            problem=None if self._connected else self._problem,
            reported=self._reported,
            report_received=self._report_received,
            load=load,
            load_at=load_at,
        )

    @property
    def released(self) -> bool:
        """Whether this connection's server has been told its desired state."""
        return self._outgoing.released

    def release(self, whole: Mapping[str, DesiredEntry]) -> None:
        """Say the whole desired state on a new connection; from then on ``send`` carries changes."""
        outgoing = _Outgoing(released=True)
        outgoing.add(ServerChange(changed=dict(whole)))
        self._outgoing = outgoing
        self._wake.set()

    def send(self, change: ServerChange) -> None:
        """Change what a released connection's server should have. Coalesces with what is not sent yet."""
        self._outgoing.add(change)
        self._wake.set()

    async def run(self) -> None:
        """Dial, again and again, until cancelled."""
        while True:
            started = self._clock()
            failure = await self._connect_once()
            if self._clock() - started > _STEADY:
                self._backoff.reset()
            self._note_end(failure)
            await asyncio.sleep(self._backoff.next())

    # -- one connection ---------------------------------------------------------------------------------

    async def _connect_once(self) -> WireError:
        methods = self._methods()
        greeter = Greeter(methods)
        try:
            dial = self._credential.dial(self.target.server_name)
            connection = await connect(
                self._session,
                dial.url(self.target.address, CONTROL_PATH),
                methods,
                dial=dial,
                name=f"media server {self.target.server}",
                silence=self.target.silence,
                clock=self._clock,
            )
        except WireError as error:
            return error
        self._connection = connection
        # A task of its own, since a group that fails at that moment loses the cancellation of its task.
        holding = asyncio.create_task(self._hold(connection, greeter))
        try:
            await asyncio.wait([holding])
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            await connection.close()
        return holding.result()

    async def _hold(self, connection: Connection, greeter: Greeter) -> WireError:
        """Converse until the connection ends; why it did."""
        try:
            async with asyncio.TaskGroup() as group:
                self._tasks = group
                group.create_task(_failing(connection.run()))
                group.create_task(self._converse(connection, greeter))
        except BaseExceptionGroup as errors:
            return self._failure(errors)
        finally:
            self._tasks = None
        raise AssertionError("unreachable: one of the two tasks has raised")

    def _failure(self, errors: BaseExceptionGroup) -> WireError:
        """The error that tells most: what the far side said, before that the connection is gone."""
        _, other = errors.split(WireError)
        if other is not None:
            self._log.error("the control link failed by a fault of its own", exc_info=other)
            return ProtocolError(str(other))
        flat = [error for error in _leaves(errors) if isinstance(error, WireError)]
        told = [error for error in flat if not isinstance(error, ConnectionLost)]
        return (told or flat)[0]

    async def _converse(self, connection: Connection, greeter: Greeter) -> None:
        """Greet, wait for the first report, then send what is to be sent for ever."""
        target = self.target
        hello = await greeter.greet(
            connection,
            self._credential,
            role="operator",
            cluster_uid=target.cluster_uid,
            cluster_name=str(target.cluster),
            server_name=str(target.server),
            epoch=self._epochs.current(),
        )
        if hello.protocol_version != CONTROL_PROTOCOL:
            raise VersionSkewError(hello.protocol_version)
        self._epochs.meet(hello.highest_epoch)
        self._hello, self._connected, self._problem = hello, True, None
        self._log.info("connected to media server", instance=hello.instance_id, version=hello.version)
        self._on_heard(Heard(target.server))
        if self._receiver.revision is not None:
            self._take_whole()  # it came together with the server's hello
        try:
            async with asyncio.timeout(REPORT_DEADLINE):
                await self._first_report.wait()
        except TimeoutError as error:
            raise SilentReportError(f"no report within {REPORT_DEADLINE:g} s of the greeting") from error
        await self._pump(connection)

    async def _pump(self, connection: Connection) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._outgoing.released:
                continue
            outgoing = self._outgoing
            delta = outgoing.take()
            if delta is not None:
                await self._apply(connection, outgoing, delta)

    async def _apply(self, connection: Connection, outgoing: _Outgoing, delta: Delta) -> None:
        result = await connection.call(
            "apply", Apply(epoch=self._epochs.current(), delta=delta), ApplyResult, timeout=APPLY_DEADLINE
        )
        if result.resync:
            self._log.warning("media server asks for its whole desired state", revision=result.revision)
            outgoing.whole = True
            self._wake.set()

    def _note_end(self, failure: WireError) -> None:
        was_connected, self._connected, self._report_received = self._connected, False, False
        if was_connected and self._connection is not None:
            self._last_heard = self._connection.last_heard  # who only refuses us is not heard
        self._connection = None
        self._outgoing = _Outgoing()
        self._first_report.clear()
        self._receiver = Receiver(ReportedEntry, ignore_unknown=True)
        if isinstance(failure, RemoteError) and failure.code == ERROR_STALE_EPOCH:
            self._epochs.meet(_highest_epoch(failure, self._epochs.current()))
        problem = problem_of(failure, self.target.address)
        if was_connected or problem != self._problem:
            self._problem = problem
            self._log.warning(
                f"not connected to media server: {problem.message}", reason=problem.reason, error=str(failure)
            )
            self._on_heard(Heard(self.target.server))

    # -- what the server says ---------------------------------------------------------------------------

    def _methods(self) -> Methods:
        methods = Methods()
        methods.on_notification("report", Report, self._take_report)
        methods.on_notification("load", Load, self._take_load)
        methods.on("resync", Empty, self._resync)
        return methods

    async def _resync(self, _: Empty) -> Empty:
        self._outgoing.whole = True
        self._wake.set()
        return Empty()

    def _take_load(self, load: Load) -> None:
        self._load = (load, self._clock())

    def _take_report(self, report: Report) -> None:
        delta = report.delta
        try:
            self._receiver.apply(delta)
        except ResyncNeededError as error:
            self._ask_for_all(str(error))
            return
        except msgspec.ValidationError as error:
            raise ProtocolError(f"report: {error}") from error
        if not self._connected:
            return  # used once the greeting is verified
        if delta.base is None:
            self._take_whole()
        else:
            self._take_change(delta)

    def _take_whole(self) -> None:
        self._reported.replace(self._receiver.entries)
        self._report_received = True
        self._first_report.set()
        self._on_heard(Heard(self.target.server))

    def _take_change(self, delta: Delta) -> None:
        entries: list[ReportedEntry] = []
        held = self._reported
        for key in delta.remove:
            old = held.routers.get(key) or held.links.get(key)
            if old is not None:
                entries.append(old)
            held.discard(key)
        for key in delta.set:
            entry = self._receiver.entries.get(key)
            if entry is None:  # of a kind that only newer operators know
                held.discard(key)
                continue
            held.put(key, entry)
            entries.append(entry)
        self._on_heard(Heard(self.target.server, tuple(entries)))

    def _ask_for_all(self, why: str) -> None:
        if self._asking or self._tasks is None or self._connection is None:
            return
        self._asking = True
        self._log.warning("asking media server for its whole report", error=why)
        self._tasks.create_task(self._call_resync(self._connection))

    async def _call_resync(self, connection: Connection) -> None:
        try:
            await connection.call("resync", Empty(), Empty)
        finally:
            self._asking = False


async def _failing(run: Awaitable[None]) -> None:
    """A connection's run; its end by this side's wish is an end all the same."""
    await run
    raise ConnectionLost("closed by this side")


def _leaves(errors: BaseExceptionGroup) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _highest_epoch(error: RemoteError, own: int) -> int:
    """What the server obeys, if it says so; else at least our own, so that ours is raised."""
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        return max(own, int(error.data["highestEpoch"]))
    return own
