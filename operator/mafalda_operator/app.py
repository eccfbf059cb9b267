"""One operator process: every part made, wired, run, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from mafalda_operator import health
from mafalda_operator.effects.api import KubeApi
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.certificates import CertificateKeeper, Issuing
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.delivery import Delivery
from mafalda_operator.effects.errors import ApiUnavailable, CredentialsError, KubeError
from mafalda_operator.effects.events import EventWriter
from mafalda_operator.effects.following import Follower
from mafalda_operator.effects.kube import Actor
from mafalda_operator.effects.lease import Leadership, LeadershipLostError, LeaseUnusableError
from mafalda_operator.effects.link import Epochs
from mafalda_operator.effects.listing import Lister, explain
from mafalda_operator.effects.secrets import KeySecrets
from mafalda_operator.effects.servers import ServerLinks
from mafalda_operator.effects.status import StatusWriter
from mafalda_operator.effects.story import Story
from mafalda_operator.effects.writers import Writers
from mafalda_operator.handlers.watches import WatchClock, Watches
from mafalda_operator.loop import Effects, Loop
from mafalda_operator.metrics import Metrics
from mafalda_operator.model import Inventory, ObjectKey
from mafalda_operator.planning.actions import EventNote
from mafalda_operator.planning.guard import Withheld
from mafalda_operator.store import Store
from mediaserver.wire.listen import ListenAddress, listen
from mediaserver.wire.membership import Credential
from mediaserver.wire.stop_signals import take_stop_signals
from mediaserver.wire.tls import Certificates

FIRST_CONTACT_SECONDS = 8.0
"""How long refusals are put down to a control plane that is still starting."""
CERTIFICATE_SECONDS = 5.0
"""How long a new leader waits for its first certificate before it plans without."""
_END_SECONDS = 10.0

log = structlog.get_logger(__name__)


class StartError(Exception):
    """The operator cannot do its work; the message names the remedy."""


@dataclass(frozen=True)
class Settings:
    kubeconfig: Path | None
    metrics_listen: ListenAddress
    lease_namespace: str
    lease_name: str
    identity: str
    namespaces: tuple[str, ...] = ()
    """Absent: all."""
    default_image: str = ""
    """Of the pods of MediaClusters that name none."""
    tls_ca_secret: str | None = None
    """The Secret of the CA that the operator makes certificates by, in ``lease_namespace``; None: none."""
    tls_gateway_secret: str = "mafalda-gateway-tls"


class Operator:
    """Make it, then ``run`` it once."""

    def __init__(self, settings: Settings, credential: Credential) -> None:
        self.settings = settings
        self._credential = credential
        self.metrics = Metrics()
        self._lag = health.LagMeter()
        credentials = Credentials(settings.kubeconfig)
        self._api = KubeApi(credentials, done=self.metrics.note_request)
        self._inventory = Inventory()
        self._story = Story(self._inventory)
        self._inventory.default_image = settings.default_image
        self._leadership = Leadership(
            self._api,
            namespace=settings.lease_namespace,
            name=settings.lease_name,
            identity=settings.identity,
        )
        self._loop = Loop(self._inventory, self.metrics, may_act=lambda: self._leadership.active)
        self._store = Store(
            self._inventory, clock=time.monotonic, on_change=self._loop.change, story=self._story
        )
        self._lister = Lister(self._api, self._store, namespaces=settings.namespaces, on_done=self._loop.wake)
        self._watch_clock = WatchClock(time.monotonic)
        self._watches = Watches(
            credentials,
            self._store.note_event,
            self._watch_clock,
            namespaces=settings.namespaces,
            known=self._store.knows,
            on_restart=self._watch_restarted,
            after_start=self._take_signals,
        )
        self._writers = Writers(allowed=lambda: self._leadership.active)
        self._links = ServerLinks(
            credential, Epochs(lambda: self._leadership.epoch, self._leadership.meet), self._loop.heard
        )
        self._certificates = self._make_certificates()
        self._effects = self._make_effects()
        self._stop = asyncio.Event()
        self._add_gauges()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT.

        Raises StartError, ListenError, LeadershipLostError, LeaseUnusableError.
        """
        self._take_signals()
        app = health.application(self._vitals(), self.metrics.render)
        listener = await listen(app, self.settings.metrics_listen)
        log.info("operator started", identity=self.settings.identity, metrics=str(listener.address))
        try:
            await beside(self._stop.wait(), self._work(), self._lag.run(), self._credential.follow())
        finally:
            await listener.close()
            await self._api.close()
        log.info("operator ended")

    # -- the process's course ---------------------------------------------------------------------------

    async def _work(self) -> None:
        await self._first_contact()
        try:
            await beside(
                self._run_for_lease(),
                self._watches.run(),
                self._lister.run(),
                self._writers.run(),
                self._certificates.run(),
            )
        finally:
            self._writers.close()

    async def _run_for_lease(self) -> None:
        await self._leadership.acquire()
        try:
            await self._lead()
        finally:
            await self._leadership.release()

    async def _lead(self) -> None:
        """Plan and act for as long as the Lease is held."""
        self._story.telling = True
        self._lister.request("leadership taken: what the last leader did may not be known yet")
        await self._links.open()
        try:
            await beside(self._leadership.hold(), self._plan())
        finally:
            self._story.telling = False
            self._effects.statuses.close()
            await self._effects.secrets.close()
            await self._effects.follower.close()
            await self._links.close()

    async def _plan(self) -> None:
        """Plan once this operator can dial, or all the same when that takes long: the links say why."""
        self._certificates.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CERTIFICATE_SECONDS):
                await self._certificates.usable.wait()
        await self._loop.run(self._effects)

    async def _first_contact(self) -> None:
        """The first LIST. An API server that is away is waited for, one that refuses for a while only."""
        backoff, give_up = Backoff(), time.monotonic() + FIRST_CONTACT_SECONDS
        while True:
            try:
                await self._lister.list_once()
            except CredentialsError as error:
                raise StartError(str(error)) from error
            except KubeError as error:
                if not isinstance(error, ApiUnavailable) and time.monotonic() > give_up:
                    raise StartError(explain(error)) from error
                log.warning("cannot list all kinds yet", error=explain(error))
                await asyncio.sleep(backoff.next(error))
            else:
                return

    def _watch_restarted(self, reason: str) -> None:
        self._lister.request(reason)

    def _take_signals(self) -> None:
        take_stop_signals(lambda _: self._stop.set())

    # -- wiring -----------------------------------------------------------------------------------------

    def _make_effects(self) -> Effects:
        secrets = KeySecrets(self._api, self._loop.token_keys)
        return Effects(
            actor=Actor(
                self._api,
                self._writers,
                self._store,
                on_refusal=self._inventory.put_refusal,
                on_object_refusal=self._inventory.put_object_refusal,
                on_token_keys=secrets.put,
                clock=time.monotonic,
                story=self._story,
            ),
            statuses=StatusWriter(self._api, self._writers, self._store, self._loop.overtaken),
            events=EventWriter(
                self._api,
                self._writers,
                instance=self.settings.identity,
                clock=time.monotonic,
                on_dropped=self.metrics.dropped_events.inc,
            ),
            links=self._links,
            delivery=Delivery(self._links, self._inventory, self._lister, self._withheld),
            secrets=secrets,
            lister=self._lister,
            certificates=self._certificates,
            follower=Follower(self._api, self._store),
        )

    def _make_certificates(self) -> CertificateKeeper:
        settings, own = self.settings, self._credential
        making = None
        if settings.tls_ca_secret is not None and isinstance(own, Certificates):
            making = Issuing(
                authority=ObjectKey(settings.lease_namespace, settings.tls_ca_secret),
                gateway=ObjectKey(settings.lease_namespace, settings.tls_gateway_secret),
                own=own,
            )
        return CertificateKeeper(
            self._api,
            making,
            tls=isinstance(own, Certificates),
            leading=lambda: self._leadership.active,
            on_state=self._loop.tls_secret,
            note=self._note,
        )

    def _expiries(self) -> list[tuple[tuple[str, ...], float]]:
        found: list[tuple[tuple[str, ...], float]] = []
        found += [((str(secret),), left) for secret, left in self._certificates.expiries().items()]
        own = self._credential.material if isinstance(self._credential, Certificates) else None
        if own is not None:
            found.append((("operator",), own.not_after - time.time()))
        return found

    def _note(self, note: EventNote) -> None:
        self._effects.events.write(note)

    def _withheld(self, withheld: Withheld) -> None:
        self.metrics.withheld.inc()
        server = self._inventory.servers.get(withheld.server)
        if server is not None:
            note = EventNote(
                "MediaServer", server.key, server.uid, "Warning", "ApplyWithheld", withheld.message
            )
            self._effects.events.write(note)

    def _vitals(self) -> health.Vitals:
        return health.Vitals(
            leading=lambda: self._leadership.active,
            loop_age=lambda: time.monotonic() - self._loop.last_turn,
            event_loop_lag=lambda: self._lag.lag,
            watch_ages=self._watch_clock.ages,
            api_age=self._api_age,
            complete=lambda: self._lister.complete,
        )

    def _api_age(self) -> float:
        last = self._api.last_success
        return float("inf") if last is None else time.monotonic() - last

    def _add_gauges(self) -> None:
        add, inventory = self.metrics.gauge, self._inventory
        add("leading", "1 while this process may act.", lambda: [((), float(self._leadership.active))])
        add("epoch", "Of the leadership; 0 before it.", lambda: [((), float(self._leadership.epoch))])
        add("loop_lag_seconds", "How long the oldest change waits.", lambda: [((), self._loop.lag)])
        add("queued_writes", "Writes that wait.", lambda: [((), float(self._writers.queued))])
        add(
            "watch_age_seconds",
            "Since a kind's watch was last heard.",
            lambda: [((kind,), age) for kind, age in self._watch_clock.ages().items()],
            ("kind",),
        )
        add("servers", "MediaServers that are dialled.", lambda: [((), float(len(self._links)))])
        add("connected_servers", "Control links that are up.", lambda: [((), float(self._links.connected))])
        add("routers", "MediaRouters.", lambda: [((), float(len(inventory.routers)))])
        add("sessions", "MediaSessions by readiness.", lambda: self._count_sessions("Ready"), ("ready",))
        add(
            "available_sessions",
            "MediaSessions by whether they take participants.",
            lambda: self._count_sessions("Available"),
            ("available",),
        )
        add(
            "certificate_expiry_seconds",
            "Until a certificate ends, by its Secret; `operator`: this process's own.",
            self._expiries,
            ("secret",),
        )
        add("withheld_servers", "Servers with a withheld apply.", self._count_withheld)

    def _count_sessions(self, kind: str) -> list[tuple[tuple[str, ...], float]]:
        counts = {"True": 0, "False": 0, "Unknown": 0}
        for session in self._inventory.sessions.values():
            condition = session.condition(kind)
            counts[condition.status if condition is not None else "Unknown"] += 1
        return [((status,), float(count)) for status, count in counts.items()]

    def _count_withheld(self) -> list[tuple[tuple[str, ...], float]]:
        return [((), float(len(self._effects.delivery.withheld)))]


async def beside(main: Coroutine[Any, Any, Any], *others: Coroutine[Any, Any, Any]) -> None:
    """Run all until ``main`` ends or one of them fails; then end the rest, and raise what was raised.

    Raises TimeoutError when they do not end in order within seconds.
    """
    tasks = [asyncio.create_task(work) for work in (main, *others)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(_END_SECONDS):
            await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
    if tasks[0] not in ended:
        raise RuntimeError(f"{ended[0]} ended, which it never does by itself")


__all__ = ["LeadershipLostError", "LeaseUnusableError", "Operator", "Settings", "StartError"]
