"""A node is cut off the network while everything on it runs on, and comes back."""

import time

import pytest
from e2e.support import chart, kubernetes, media, sessions, testbed
from e2e.support.calls import gathered
from e2e.support.chart import GATEWAYS, NAMESPACE, OPERATORS
from e2e.support.kubernetes import listing, node_of, ready_pods
from e2e.support.measured import Measured
from e2e.support.running import until
from e2e.support.watching import placed_twice, watching
from mafalda_operator.model import ObjectKey

NAMES = ("alice", "bob", "carol")
OTHERS = ("dave", "erin")
ROUTERS = 3
MOST_OTHERS_LOST = 0
UNTOUCHED_GAP_MS = 1500
LONGEST_GAP_MS = 15_000
"""Of the participants of the node: until it is lost (3 s) and they are elsewhere."""
SETTLE_SECONDS = 5.0


@pytest.mark.core
async def test_node_cut_off_loses_its_routers_and_closes_them_when_it_is_back(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    node = await node_without_gateway()
    victim = await media.pod_on(node)
    await lead_elsewhere(mafalda, node)
    untouched = await session_elsewhere(namespace, victim)
    session = await sessions.create(namespace, routers=ROUTERS)
    before = await media.restarts(victim)
    async with (
        gathered(session, NAMES, apart=True) as call,
        gathered(untouched, OTHERS) as other,
        watching("mediarouters", namespace) as routers,
    ):
        status = await sessions.status_of(session)
        there = [
            name for name, router in call.routers().items() if sessions.server_of(status, router) == victim
        ]
        assert len(there) == 1
        quiet = await call.quiet()
        other.reset()
        cut = time.monotonic()
        async with testbed.cut_off(node):
            await sessions.until_ready(session, without=victim)
            placed = time.monotonic() - cut
            await call.until_joined_again(*there)
            again = time.monotonic() - cut
            await call.until_flowing()
            flowing = time.monotonic() - cut
            worst_while_cut = call.worst()
            await testbed.until_node(node, ready=False)
            noticed = time.monotonic() - cut
            await sessions.until_ready(session, without=victim)
            during = await media.server(victim)
        joined = time.monotonic()
        await chart.until_available(3)
        back = time.monotonic() - joined

        async def closed() -> bool:
            open_there = await media.figures(victim, "routers")
            return bool(open_there) and not sum(open_there.values())

        await until(f"{victim} has closed its router", closed, seconds=20)
        emptied = time.monotonic() - joined
        call.reset()
        await call.watch(SETTLE_SECONDS)
        after, others = call.worst(), other.worst()
        joins = call.joins() | other.joins()
        where = sessions.servers_of(await sessions.until_ready(session))
    measured(
        placedAgainAfterSeconds=round(placed, 1),
        attachedElsewhereAfterSeconds=round(again, 1),
        everybodyFlowsAfterSeconds=round(flowing, 1),
        kubernetesNoticedAfterSeconds=round(noticed, 1),
        serverReadyAfterReturnSeconds=round(back, 1),
        routerClosedAfterReturnSeconds=round(emptied, 1),
        joins=joins,
        quiet=quiet,
        whileCut=worst_while_cut,
        afterReturn=after,
        others=others,
    )
    ready = kubernetes.condition_of(during, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ServerLost")
    assert worst_while_cut["longestGapMs"] < LONGEST_GAP_MS
    assert after["longestGapMs"] < UNTOUCHED_GAP_MS, "the return of the node was felt"
    assert after["mostLost"] == 0
    assert others["longestGapMs"] < UNTOUCHED_GAP_MS
    assert others["mostLost"] <= MOST_OTHERS_LOST
    assert {name: joins[name] for name in joins if name not in there} == dict.fromkeys(
        set(joins) - set(there), 1
    ), "participants of other nodes had to dial again"
    assert not placed_twice(routers, most=ROUTERS)
    assert len(where) == ROUTERS
    assert victim not in where, "the router went back for no reason"
    assert await media.restarts(victim) == before, "the server did not live through it"
    assert victim in await media.pods(), "the pod was replaced"


async def node_without_gateway() -> str:
    """So that nobody else's signalling goes by it."""
    taken = {node_of(pod) for pod in await ready_pods(NAMESPACE, GATEWAYS)}
    return sorted(set(testbed.NODES) - taken)[0]


async def lead_elsewhere(system: chart.Mafalda, node: str) -> None:
    """Makes the operator's leader one that is not on that node."""

    async def elsewhere() -> bool:
        leader = await system.leader()
        found = {kubernetes.name_of(pod): pod for pod in await listing("pods", NAMESPACE, OPERATORS)}
        if node_of(found[leader]) != node:
            return True
        await kubernetes.delete("pod", leader, namespace=NAMESPACE)
        return False

    await until(f"the leader is not on {node}", elsewhere, seconds=60)
    await system.ensure()


async def session_elsewhere(namespace: str, server: str) -> ObjectKey:
    """A session of one router that is not on that server."""
    for state in ("Cordoned", "Active"):
        await kubernetes.patch("mediaserver", server, {"spec": {"desiredState": state}}, NAMESPACE)
        if state == "Cordoned":
            await kubernetes.until_condition("mediaserver", server, "Accepting", NAMESPACE, status="False")
            session = await sessions.create(namespace, name="untouched")
    await kubernetes.until_condition("mediaserver", server, "Ready", NAMESPACE)
    assert server not in sessions.servers_of(await sessions.status_of(session))
    return session
