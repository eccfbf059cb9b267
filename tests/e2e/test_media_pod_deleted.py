"""`kubectl delete pod` of a media pod during a call: everything there moves before the pod ends."""

import time

import pytest
from e2e.support import chart, media, sessions
from e2e.support.calls import Gathering, gathered
from e2e.support.chart import NAMESPACE
from e2e.support.kubernetes import Document, is_ready, kubectl, listing, name_of
from e2e.support.measured import Measured
from e2e.support.watching import watching
from mafalda_operator.model import ObjectKey

NAMES = ("alice", "bob", "carol")
SETTLE_SECONDS = 5.0
"""Watched beyond the pod's end."""
LONGEST_GAP_MS = 2500
"""Measured: 1.5 s while ten builds shared the two cores, 0.3 s else."""
MOST_LOST = 0


@pytest.mark.core
async def test_deleted_media_pod_is_drained_and_replaced_and_nobody_misses_a_packet(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=3)
    before = set(await media.pods())
    async with gathered(session, NAMES, apart=True) as call, watching("mediarouters", namespace) as routers:
        victim = await server_of(session, call, "alice")
        quiet = await call.quiet()
        began = time.monotonic()
        await kubectl("-n", NAMESPACE, "delete", "pod", victim, "--wait=false")
        drain = await media.until_drain_is_shown(victim)
        assert drain["reason"] == "PodDeleting"
        assert {"startTime", "deadline", "routersLeft", "participantsLeft"} <= drain.keys()
        moved = await call.until_joined_again("alice")
        await media.until_gone(victim)
        gone = time.monotonic() - began
        await chart.until_available(3)
        available = time.monotonic() - began
        await sessions.until_ready(session, without=victim)
        await call.watch(SETTLE_SECONDS)
        await call.until_flowing()
        worst, joins = call.worst(), call.joins()
        where = {await server_of(session, call, name) for name in NAMES}
    measured(
        movedAfterSeconds=round(moved, 1),
        podGoneAfterSeconds=round(gone, 1),
        replacedAfterSeconds=round(available, 1),
        joins=joins,
        quiet=quiet,
        **worst,
    )
    assert victim not in where
    assert joins == {"alice": 2, "bob": 1, "carol": 1}, "others were sent away too"
    assert worst["mostLost"] <= MOST_LOST
    assert worst["longestGapMs"] < LONGEST_GAP_MS
    (new,) = set(await media.pods()) - before
    assert (await media.columns(new))["READY"] == "True"
    assert worst_routers(routers.states) >= 3, "a router went before its replacement was ready"
    await nothing_is_left_of(victim, namespace)


async def server_of(session: ObjectKey, call: Gathering, name: str) -> str:
    """The MediaServer that a participant is attached to."""
    return sessions.server_of(await sessions.status_of(session), call.routers()[name])


def worst_routers(states: list[dict[str, Document]]) -> int:
    """Routers that took participants, at the worst moment."""
    counts = [sum(is_ready(found) for found in state.values()) for state in states]
    return min(counts[counts.index(3) :])


async def nothing_is_left_of(server: str, namespace: str) -> None:
    """No object names the server that is gone, and the others have MediaServers as there are pods."""
    assert {name_of(found) for found in await listing("mediaservers", NAMESPACE)} == set(await media.pods())
    routers = await listing("mediarouters", namespace)
    assert len(routers) == 3
    assert server not in {found["spec"]["serverName"] for found in routers}
    kinds = "services,configmaps,secrets,poddisruptionbudgets"
    assert server not in {
        found["metadata"].get("labels", {}).get("mafalda.io/server")
        for found in await listing(kinds, NAMESPACE)
    }
