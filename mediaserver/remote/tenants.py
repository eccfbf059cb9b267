"""All workers that run here for applications: who gets one, within which bounds, and what they use."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec
import structlog

from mediaserver import shim
from mediaserver.control.contract import TenantLoad, TenantWorker, WorkerTokens
from mediaserver.processes import cpu_seconds, resident_bytes
from mediaserver.remote.errors import CannotStart, Refused
from mediaserver.remote.process import DtlsFiles, spawn, worker_arguments
from mediaserver.remote.settings import TenantSettings
from mediaserver.remote.tap import ChannelTap
from mediaserver.remote.tenant import Tenant
from mediaserver.remote.tokens import Bearer, Origin, Tokens, gone
from mediaserver.remote.usage import TokenUse
from mediaserver.wire import worker_versions

log = structlog.get_logger(__name__)

TICK = 0.5
"""Seconds between two looks at every tenant."""
FIGURES_EVERY = 2.0
"""Seconds between two questions for what a worker's transports carry."""
FAREWELL = 1.0
"""Seconds that applications have to hear that this server stops."""


@dataclass(frozen=True)
class Admission:
    """An application that may have a worker; its place is held until the worker runs."""

    bearer: Bearer
    version: str


class Hello(msgspec.Struct, frozen=True):
    """What the application's side says of a new worker."""

    pid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
    arguments: list[str] = []
    files: dict[str, str] = {}


@dataclass
class _Cpu:
    """CPU seconds of a process when last looked at, and the cores that it used before."""

    seconds: float
    at: float
    cores: float = 0.0


@dataclass
class _Registered:
    tenant: Tenant
    use: TokenUse
    cpu: _Cpu


class Tenants:
    """From `start` to `close`."""

    def __init__(
        self,
        settings: TenantSettings,
        *,
        instance_id: str,
        server_name: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`server_name` gives this MediaServer's `namespace/name`, as the operator calls it."""
        self.settings = settings
        self._clock = clock
        self._tokens = Tokens(instance_id=instance_id, server_name=server_name, clock=wall_clock)
        self._held: dict[str, _Registered] = {}
        self._starting: Counter[str] = Counter()
        """Workers that are being started, by their token."""
        self._uses: dict[str, TokenUse] = {}
        self._closing = False
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._ticker = asyncio.create_task(self._tick(), name="tenants")

    async def close(self) -> None:
        """Takes no more, ends every worker, and tells the applications."""
        self._closing = True
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        every = [entry.tenant.close("the media server stops", FAREWELL) for entry in self._held.values()]
        await asyncio.gather(*every)

    def refuse_new(self) -> None:
        """Takes no new workers; those that run may stay."""
        self._closing = True

    # -- tokens ---------------------------------------------------------------------------------------

    def set_tokens(self, tokens: WorkerTokens | None) -> None:
        """Whose tokens count from now on; workers whose token does not any more are ended."""
        if not self._tokens.set(tokens):
            return
        for entry in list(self._held.values()):
            reason = self._tokens.lapsed(entry.tenant.origin.bearer)
            if reason is not None:
                entry.tenant.end(reason)

    def verify(self, token: str) -> Bearer:
        """Who comes with an application's token. Raises Refused."""
        return self._tokens.verify(token)

    def find(self, ticket: str) -> Tenant:
        """The tenant that a connection comes back to. Raises Refused."""
        told, kid = self._tokens.verify_ticket(ticket)
        entry = self._held.get(told.worker)
        # Who has another key could sign a ticket for any worker, but has none of another's workers.
        if entry is None or (kid, told.token) != (entry.tenant.origin.bearer.kid, entry.tenant.origin.token):
            raise gone()
        return entry.tenant

    # -- admission ------------------------------------------------------------------------------------

    @contextmanager
    def admit(self, bearer: Bearer, asked: str) -> Iterator[Admission]:
        """Holds a place for one more worker of mediasoup ``asked`` while it is started. Raises Refused."""
        claims = bearer.claims
        version = worker_versions.choose(asked, self.settings.binaries)
        if version is None:
            raise Refused(409, worker_versions.refusal(asked, self.settings.binaries))
        if self._closing:
            raise Refused(503, "the media server stops", final=False)
        if self.free() < 1:
            raise Refused(503, self._no_room(), final=False)
        mine = self.by_token()[claims.jti]
        if claims.workers is not None and mine >= claims.workers:
            raise Refused(
                403,
                f"the token's bound of {claims.workers} workers is reached; close a worker, or have a token "
                "with more (claim workers)",
            )
        self._starting[claims.jti] += 1
        try:
            yield Admission(bearer, version)
        finally:
            self._starting[claims.jti] -= 1
            if not self._starting[claims.jti]:
                del self._starting[claims.jti]

    def by_token(self) -> Counter[str]:
        """How many workers each token has, those being started too."""
        running = Counter(entry.tenant.origin.token for entry in self._held.values() if entry.tenant.alive)
        return running + self._starting

    def free(self) -> int:
        """How many more workers would be taken now."""
        settings = self.settings
        if self._closing or self.cpu() >= settings.most_cores:
            return 0
        return max(0, settings.most_workers - self.by_token().total())

    def _no_room(self) -> str:
        settings = self.settings
        if self.cpu() >= settings.most_cores:
            return f"applications' workers use {self.cpu():.1f} of the {settings.most_cores:g} cores they may"
        return f"all {settings.most_workers} places for applications' workers are taken"

    def launch(self, admission: Admission, hello: Hello) -> Tenant:
        """Starts an admitted worker's process; whoever calls starts the tenant. Raises CannotStart."""
        bearer, version, settings = admission.bearer, admission.version, self.settings
        claims = bearer.claims
        if self._closing:  # since it was admitted
            raise CannotStart("the media server stops")
        ident = secrets.token_hex(8)
        origin = Origin(id=ident, bearer=bearer, version=version, ticket=self._tokens.ticket(bearer, ident))
        policy = settings.policy
        if claims.pipe_srtp is not None:
            policy = replace(policy, pipe_srtp=claims.pipe_srtp)
        arguments = worker_arguments(hello.arguments, policy)
        files = DtlsFiles(hello.files)
        try:
            process = spawn(settings.binaries[version], [*arguments, *files.arguments], version)
        except BaseException:
            files.remove()
            raise
        use = self._uses.setdefault(claims.jti, TokenUse(claims))
        tap = ChannelTap(policy, application_pid=hello.pid, worker_pid=process.pid, gate=use)
        tenant = Tenant(origin, process, tap, files, settings, clock=self._clock, finished=self._remove)
        use.taps[ident] = tap
        self._held[ident] = _Registered(tenant, use, _Cpu(0.0, self._clock()))
        log.info(
            "tenant worker runs",
            tenant=ident,
            subject=claims.sub,
            token=claims.jti,
            version=version,
            pid=process.pid,
        )
        return tenant

    def _remove(self, tenant: Tenant) -> None:
        entry = self._held.pop(tenant.origin.id, None)
        if entry is not None:
            entry.use.taps.pop(tenant.origin.id, None)
            if not entry.use.taps:
                self._uses.pop(tenant.origin.token, None)

    # -- figures --------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        asked = self._clock()
        while True:
            await asyncio.sleep(TICK)
            now = self._clock()
            ask = now - asked >= FIGURES_EVERY
            asked = now if ask else asked
            for entry in list(self._held.values()):
                try:
                    entry.tenant.tick(now)
                    if ask and entry.use.claims.bandwidth is not None:
                        entry.tenant.ask_for_figures()
                except Exception:  # a bug: it must not keep other tenants from their turn
                    log.exception("a tenant's turn failed", tenant=entry.tenant.origin.id)

    def measure(self) -> None:
        """Reads what each process has used since the last time."""
        now = self._clock()
        for entry in self._held.values():
            seconds = cpu_seconds(entry.tenant.process.pid) if entry.tenant.alive else None
            cpu = entry.cpu
            if seconds is not None and now > cpu.at:
                entry.cpu = _Cpu(seconds, now, (seconds - cpu.seconds) / (now - cpu.at))

    def cpu(self) -> float:
        """Cores that all of them used when last measured."""
        return sum(entry.cpu.cores for entry in self._held.values() if entry.tenant.alive)

    def load(self) -> TenantLoad:
        """Live figures; measures anew."""
        self.measure()
        counts = self.by_token()
        return TenantLoad(
            workers=counts.total(), free=self.free(), cpu=self.cpu(), by_token=dict(sorted(counts.items()))
        )

    @property
    def pipes(self) -> int:
        """Ports of the pipe range that they use."""
        if self.settings.policy.addresses == "Keep":
            return 0  # theirs are where the applications want them
        return sum(entry.tenant.tap.pipes for entry in self._held.values() if entry.tenant.alive)

    def workers(self) -> list[TenantWorker]:
        """Every worker that runs for an application."""
        now = self._clock()
        return [
            TenantWorker(
                id=tenant.origin.id,
                subject=tenant.origin.subject,
                token=tenant.origin.token,
                version=tenant.origin.version,
                pid=tenant.process.pid,
                attached=tenant.attached,
                age=now - tenant.born,
                cpu=entry.cpu.cores,
                memory=resident_bytes(tenant.process.pid),
                consumers=tenant.tap.consumers,
                transports=tenant.tap.transports,
            )
            for entry in self._held.values()
            if (tenant := entry.tenant).alive
        ]


def parse_hello(message: Mapping[str, Any]) -> Hello:
    """Raises CannotStart for a hello that is none."""
    try:
        return msgspec.convert(message, Hello)
    except msgspec.ValidationError as error:
        raise CannotStart(f"the hello cannot be read: {error}", exit_code=shim.EXIT_WRONG_SETTINGS) from error
