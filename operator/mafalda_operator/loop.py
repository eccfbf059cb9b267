"""The operator's loop: observe, plan, act; woken by changes, one writer.

Level-triggered: whatever happened is only a scope to look at again. A plan is made from one consistent
snapshot without suspending; its statuses, desired entries and events are handed to effects that never make
the loop wait, its actions are awaited, since the next plan must count what they made.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from mafalda_operator.dirt import Dirt
from mafalda_operator.effects.certificates import CertificateKeeper
from mafalda_operator.effects.delivery import Delivery
from mafalda_operator.effects.events import EventWriter
from mafalda_operator.effects.following import Follower
from mafalda_operator.effects.kube import Actor, Failed
from mafalda_operator.effects.link import Heard, Target
from mafalda_operator.effects.listing import Lister
from mafalda_operator.effects.secrets import KeySecrets
from mafalda_operator.effects.servers import ServerLinks
from mafalda_operator.effects.status import StatusWriter
from mafalda_operator.metrics import Metrics
from mafalda_operator.model import EVERYTHING, Inventory, MediaCluster, ObjectKey, Scope, Snapshot, TlsSecret
from mafalda_operator.planning import Memory, Plan, plan
from mediaserver.wire.tls import media_server_name

FULL_PLAN_PERIOD = 120.0
"""Seconds between plans of everything, changed or not."""
BATCH = 64
"""Sessions that one plan looks at, unless it looks at everything."""
_GATHER = 0.005
"""Seconds that a change waits for others that come with it."""
_NOT_READY = 0.1
_FAILURE_PAUSE = 1.0

log = structlog.get_logger(__name__)


class Planner(Protocol):
    def __call__(self, snapshot: Snapshot, memory: Memory, scope: Scope) -> Plan: ...


@dataclass(frozen=True)
class Effects:
    """What a loop acts through."""

    actor: Actor
    statuses: StatusWriter
    events: EventWriter
    links: ServerLinks
    delivery: Delivery
    secrets: KeySecrets
    lister: Lister
    follower: Follower
    certificates: CertificateKeeper | None = None


class Loop:
    """``run`` while leading. ``change`` and ``heard`` may be called at any time, from the same event loop."""

    def __init__(
        self,
        inventory: Inventory,
        metrics: Metrics,
        *,
        may_act: Callable[[], bool],
        planner: Planner = plan,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._inventory, self._metrics, self._may_act, self._planner = inventory, metrics, may_act, planner
        self._clock, self._wall = clock, wall
        self._dirt = Dirt()
        self._deferred: list[tuple[float, int, Scope]] = []
        self._order = itertools.count()
        self._woken = asyncio.Event()
        self._memory = Memory()
        self._leading_since = clock()
        self._planned_everything = False
        self._full_at = 0.0
        self._wake_at: float | None = None
        self.last_turn = clock()
        """When the loop last came round: it does so every few seconds, even when nothing happens."""

    # -- what happens -----------------------------------------------------------------------------------

    def change(self, scope: Scope) -> None:
        """Something is to be looked at again."""
        self._dirt.add(scope, self._clock())
        self._woken.set()

    def heard(self, heard: Heard) -> None:
        """A media server said something, or its link came or went."""
        if heard.entries is None:
            self.change(Scope(servers=frozenset({heard.server})))
            return
        sessions, others = set(), False
        for entry in heard.entries:
            session = self._inventory.session_of(getattr(entry, "namespace", ""), entry)
            others = others or session is None
            if session is not None:
                sessions.add(session)
        servers = frozenset({heard.server}) if others else frozenset()
        self.change(Scope(sessions=frozenset(sessions), servers=servers))

    def wake(self) -> None:
        self._woken.set()

    def token_keys(self, secret: ObjectKey) -> None:
        """A Secret of token keys was read, or has changed."""
        clusters = (
            cluster.key
            for cluster in self._inventory.clusters.values()
            if secret in key_secrets(cluster).values()
        )
        self.change(Scope(clusters=frozenset(clusters)))

    def tls_secret(self, cluster: ObjectKey, secret: TlsSecret | None) -> None:
        """What there is of the certificate of a cluster's pods; None: they need none."""
        self.change(self._inventory.put_tls(cluster, secret))

    def overtaken(self, kind: str, key: ObjectKey) -> None:
        """A status was written that is no longer wanted."""
        self.change(self._scope_of(kind, key))

    @property
    def lag(self) -> float:
        """Seconds that the oldest change has waited to be planned."""
        since = self._dirt.since
        return 0.0 if since is None else self._clock() - since

    # -- the loop ---------------------------------------------------------------------------------------

    async def run(self, effects: Effects) -> None:
        """Until cancelled. Starts without memory: everything is planned anew from what is."""
        self._memory, self._leading_since = Memory(), self._clock()
        self._planned_everything, self._full_at = False, self._clock()
        self.last_turn = self._clock()
        while True:
            await self._sleep(ready=self._is_ready(effects))
            self.last_turn = self._clock()
            if not self._is_ready(effects):  # asked again: nothing may be taken in that is not planned
                continue
            try:
                await self._turn(effects)
            except Exception:
                self._metrics.failures.inc()
                log.exception("a plan failed by a fault of the operator")
                self._full_at = self._clock() + _FAILURE_PAUSE  # nothing that it took in may be forgotten
                self._planned_everything = False
                await asyncio.sleep(_FAILURE_PAUSE)

    def _is_ready(self, effects: Effects) -> bool:
        return self._may_act() and effects.lister.complete

    async def _sleep(self, *, ready: bool) -> None:
        """Until something is to be planned; a second at most, so that leadership and listing are noticed."""
        wait = self._until_due() if ready else _NOT_READY
        try:
            async with asyncio.timeout(max(wait, _GATHER)):
                await self._woken.wait()
                await asyncio.sleep(_GATHER)
        except TimeoutError:
            pass
        self._woken.clear()

    def _until_due(self) -> float:
        if self._dirt:
            return 0.0
        now = self._clock()
        moments = [self._full_at, now + 1.0]
        moments += [self._wake_at] if self._wake_at is not None else []
        moments += [self._deferred[0][0]] if self._deferred else []
        return min(moments) - now

    async def _turn(self, effects: Effects) -> None:
        now = self._clock()
        scope = self._due(now)
        due = self._wake_at is not None and now >= self._wake_at
        if scope.servers is None or scope.clusters is None or scope.servers or scope.clusters:
            self._follow(effects)
        if not scope and not due:
            effects.delivery.refresh(effects.links.views())
            return
        decided = self._plan(effects, scope, now)
        self._tell(effects, decided, scope)
        await self._act(effects, decided)
        for note in decided.notes:
            effects.events.write(note)

    def _due(self, now: float) -> Scope:
        """What to plan now."""
        while self._deferred and self._deferred[0][0] <= now:
            self._dirt.add(heapq.heappop(self._deferred)[2], now)
        if now >= self._full_at:
            self._dirt.add(EVERYTHING, now)
            self._full_at = now + FULL_PLAN_PERIOD
        if self._dirt.since is not None:
            self._metrics.wait_seconds.observe(now - self._dirt.since)
        return self._dirt.take(BATCH, now)

    def _plan(self, effects: Effects, scope: Scope, now: float) -> Plan:
        self._inventory.forget_refusals(now)
        snapshot = self._inventory.snapshot(
            views=effects.links.views(),
            now=now,
            wall_time=self._wall().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            leading_since=self._leading_since,
            complete=effects.lister.complete,
        )
        with self._metrics.plan_seconds.time():
            decided = self._planner(snapshot, self._memory, scope)
        self._metrics.planned_sessions.observe(len(decided.desired))
        self._memory, self._wake_at = decided.memory, decided.wake_at
        self._planned_everything = self._planned_everything or decided.whole
        return decided

    def _tell(self, effects: Effects, decided: Plan, scope: Scope) -> None:
        """Hand the plan to servers and statuses; returns at once."""
        effects.delivery.take(decided)
        if self._planned_everything:
            effects.delivery.refresh(effects.links.views())
        wanted = {(update.kind, update.key) for update in decided.statuses}
        for kind, key in list(effects.statuses.pending):
            if (kind, key) in wanted:
                continue
            if self._was_planned(kind, key, decided, scope):
                effects.statuses.withdraw(kind, key)
            elif kind in ("MediaServer", "MediaCluster"):
                self.change(self._scope_of(kind, key))  # a server's change may have planned it, or not
        for update in decided.statuses:
            effects.statuses.write(update)

    async def _act(self, effects: Effects, decided: Plan) -> None:
        for action in decided.actions:
            self._metrics.actions.labels(type(action).__name__, action.reason).inc()
        failed = await effects.actor.act(decided.actions)
        for failure in failed:
            self._defer(failure)

    def _defer(self, failure: Failed) -> None:
        heapq.heappush(self._deferred, (failure.at, next(self._order), failure.scope))

    # -- bookkeeping ------------------------------------------------------------------------------------

    def _follow(self, effects: Effects) -> None:
        """Links to the servers that there are, watches of the Secrets that clusters name."""
        targets = dict(self._targets())
        for server in effects.links.views():
            if server not in targets:
                effects.delivery.forget(server)
        effects.links.set_targets(targets.values())
        clusters = list(self._inventory.clusters.values())
        effects.follower.set_wanted(
            cluster.key.namespace for cluster in clusters if self._inventory.wants_pods(cluster.key)
        )
        effects.secrets.set_wanted(secret for cluster in clusters for secret in key_secrets(cluster).values())
        if effects.certificates is not None:
            effects.certificates.follow(clusters)
        for cluster in clusters:
            known = {name: effects.secrets.get(secret) for name, secret in key_secrets(cluster).items()}
            read = {name: content for name, content in known.items() if content is not None}
            self.change(self._inventory.put_token_keys(cluster.key, read))

    def _targets(self) -> Iterator[tuple[ObjectKey, Target]]:
        for server in self._inventory.servers.values():
            cluster = self._inventory.clusters.get(server.cluster)
            if cluster is None or not server.address or self._inventory.is_starting(server):
                continue
            yield (
                server.key,
                Target(
                    server=server.key,
                    address=server.address,
                    cluster=cluster.key,
                    cluster_uid=cluster.uid,
                    silence=cluster.silence_timeout,
                    server_name=server.tls_name or media_server_name(*cluster.key),
                ),
            )

    def _scope_of(self, kind: str, key: ObjectKey) -> Scope:
        match kind:
            case "MediaRouter":
                router = self._inventory.routers.get(key)
                return Scope(sessions=frozenset({router.session})) if router is not None else Scope()
            case "MediaSession":
                return Scope(sessions=frozenset({key}))
            case "MediaServer":
                return Scope(servers=frozenset({key}))
            case _:
                return Scope(clusters=frozenset({key}))

    def _was_planned(self, kind: str, key: ObjectKey, decided: Plan, scope: Scope) -> bool:
        """Whether a plan that says nothing of an object's status means that the stored one is right."""
        own = self._scope_of(kind, key)
        if own.sessions:
            return all(session in decided.desired for session in own.sessions)
        if own.servers:
            return _within(own.servers, scope.servers)
        return bool(own.clusters) and _within(own.clusters, scope.clusters)


def _within(part: frozenset[ObjectKey] | None, whole: frozenset[ObjectKey] | None) -> bool:
    return whole is None or (part is not None and part <= whole)


def key_secrets(cluster: MediaCluster) -> dict[str, ObjectKey]:
    """The Secrets of a cluster's key sets, by the set's name."""
    return {
        key_set.name: ObjectKey(cluster.key.namespace, key_set.secret_name) for key_set in cluster.key_sets
    }
