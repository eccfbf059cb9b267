"""A media server process, or one of its workers, is killed during a call."""

import time

import pytest
from e2e.support import chart, media, sessions
from e2e.support.calls import gathered
from e2e.support.measured import Measured
from e2e.support.running import until
from e2e.support.watching import placed_twice, watching

NAMES = ("alice", "bob", "carol")
ROUTERS = 3
SETTLE_SECONDS = 5.0
LONGEST_GAP_MS = 10_000
"""Of what the killed process carried."""
UNTOUCHED_GAP_MS = 1500
"""Of what it did not."""


@pytest.mark.core
async def test_participants_of_a_killed_media_server_are_back_at_once_elsewhere(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=ROUTERS)
    async with gathered(session, NAMES, apart=True) as call, watching("mediarouters", namespace) as routers:
        status = await sessions.status_of(session)
        victim = sessions.server_of(status, call.routers()["alice"])
        started = await media.restarts(victim)
        quiet = await call.quiet()
        began = time.monotonic()
        await media.kill_server(victim)
        again = await call.until_joined_again("alice")
        await call.until_flowing()
        flowing = time.monotonic() - began

        async def restarted() -> bool:
            return await media.restarts(victim) == started + 1

        await until(f"{victim} is started again", restarted, seconds=60)
        await chart.until_available(3)
        available = time.monotonic() - began
        await sessions.until_ready(session)
        await call.watch(SETTLE_SECONDS)
        await call.until_flowing()
        worst, others, joins = call.worst(), call.worst(("bob", "carol")), call.joins()
    measured(
        dialledAgainAfterSeconds=round(again, 1),
        everybodyFlowsAfterSeconds=round(flowing, 1),
        serverReadyAfterSeconds=round(available, 1),
        joins=joins,
        quiet=quiet,
        others=others,
        **worst,
    )
    assert (joins["bob"], joins["carol"]) == (1, 1), "those on other servers had to dial again"
    assert worst["longestGapMs"] < LONGEST_GAP_MS
    assert others["longestGapMs"] < UNTOUCHED_GAP_MS
    assert others["mostLost"] == 0
    assert not placed_twice(routers, most=ROUTERS)


async def test_killed_worker_is_replaced_by_its_server_and_counted(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=ROUTERS)
    async with gathered(session, NAMES, apart=True) as call, watching("mediarouters", namespace) as routers:
        status = await sessions.status_of(session)
        victim = sessions.server_of(status, call.routers()["alice"])
        name = call.routers()["alice"].rpartition("/")[2]
        slot = next(int(found["workerSlot"]) for found in status["routers"] if found["name"] == name)
        before = await media.figures(victim, "worker_restarts_total")
        quiet = await call.quiet()
        began = time.monotonic()
        await media.kill_worker(victim, slot)
        again = await call.until_joined_again("alice")
        await call.until_flowing()
        flowing = time.monotonic() - began
        await sessions.until_ready(session)
        await call.watch(SETTLE_SECONDS)
        await call.until_flowing()
        worst, others, joins = call.worst(), call.worst(("bob", "carol")), call.joins()
        after = await media.figures(victim, "worker_restarts_total")
        replaced = len(await media.workers(victim))
        container = await media.restarts(victim)
    measured(
        dialledAgainAfterSeconds=round(again, 1),
        everybodyFlowsAfterSeconds=round(flowing, 1),
        restarts=after,
        containerRestarts=container,
        joins=joins,
        quiet=quiet,
        others=others,
        **worst,
    )
    assert after == {**before, str(slot): before.get(str(slot), 0) + 1}, "not counted, or at another slot"
    assert replaced == len(after)
    assert (joins["bob"], joins["carol"]) == (1, 1), "those on other servers had to dial again"
    assert worst["longestGapMs"] < LONGEST_GAP_MS
    assert others["longestGapMs"] < UNTOUCHED_GAP_MS
    assert others["mostLost"] == 0
    assert not placed_twice(routers, most=ROUTERS)
