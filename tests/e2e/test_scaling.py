"""More media servers and fewer again, during calls: who has to move moves, nobody is cut off."""

from e2e.support import chart, kubernetes, sessions
from e2e.support.calls import Gathering, gathered
from e2e.support.chart import CLUSTER, NAMESPACE
from e2e.support.kubernetes import Document, condition_of, conditions_of, get, kubectl, listing, name_of
from e2e.support.measured import Measured
from e2e.support.running import until

LONGEST_GAP_MS = 2000
"""Of video, for somebody who is moved while two cores carry the whole cluster and all participants."""


async def test_pods_scale_two_four_two_during_calls(
    nodes: tuple[str, ...], namespace: str, measured: Measured
):
    """On the pod network, where several media servers share a node."""
    system = chart.Mafalda(chart.values(networkType="Pod", replicas=2))
    await system.ensure()
    session = await sessions.create(namespace, routers=2)
    async with gathered(session, ("alice", "bob", "carol")) as call:
        up = await _scale(4)
        busy = set(sessions.servers_of(await sessions.status_of(session)))
        another = await sessions.create(namespace, routers=2)
        used = busy | set(sessions.servers_of(await sessions.status_of(another)))
        assert used > busy, "a new session does not use the new servers"
        down = await _scale(2, seconds=90)
        await _until_steady(session, call)
        worst = call.worst()
    measured(upSeconds=round(up, 1), downSeconds=round(down, 1), **worst)
    assert busy <= await _servers(), "the busy ones went, not the emptiest"
    assert worst["longestGapMs"] < LONGEST_GAP_MS


async def test_the_servers_of_a_call_can_go_too(nodes: tuple[str, ...], namespace: str, measured: Measured):
    """Scaled to one, at least one of the call's two servers has to go: its participants move."""
    system = chart.Mafalda(chart.values(networkType="Pod", replicas=3))
    await system.ensure()
    session = await sessions.create(namespace, routers=2)
    async with gathered(session, ("alice", "bob", "carol")) as call:
        busy = set(sessions.servers_of(await sessions.status_of(session)))
        await kubernetes.patch(
            "mediasession", session.name, {"spec": {"routers": {"min": 1}}}, session.namespace
        )
        down = await _scale(1, seconds=120)
        await _until_steady(session, call)
        worst = call.worst()
        left = await _servers()
    measured(downSeconds=round(down, 1), stayed=sorted(left & busy) != [], **worst)
    assert worst["longestGapMs"] < LONGEST_GAP_MS


async def test_host_network_scales_to_as_many_servers_as_nodes(
    nodes: tuple[str, ...], namespace: str, measured: Measured
):
    system = chart.Mafalda(chart.values(replicas=2))
    await system.ensure()
    session = await sessions.create(namespace, routers=2)
    async with gathered(session, ("alice", "bob")) as call:
        up = await _scale(3)
        placed = [kubernetes.node_of(pod) for pod in await listing("pods", NAMESPACE, chart.MEDIA_PODS)]
        assert sorted(placed) == sorted(nodes), "one a node"
        await kubectl("-n", NAMESPACE, "scale", f"mediacluster/{CLUSTER}", "--replicas=4")
        told = await _until_a_pod_has_no_node()
        down = await _scale(2, seconds=90)
        await _until_steady(session, call)
        worst = call.worst()
    measured(upSeconds=round(up, 1), downSeconds=round(down, 1), told=told["message"], **worst)
    assert worst["longestGapMs"] < LONGEST_GAP_MS


async def _scale(replicas: int, *, seconds: float = 60.0) -> float:
    """Returns once just so many are ready, and the others gone; the seconds that took."""
    await kubectl("-n", NAMESPACE, "scale", f"mediacluster/{CLUSTER}", f"--replicas={replicas}")

    async def done() -> bool:
        cluster = await get("mediacluster", CLUSTER, NAMESPACE)
        ready = cluster.get("status", {}).get("readyServers")
        return ready == replicas == len(await listing("pods", NAMESPACE, chart.MEDIA_PODS))

    return await until(f"{replicas} media servers", done, seconds=seconds)


async def _servers() -> set[str]:
    return {name_of(server) for server in await listing("mediaservers", NAMESPACE)}


async def _until_a_pod_has_no_node() -> Document:
    """The condition that says so, with the scheduler's reason."""
    cluster: Document = {}

    async def told() -> bool:
        nonlocal cluster
        cluster = await get("mediacluster", CLUSTER, NAMESPACE)
        progressing = condition_of(cluster, "Progressing")
        return progressing.get("status") == "False" and "nodes" in progressing.get("message", "")

    await until("Progressing=False", told, seconds=30, tell=lambda: conditions_of(cluster))
    assert condition_of(cluster, "Available")["status"] == "True"
    assert condition_of(cluster, "Ready")["status"] == "False"
    return condition_of(cluster, "Progressing")


async def _until_steady(session: sessions.ObjectKey, call: Gathering) -> None:
    await sessions.until_ready(session)
    await call.until_flowing()
