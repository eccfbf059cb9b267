"""A session over three nodes: every participant decodes every other, wherever both are."""

import pytest
from e2e.support import chart, kubernetes, sessions
from e2e.support.calls import gathered
from e2e.support.measured import Measured

SECONDS = 15.0
LONGEST_GAP_MS = 1500
"""Above it media counts as stopped; two cores carry the whole cluster and the participants."""


@pytest.mark.core
async def test_media_crosses_three_nodes(
    mafalda: chart.Mafalda, namespace: str, nodes: tuple[str, ...], measured: Measured
):
    session = await sessions.create(namespace, routers=3)
    status = await sessions.status_of(session)
    pods = await kubernetes.listing("pods", chart.NAMESPACE, chart.MEDIA_PODS)
    where = {kubernetes.name_of(pod): kubernetes.node_of(pod) for pod in pods}
    assert {where[server] for server in sessions.servers_of(status)} == set(nodes)
    async with gathered(session, ("alice", "bob", "carol"), apart=True) as call:
        await call.watch(SECONDS)
        worst, figures = call.worst(), call.figures()
    measured(**worst, receivers=figures)
    assert worst["mostLost"] == 0
    assert worst["longestGapMs"] < LONGEST_GAP_MS


async def test_late_participant_receives_all_and_a_leaving_one_is_missed(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=3)
    async with gathered(session, ("alice", "bob")) as call:
        await call.enter("carol")
        await call.watch(3.0)
        first = {f"{found.receiver}<{found.peer} {found.source}": found.ms for found in call.first_frames()}
        await call.participants.pop("bob").close()
        await call.until_flowing()
    measured(firstFrameMs=first)
