"""The leading operator dies while it places a hundred sessions: none is lost, none is placed twice."""

import time
from functools import partial

from e2e.support import chart, kubernetes, processes, sessions
from e2e.support.chart import NAMESPACE
from e2e.support.kubernetes import Document, condition_of, listing
from e2e.support.measured import Measured
from e2e.support.running import until
from e2e.support.watching import placed_twice, watching

SESSIONS = 100
TAKEOVER_SECONDS = 5.0


async def test_a_hundred_sessions_survive_their_leader(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    before = await mafalda.leader()
    manifests = [sessions.manifest(f"call-{number:03}") for number in range(SESSIONS)]
    async with watching("mediarouters", namespace) as routers:
        began = time.monotonic()
        await kubernetes.apply(*manifests, namespace=namespace)
        await until("some sessions are placed, and not all", lambda: _some(namespace), seconds=30, poll=0.05)
        placed = len(await listing("mediarouters", namespace))
        killed = time.monotonic()
        epoch = await _epoch()
        await processes.kill(before, NAMESPACE, "mafalda-operator")
        took = await until("somebody leads again", partial(_led_anew, epoch), seconds=30, poll=0.05)
        await until(
            "all sessions are ready",
            lambda: _all_ready(namespace),
            seconds=60,
            tell=lambda: f"{len(routers.states[-1])} routers",
        )
        done = time.monotonic()
    wrong = placed_twice(routers, most=1)
    measured(
        sessions=SESSIONS,
        placedWhenKilled=placed,
        takeoverSeconds=round(took, 2),
        readyAfterKillSeconds=round(done - killed, 1),
        readyAfterApplySeconds=round(done - began, 1),
    )
    assert not wrong
    assert took < TAKEOVER_SECONDS
    assert len(routers.states[-1]) == SESSIONS
    await mafalda.ensure()


async def _some(namespace: str) -> bool:
    return len(await listing("mediarouters", namespace)) > 0


async def _epoch() -> int:
    """Of the leadership: raised each time that a process takes the Lease."""
    leases = await listing("leases", NAMESPACE)
    epochs = [lease["metadata"].get("annotations", {}).get("mafalda.io/epoch") for lease in leases]
    return max(int(epoch) for epoch in epochs if epoch)


async def _led_anew(before: int) -> bool:
    """By the standby, or by the killed pod's next process if that was faster."""
    return await _epoch() > before


async def _all_ready(namespace: str) -> bool:
    found: list[Document] = await listing("mediasessions", namespace)
    ready = [session for session in found if condition_of(session, "Ready").get("status") == "True"]
    return len(ready) == SESSIONS


async def test_takeover_is_within_seconds_again_and_again(mafalda: chart.Mafalda, measured: Measured):
    """Five kills, one after the other, each once both operators are ready again."""
    took: list[float] = []
    for _ in range(5):
        before, epoch = await mafalda.leader(), await _epoch()
        await processes.kill(before, NAMESPACE, "mafalda-operator")
        took.append(await until("somebody leads again", partial(_led_anew, epoch), seconds=30, poll=0.05))
        await until("both operators are ready", _both_ready, seconds=60)
    took.sort()
    measured(kills=len(took), medianSeconds=round(took[2], 2), longestSeconds=round(took[-1], 2))
    assert took[-1] < TAKEOVER_SECONDS


async def _both_ready() -> bool:
    return len(await kubernetes.ready_pods(NAMESPACE, chart.OPERATORS)) == 2
