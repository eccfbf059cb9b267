"""The API server away for half a minute, and etcd restarted, during calls: nobody in a call notices."""

from e2e.support import chart, sessions
from e2e.support.calls import gathered
from e2e.support.kubernetes import kubectl
from e2e.support.measured import Measured
from e2e.support.running import CommandFailed, until
from e2e.support.testbed import NODES, cluster, until_node, without_api_server

OUTAGE_SECONDS = 30.0
LONGEST_GAP_MS = 1500


async def test_half_a_minute_without_an_api_server_is_not_noticed(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=3)
    late = await sessions.url_and_token(session, "carol")
    async with gathered(session, ("alice", "bob")) as call:
        routers = call.routers()
        async with without_api_server():
            call.reset()
            await call.watch(OUTAGE_SECONDS / 2)
            await call.join(*late, publish=True)
            joined = await call.until_flowing()
            await call.watch(OUTAGE_SECONDS / 2)
            worst = call.worst()
        moved = {
            name: router for name, router in call.routers().items() if routers.get(name, router) != router
        }
        back = await _until_everything_is_back(mafalda)
        fresh = await sessions.create(namespace)
        await call.until_flowing()
    measured(joinedWhileAwaySeconds=round(joined, 2), systemBackSeconds=round(back, 1), **worst)
    assert not moved, "somebody was sent elsewhere"
    assert worst["mostLost"] == 0
    assert worst["longestGapMs"] < LONGEST_GAP_MS
    assert fresh != session


async def test_a_restart_of_etcd_is_not_noticed(mafalda: chart.Mafalda, namespace: str, measured: Measured):
    session = await sessions.create(namespace, routers=3)
    async with gathered(session, ("alice", "bob", "carol")) as call:
        await cluster("restart", "etcd")
        back = await _until_everything_is_back(mafalda)
        await call.until_flowing()
        worst = call.worst()
        await sessions.create(namespace)
    measured(systemBackSeconds=round(back, 1), **worst)
    assert worst["mostLost"] == 0
    assert worst["longestGapMs"] < LONGEST_GAP_MS


async def _until_everything_is_back(mafalda: chart.Mafalda) -> float:
    """The API server answers, nodes and system are ready; the seconds that took."""

    async def answers() -> bool:
        try:
            return await kubectl("get", "--raw", "/readyz") == "ok"
        except CommandFailed:
            return False

    took = await until("the API server answers", answers, seconds=60)
    for node in NODES:
        took += await until_node(node, ready=True)
    await mafalda.ensure()
    return took
