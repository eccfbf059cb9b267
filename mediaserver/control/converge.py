"""Makes the media server have what the operator wants: one owner for every opening and closing.

Level-triggered: after each change of what is wanted or of what is, ``decide`` names the steps that can
be taken now. Each object has at most one step under way; a step that fails is tried again after growing
pauses, and until it succeeds the object's problem says why. Nothing is ever closed because an operator
is absent: what is wanted only changes by what an operator says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import structlog

from mediaserver.cascade import CascadeError, RouterUnavailableError
from mediaserver.control.contract import (
    SETTINGS_KEY,
    DesiredEntry,
    LinkEntry,
    RouterEntry,
    SessionEntry,
    SettingsEntry,
)
from mediaserver.control.diff import (
    Actual,
    CloseLink,
    CloseRouter,
    OpenLink,
    OpenRouter,
    Problem,
    Step,
    decide,
    same_router,
)
from mediaserver.mediasoup import (
    ChannelError,
    ClosedError,
    Event,
    InvalidArgumentError,
    MediasoupError,
    UnsupportedError,
    WorkerError,
)
from mediaserver.pool import WorkerPool, WorkerSlot
from mediaserver.wire.errors import WireError

log = structlog.get_logger(__name__)

STEP_DEADLINE = 15.0
"""Seconds that opening or closing one router or link may take."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
"""Seconds between two attempts at one object."""


class HostedRouter(Protocol):
    """What the converger needs to know of an open router."""

    @property
    def entry(self) -> RouterEntry: ...


class Host(Protocol):
    """What opens and closes; `mediaserver.cascade.CascadeHost` is one."""

    @property
    def routers(self) -> Mapping[str, HostedRouter]: ...
    async def open_router(self, entry: RouterEntry, session: SessionEntry) -> object: ...
    async def close_router(self, key: str, reason: str) -> None: ...
    async def open_link(self, entry: LinkEntry) -> None: ...
    async def close_link(self, key: str) -> None: ...
    def update_router(self, entry: RouterEntry) -> None: ...
    def update_session(self, entry: SessionEntry) -> None: ...
    def apply_settings(self, settings: SettingsEntry) -> None: ...


@dataclass
class _Retry:
    """The failures of one object's steps; forgotten when a step succeeds or something else is wanted."""

    failures: int
    not_before: float
    problem: Problem


class Converger:
    """Owns the steps from `start` to `close`. `on_change` tells that `problems` may have changed."""

    def __init__(self, host: Host, pool: WorkerPool, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_change: Event[None] = Event("converger change")
        self.on_settings: Event[SettingsEntry] = Event("settings")
        """What holds for the whole server has changed."""
        self._host = host
        self._pool = pool
        self._clock = clock
        self._desired: Mapping[str, DesiredEntry] = MappingProxyType({})
        self._links: dict[str, LinkEntry] = {}
        self._opening: dict[str, RouterEntry] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._retries: dict[str, _Retry] = {}
        self._problems: Mapping[str, Problem] = {}
        self._draining = False
        self._woken = asyncio.Event()
        self._owner: asyncio.Task[None] | None = None
        self._unsubscribe: list[Callable[[], None]] = []

    @property
    def desired(self) -> Mapping[str, DesiredEntry]:
        """What was wanted last."""
        return self._desired

    @property
    def problems(self) -> Mapping[str, Problem]:
        """Of the desired routers and links that are not open, by key."""
        return self._problems

    def start(self) -> None:
        self._unsubscribe = [
            self._pool.on_slot_up.subscribe(self._slot_up),
            self._pool.on_change.subscribe(lambda _: self.wake()),
        ]
        self._owner = asyncio.create_task(self._own(), name="converger")

    async def close(self) -> None:
        """Ends the steps under way, leaving what is open to the host's own close. Idempotent."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        tasks = [*self._running.values(), *([self._owner] if self._owner else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._owner = None

    def set_desired(self, desired: Mapping[str, DesiredEntry]) -> None:
        """Want this from now on. Settings and session keys hold at once, the rest follows."""
        before, self._desired = self._desired, MappingProxyType(dict(desired))
        for key in before.keys() | desired.keys():
            if before.get(key) != desired.get(key):
                self._retries.pop(key, None)
        settings = desired.get(SETTINGS_KEY)
        if isinstance(settings, SettingsEntry) and settings != before.get(SETTINGS_KEY):
            self._host.apply_settings(settings)
            self.on_settings.emit(settings)
        for key, entry in desired.items():
            if isinstance(entry, SessionEntry) and entry != before.get(key):
                self._host.update_session(entry)
        self.wake()

    def drain(self) -> None:
        """Open no more routers; what is open stays."""
        self._draining = True
        self.wake()

    def wake(self) -> None:
        """Look again: something that matters may have changed."""
        self._woken.set()

    def _slot_up(self, slot: WorkerSlot) -> None:
        for key, entry in self._desired.items():
            if isinstance(entry, RouterEntry) and entry.worker_slot == slot.index:
                self._retries.pop(key, None)
        self.wake()

    async def _own(self) -> None:
        while True:
            self._woken.clear()
            wait = self._advance()
            self.on_change.emit(None)
            try:
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            except TimeoutError:
                continue

    def _advance(self) -> float | None:
        """Begin every step that can begin; seconds until a failed one may be tried again, None if none."""
        self._update_routers()
        decision = decide(self._desired, self._actual())
        now = self._clock()
        waits = []
        problems = dict(decision.problems)
        for key, retry in self._retries.items():
            problems.setdefault(key, retry.problem)
        for step in decision.steps:
            retry_of_step = self._retries.get(step.key)
            if step.key in self._running:
                continue
            if retry_of_step is not None and retry_of_step.not_before > now:
                waits.append(retry_of_step.not_before - now)
                continue
            self._begin(step)
        self._problems = problems
        return min(waits, default=None)

    def _update_routers(self) -> None:
        """Tell open routers what of their entries may change while they are open."""
        for key, hosted in tuple(self._host.routers.items()):
            wanted = self._desired.get(key)
            if (
                isinstance(wanted, RouterEntry)
                and wanted != hosted.entry
                and same_router(hosted.entry, wanted)
            ):
                self._host.update_router(wanted)

    def _actual(self) -> Actual:
        routers = {key: hosted.entry for key, hosted in self._host.routers.items()}
        return Actual(
            routers=routers | self._opening,
            links=self._links,
            workers={slot.index: slot.reported() for slot in self._pool.slots},
            opening=frozenset(self._opening),
            draining=self._draining,
        )

    def _begin(self, step: Step) -> None:
        if isinstance(step, OpenRouter):
            self._opening[step.key] = step.entry
        elif isinstance(step, OpenLink):
            self._links[step.key] = step.entry
        task = asyncio.create_task(self._run(step), name=f"{type(step).__name__} {step.key}")
        self._running[step.key] = task

    async def _run(self, step: Step) -> None:
        failure: Exception | None = None
        try:
            async with asyncio.timeout(STEP_DEADLINE):
                await self._take(step)
        except (CascadeError, MediasoupError, WireError, TimeoutError) as error:
            failure = error
        except Exception as error:  # a bug: it must neither end the converger nor go unseen
            log.exception("a step failed unexpectedly", step=step)
            failure = error
        finally:
            self._running.pop(step.key, None)
            self._opening.pop(step.key, None)
        self._finish(step, failure)
        self.wake()

    async def _take(self, step: Step) -> None:
        match step:
            case OpenRouter():
                await self._host.open_router(step.entry, step.session)
            case CloseRouter():
                await self._host.close_router(step.key, step.reason)
            case OpenLink():
                await self._host.open_link(step.entry)
            case CloseLink():
                await self._host.close_link(step.key)

    def _finish(self, step: Step, failure: Exception | None) -> None:
        if isinstance(step, CloseLink if failure is None else OpenLink):
            self._links.pop(step.key, None)
        if failure is None:
            self._retries.pop(step.key, None)
            log.debug("step done", step=type(step).__name__, key=step.key)
            return
        earlier = self._retries.get(step.key)
        failures = 1 + (earlier.failures if earlier else 0)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10))
        problem = problem_of(failure)
        self._retries[step.key] = _Retry(failures, self._clock() + pause, problem)
        log.warning(
            "step failed",
            step=type(step).__name__,
            key=step.key,
            reason=problem.reason,
            error=problem.message,
            failures=failures,
            again_in=pause,
        )


def problem_of(error: Exception) -> Problem:
    """A failed step as reason and message."""
    if isinstance(error, InvalidArgumentError | UnsupportedError):
        return Problem("InvalidCodecs", f"the worker can't have this router: {error}; correct mediaCodecs")
    if isinstance(error, RouterUnavailableError):
        return Problem(error.reason, f"{error}; tried again")
    if isinstance(error, ClosedError | ChannelError | WorkerError):
        return Problem("WorkerDied", f"{error}; tried again on the worker that takes its place")
    if isinstance(error, TimeoutError):
        return Problem("Timeout", str(error) or f"not done within {STEP_DEADLINE:g} s; tried again")
    return Problem("Failed", f"{error}; tried again")
