"""Leadership among candidates on virtual time, with an API server that is slow, loses answers, goes away."""

from __future__ import annotations

import asyncio
import copy
import random
import selectors
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mafalda_operator.effects.api import KubeApi, Object, Resource
from mafalda_operator.effects.errors import ApiUnavailable, Conflict, NotFound
from mafalda_operator.effects.lease import Leadership, LeadershipLostError, LeaseTimes

TIMES = LeaseTimes()
LATENCY = 0.02
LOOK = 0.01


class VirtualTime(selectors.SelectSelector):
    """Waiting passes no time but the loop's."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


def run(work: Coroutine[Any, Any, None]) -> None:
    selector = VirtualTime()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Lease:
    """What the API server stores; compare-and-swap."""

    stored: dict[str, Any] | None = None
    version: int = 0

    def replace(self, body: Object, expected: str | None) -> Object:
        if (self.stored["metadata"]["resourceVersion"] if self.stored else None) != expected:
            raise Conflict(409, "Conflict" if expected else "AlreadyExists", "changed meanwhile")
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.stored = copy.deepcopy({**body, "metadata": metadata})
        return copy.deepcopy(self.stored)


Outage = tuple[float, float, bool]
"""From when until when nothing is answered, and whether requests meanwhile are refused at once or hang."""


@dataclass
class Path:
    """The API server as one process reaches it."""

    lease: Lease
    rng: random.Random
    slowest: float = LATENCY
    losing: float = 0.0
    away: list[Outage] = field(default_factory=list)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        await self._travel()
        found = copy.deepcopy(self.lease.stored)
        await self._travel()
        if found is None:
            raise NotFound(404, "NotFound", "no lease")
        return found

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        return await self._write(body, expected=None)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        return await self._write(body, expected=body["metadata"]["resourceVersion"])

    async def _write(self, body: Object, *, expected: str | None) -> Object:
        # What was sent is stored although its sender gives up meanwhile, as with a real server.
        return await asyncio.shield(asyncio.ensure_future(self._send(body, expected)))

    async def _send(self, body: Object, expected: str | None) -> Object:
        await self._travel()
        answer = self.lease.replace(body, expected)
        await self._travel()
        if self.rng.random() < self.losing:
            raise ApiUnavailable("the answer was lost")
        return answer

    async def _travel(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, self.slowest))
        for begin, end, refusing in self.away:
            if begin <= now() < end:
                if refusing:
                    raise ApiUnavailable("connection refused")
                await asyncio.sleep(end - now())


class Candidates:
    """Processes that begin anew when they have lost the Lease; watched for two that act at once."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self.alive: dict[int, tuple[Leadership, asyncio.Task[None]]] = {}
        self.started = 0
        self.leaders: list[tuple[float, int]] = []
        """Who acted from when."""

    async def __aenter__(self) -> Candidates:
        for _ in self.paths:
            self.start()
        self._watch = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._watch, *(task for _, task in self.alive.values())]
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def start(self) -> None:
        number, self.started = self.started, self.started + 1
        path = self.paths[number % len(self.paths)]
        offset = path.rng.uniform(-1000, 1000)  # no two processes' clocks agree
        loop = asyncio.get_running_loop()
        leadership = Leadership(
            cast(KubeApi, path),
            namespace="system",
            name="operator",
            identity=f"operator-{number}",
            times=TIMES,
            clock=lambda: loop.time() + offset,
            wall=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )
        self.alive[number] = (leadership, asyncio.create_task(self._run(number, leadership)))

    async def _run(self, number: int, leadership: Leadership) -> None:
        await leadership.acquire()
        try:
            await leadership.hold()
        except LeadershipLostError:
            del self.alive[number]
            self.start()

    def kill(self, number: int) -> None:
        """No release, no further word."""
        self.alive.pop(number)[1].cancel()

    def acting(self) -> list[int]:
        return [number for number, (leadership, _) in self.alive.items() if leadership.active]

    async def _look(self) -> None:
        while True:
            acting = self.acting()
            assert len(acting) <= 1, f"at {now()} all of {acting} act"
            if acting and (not self.leaders or self.leaders[-1][1] != acting[0]):
                self.leaders.append((now(), acting[0]))
            await asyncio.sleep(LOOK)

    async def leader(self, within: float, *, but: int | None = None) -> int:
        until = now() + within
        while not self.acting() or self.acting()[0] == but:
            assert now() < until, f"nobody leads after {within} s"
            await asyncio.sleep(LOOK)
        return self.acting()[0]


outages = st.lists(
    st.tuples(st.floats(0, 60), st.floats(0.01, 15), st.booleans()).map(
        lambda one: (one[0], one[0] + one[1], one[2])
    ),
    max_size=3,
)
ways = st.tuples(st.sampled_from([LATENCY, 0.5, 1.5, 4.0]), st.sampled_from([0.0, 0.1, 0.5]), outages)
"""Slowest, losing and away of a Path."""


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    each=st.lists(ways, min_size=2, max_size=3),
    common=outages,
    kills=st.lists(st.floats(1, 60), max_size=3),
)
def test_never_do_two_act_at_once(
    seed: int, each: list[tuple[float, float, list[Outage]]], common: list[Outage], kills: list[float]
) -> None:
    async def scenario() -> None:
        lease, rng = Lease(), random.Random(seed)
        paths = [Path(lease, rng, slowest, losing, [*away, *common]) for slowest, losing, away in each]
        async with Candidates(*paths) as candidates:
            for moment in sorted(kills):
                await asyncio.sleep(max(0.0, moment - now()))
                for number in candidates.acting():
                    candidates.kill(number)
                    candidates.start()
            await asyncio.sleep(max(0.0, 80 - now()))
            for path in paths:
                path.slowest, path.losing = LATENCY, 0.0
            await candidates.leader(within=2 * TIMES.duration + 2 * TIMES.deadline)

    run(scenario())


def test_nor_when_the_holder_alone_is_cut_off_after_a_slow_answer() -> None:
    """The renewal is stored at once and answered 1.5 s later; the standby sees it at once."""

    async def scenario() -> None:
        lease, rng = Lease(), random.Random(0)
        holder, standby = Path(lease, rng), Path(lease, rng)
        async with Candidates(holder, standby) as candidates:
            await asyncio.sleep(5)
            cut_off = holder if candidates.acting() == [0] else standby
            version = lease.version
            while lease.version == version:  # noqa: ASYNC110  on virtual time
                await asyncio.sleep(LOOK / 4)
            cut_off.away = [(now(), now() + 1.5, False), (now() + 1.51, now() + 20, True)]
            await asyncio.sleep(15)
            assert len(candidates.leaders) == 2

    run(scenario())


def healthy(seed: int, *away: Outage) -> list[Path]:
    """Two candidates' ways to one API server."""
    lease, rng = Lease(), random.Random(seed)
    return [Path(lease, rng, away=list(away)) for _ in range(2)]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), moment=st.floats(5, 10))
def test_a_killed_leader_is_replaced_within_the_duration_and_one_look(seed: int, moment: float) -> None:
    async def scenario() -> None:
        async with Candidates(*healthy(seed)) as candidates:
            await asyncio.sleep(moment)
            (killed,) = candidates.acting()
            candidates.kill(killed)
            await candidates.leader(within=TIMES.duration + TIMES.renew + 6 * LATENCY + 2 * LOOK, but=killed)

    run(scenario())


@pytest.mark.parametrize("refusing", [True, False])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), moment=st.floats(5, 10), lasting=st.floats(0.5, 60))
def test_an_outage_changes_no_leader(refusing: bool, seed: int, moment: float, lasting: float) -> None:
    async def scenario() -> None:
        outage = (moment, moment + lasting, refusing)
        async with Candidates(*healthy(seed, outage)) as candidates:
            await asyncio.sleep(moment + lasting + 10)
            assert len(candidates.leaders) == 1
            assert len(candidates.acting()) == 1

    run(scenario())


def test_a_leader_that_steps_down_in_order_is_replaced_at_once() -> None:
    async def scenario() -> None:
        async with Candidates(*healthy(0)) as candidates:
            await asyncio.sleep(5)
            (first,) = candidates.acting()
            leadership, task = candidates.alive.pop(first)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await leadership.release()
            await candidates.leader(within=TIMES.renew + 4 * LATENCY + LOOK)

    run(scenario())
