"""Leadership: one Lease, and in its annotation the epoch that media servers obey.

The epoch goes up by compare-and-swap each time a process takes the Lease, and once more when the holder
meets a higher one among the servers. A holder that cannot renew stops to act before anybody else may
take the Lease, and goes on if it is still the holder when the API server is back; one that sees another
holder has lost it for good.

Why only one acts: a holder counts ``deadline`` from before it sent the renewal that succeeded, which is
before that renewal was stored; others count the longer ``duration`` from when they first saw it, which is
after. No clock is compared with another one. Others count only while the API server answers them: when it
was away the holder could not renew either, and has the whole duration to do so once it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from mafalda_operator.effects.api import LEASES, KubeApi
from mafalda_operator.effects.errors import (
    ApiRefused,
    ApiUnavailable,
    Conflict,
    Forbidden,
    KubeError,
    NotFound,
    Unauthorized,
)

EPOCH_ANNOTATION = "mafalda.io/epoch"
_SHORTEST_PAUSE = 0.02
"""Seconds between two looks at a Lease, whatever is found."""

log = structlog.get_logger(__name__)


class LeadershipLostError(Exception):
    """Another process holds the Lease."""


class LeaseUnusableError(Exception):
    """The Lease cannot be read or written, and waiting will not mend it; the message says what will."""


@dataclass(frozen=True)
class LeaseTimes:
    """In seconds.

    ``duration``: how long others respect a holder that is not heard, whole seconds as the Lease has them;
    ``deadline``: how long a holder acts without having renewed, and how long one request may take; ``renew``:
    how often it renews, and how often a standby looks. A standby takes over from a killed leader within
    ``duration`` + ``renew`` and three requests. Raises ValueError if two could act at once.
    """

    duration: int = 3
    deadline: float = 2.0
    renew: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.renew < self.deadline < self.duration:
            raise ValueError(f"lease times must be 0 < renew < deadline < duration: {self}")


class Leadership:
    """This process's part in the election. ``acquire``, then ``hold`` until the end, then ``release``."""

    def __init__(
        self,
        api: KubeApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseTimes | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._namespace, self._name, self._identity = namespace, name, identity
        self._times = times or LeaseTimes()
        self._clock, self._wall = clock, wall
        self._lease: dict[str, Any] | None = None
        self._renewed = float("-inf")
        """When the last successful write was begun: what was stored is no older."""
        self._begun = float("-inf")
        self._seen: tuple[Any, float] | None = None
        """Somebody else's Lease: its version, and since when this process has seen it unchanged."""
        self._answered = True
        self._met = 0
        self._attempted = 0
        self._nudge = asyncio.Event()
        self.epoch = 0
        """0 until acquired."""

    @property
    def active(self) -> bool:
        """Whether this process may act now."""
        return self.epoch > 0 and self._clock() - self._renewed < self._times.deadline

    def meet(self, epoch: int) -> None:
        """A media server knows ``epoch``; if it is not below ours, ours is raised above it soon."""
        if epoch > max(self.epoch, self._met):
            log.warning("a media server has met a higher epoch", epoch=epoch, own=self.epoch)
            self._met = epoch
            self._nudge.set()

    async def acquire(self) -> None:
        """Wait for the Lease, for ever if need be, and take it. Raises LeaseUnusableError."""
        waiting_for = None
        while not await self._attempt(self._try_to_take):
            holder = self._holder()
            if holder != waiting_for:
                log.info("standing by", lease=self._path, holder=holder or "nobody")
                waiting_for = holder
            await asyncio.sleep(max(_SHORTEST_PAUSE, min(self._times.renew, self._until_free())))
        log.info("took the lease", lease=self._path, epoch=self.epoch, identity=self._identity)

    async def hold(self) -> None:
        """Renew until cancelled. Raises LeadershipLostError as soon as another holder is seen."""
        paused = False
        while True:
            try:
                async with asyncio.timeout(self._times.renew):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            self._nudge.clear()
            await self._attempt(self._renew)
            if paused == self.active:
                paused = not self.active
                if paused:
                    log.error("cannot renew the lease; nothing is decided until that works", lease=self._path)
                else:
                    log.info("renewed the lease again", lease=self._path, epoch=self.epoch)

    async def release(self) -> None:
        """Give the Lease up so that a standby need not wait. Never raises for what the API server does."""
        if self.epoch == 0:
            return
        self._renewed = float("-inf")
        try:
            async with asyncio.timeout(self._times.deadline):
                if self._lease is None:  # a renewal was cut off, or refused
                    self._lease = await self._read()
                if self._lease is None or not self._is_ours(self._lease):
                    return
                await self._write(self._spec(holder="", duration=1), _epoch_of(self._lease))
            log.info("released the lease", lease=self._path)
        except (KubeError, TimeoutError) as error:
            log.warning("could not release the lease; a standby waits for it to expire", error=str(error))

    # -- steps ------------------------------------------------------------------------------------------

    @property
    def _path(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def _attempt(self, step: Callable[[], Any]) -> bool:
        """One step under the deadline; False when it is to be tried again."""
        try:
            async with asyncio.timeout(self._times.deadline):
                done = bool(await step())
        except (TimeoutError, ApiUnavailable) as error:
            self._unanswered(str(error) or f"no answer within {self._times.deadline:g} s")
        except Conflict:
            self._lease = None  # somebody wrote meanwhile: read anew
        except Unauthorized as error:  # a token may rotate a little late
            self._unanswered(f"{error}: the API server does not accept the operator's credentials")
        except ApiRefused as error:
            if not error.transient:
                raise self._unusable(error) from error
            self._unanswered(str(error))
        else:
            self._answered = True
            return done
        return False

    def _unanswered(self, error: str) -> None:
        """What was seen before counts no more; told once, until the API server answers again."""
        self._seen = None
        if self._answered:
            log.warning("the API server does not answer about the lease", lease=self._path, error=error)
        self._answered = False

    def _unusable(self, error: ApiRefused) -> LeaseUnusableError:
        if isinstance(error, NotFound):
            return LeaseUnusableError(
                f"Lease {self._path} cannot be made: namespace {self._namespace} does not exist;"
                f" kubectl create namespace {self._namespace}, or pass another --lease-namespace"
            )
        if isinstance(error, Forbidden):
            return LeaseUnusableError(
                f"Lease {self._path}: forbidden ({error.message}); allow get, create and update on leases"
                f" (coordination.k8s.io) in namespace {self._namespace} to the operator's account"
            )
        return LeaseUnusableError(f"Lease {self._path}: {error}")

    async def _try_to_take(self) -> bool:
        lease = await self._read()
        if lease is None:
            self._begun = self._clock()
            self._lease = await self._api.create(LEASES, self._namespace, self._body({}, 1))
            self._won(1)
            return True
        self._lease = lease
        if not self._may_take(lease):
            return False
        epoch = max(_epoch_of(lease), self._met) + 1
        await self._write(self._spec(taking=True), epoch)
        self._won(epoch)
        return True

    async def _renew(self) -> bool:
        if self._lease is None:
            self._lease = await self._read()
        if self._lease is None or not self._is_ours(self._lease):
            raise LeadershipLostError(f"Lease {self._path} is held by {self._holder() or 'nobody'}")
        self.epoch = _epoch_of(self._lease)
        epoch = self.epoch if self._met <= self.epoch else self._met + 1
        await self._write(self._spec(), epoch)
        if epoch != self.epoch:
            log.info("raised the epoch", epoch=epoch)
        self._won(epoch)
        return True

    def _won(self, epoch: int) -> None:
        self.epoch = epoch
        self._renewed = self._begun

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._api.get(LEASES, self._namespace, self._name)
        except NotFound:
            return None

    def _is_ours(self, lease: dict[str, Any]) -> bool:
        """Held by us, with our epoch or one that we wrote without hearing the answer."""
        return self._holder() == self._identity and _epoch_of(lease) in (self.epoch, self._attempted)

    async def _write(self, spec: dict[str, Any], epoch: int) -> None:
        lease, self._lease = self._lease, None  # unknown until the answer
        self._attempted = epoch
        body = self._body(lease or {}, epoch, spec)
        self._begun = self._clock()
        self._lease = await self._api.replace(LEASES, self._namespace, self._name, body)

    def _body(self, lease: dict[str, Any], epoch: int, spec: dict[str, Any] | None = None) -> dict[str, Any]:
        metadata = lease.get("metadata") or {"name": self._name, "namespace": self._namespace}
        annotations = {**(metadata.get("annotations") or {}), EPOCH_ANNOTATION: str(epoch)}
        return {
            **lease,
            "metadata": {**metadata, "annotations": annotations},
            "spec": spec or self._spec(taking=True),
        }

    def _spec(
        self, *, taking: bool = False, holder: str | None = None, duration: int | None = None
    ) -> dict[str, Any]:
        old = (self._lease or {}).get("spec") or {}
        now = self._wall().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        return {
            **old,
            "holderIdentity": self._identity if holder is None else holder,
            "leaseDurationSeconds": duration or self._times.duration,
            "renewTime": now,
            **(
                {"acquireTime": now, "leaseTransitions": int(old.get("leaseTransitions") or 0) + 1}
                if taking
                else {}
            ),
        }

    # -- others' leases ---------------------------------------------------------------------------------

    def _holder(self) -> str:
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")

    def _may_take(self, lease: dict[str, Any]) -> bool:
        """Free, ours from before, or unchanged for its duration by our own clock (clocks differ)."""
        if self._holder() in ("", self._identity):
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        return self._until_free() <= 0

    def _until_free(self) -> float:
        """Seconds until the Lease that was seen may be taken, if it stays unchanged."""
        spec = (self._lease or {}).get("spec") or {}
        duration = float(spec.get("leaseDurationSeconds") or self._times.duration)
        return duration if self._seen is None else self._seen[1] + duration - self._clock()


def _epoch_of(lease: dict[str, Any]) -> int:
    text = ((lease["metadata"].get("annotations") or {}).get(EPOCH_ANNOTATION)) or ""
    return int(text) if text.isascii() and text.isdigit() else 0
