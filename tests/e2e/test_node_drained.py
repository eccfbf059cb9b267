"""`kubectl drain`, during a call, of a node that carries a media server and a gateway."""

import asyncio
import contextlib
import json
import time

import pytest
from e2e.support import chart, media, sessions
from e2e.support.calls import gathered
from e2e.support.chart import GATEWAYS, MEDIA_PODS, NAMESPACE
from e2e.support.kubernetes import CommandFailed, get, kubectl, listing, name_of, node_of, ready_pods
from e2e.support.measured import Measured
from e2e.support.running import until
from e2e.support.watching import watching

NAMES = ("alice", "bob", "carol")
DRAIN_SECONDS = 120.0
SETTLE_SECONDS = 5.0
LONGEST_GAP_MS = 6000
"""Measured: 0.3 s; 3.7 s of a gateway's participants, before it asked them to attach elsewhere."""
MOST_LOST = 0


@pytest.mark.core
async def test_drained_node_is_left_by_everybody_and_nobody_misses_a_packet(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=3)
    async with gathered(session, NAMES, apart=True) as call, watching("pods", NAMESPACE, MEDIA_PODS) as pods:
        node = min(node_of(pod) for pod in await ready_pods(NAMESPACE, GATEWAYS))
        victim, status = await media.pod_on(node), await sessions.status_of(session)
        there = [
            name for name, router in call.routers().items() if sessions.server_of(status, router) == victim
        ]
        assert there, "the participants are not spread over the servers"
        quiet = await call.quiet()
        began = time.monotonic()
        draining = asyncio.create_task(drain(node))
        try:
            await media.until_drain_is_shown(victim)
            await until_evictions_are_refused()
            with pytest.raises(CommandFailed, match="disruption budget"):
                await evict(await ready_pod_besides(victim))
            await draining
            took = time.monotonic() - began
            left = [name_of(found) for found in await listing("pods", NAMESPACE) if node_of(found) == node]
            await sessions.until_ready(session, without=victim)
            await call.until_joined_again(*there)
            await call.watch(SETTLE_SECONDS)
            await call.until_flowing()
            worst, joins = call.worst(), call.joins()
        finally:
            draining.cancel()
            with contextlib.suppress(asyncio.CancelledError, CommandFailed):
                await draining
            await kubectl("uncordon", node)
        uncordoned = time.monotonic()
        await chart.until_available(3)
        available = time.monotonic() - uncordoned
    measured(
        drainSeconds=round(took, 1),
        replacedAfterUncordonSeconds=round(available, 1),
        fewestReadyPods=pods.fewest_ready(),
        joins=joins,
        quiet=quiet,
        **worst,
    )
    assert not left, "drained, but these are still there"
    assert pods.fewest_ready() >= 2, "more media pods than one were away at once"
    assert worst["mostLost"] <= MOST_LOST
    assert worst["longestGapMs"] < LONGEST_GAP_MS


async def drain(node: str) -> None:
    await kubectl(
        "drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
        f"--timeout={DRAIN_SECONDS:g}s", seconds=DRAIN_SECONDS + 10,
    )  # fmt: skip


async def until_evictions_are_refused() -> None:
    async def none_allowed() -> bool:
        budget = await get("poddisruptionbudget", chart.CLUSTER, NAMESPACE)
        return bool(budget["status"]["disruptionsAllowed"] == 0)

    await until("the budget allows no other eviction", none_allowed, seconds=10)


async def ready_pod_besides(victim: str) -> str:
    ready = [name_of(pod) for pod in await ready_pods(NAMESPACE, MEDIA_PODS)]
    return next(name for name in ready if name != victim)


async def evict(pod: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    await kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
