"""From an empty cluster to a call: two commands, as the README says."""

import json
import time

import pytest
from e2e.support import chart, kubernetes, sessions
from e2e.support.calls import gathered
from e2e.support.chart import NAMESPACE
from e2e.support.kubernetes import kubectl, listing
from e2e.support.measured import Measured

FRAMES_SECONDS = 10.0


@pytest.mark.core
async def test_two_commands_make_a_call_across_nodes(
    nodes: tuple[str, ...], namespace: str, measured: Measured
):
    await remove_everything()
    began = time.monotonic()
    told = await chart.install(chart.values())
    installed = time.monotonic()
    assert "kubectl" in told, "the notes do not say what to do next"
    await chart.until_available(3)
    available = time.monotonic()
    session = await sessions.create(namespace, routers=3)
    ready = time.monotonic()
    status = await sessions.status_of(session)
    pods = {kubernetes.name_of(pod): kubernetes.node_of(pod) for pod in await media_pods()}
    assert {pods[server] for server in sessions.servers_of(status)} == set(nodes), "not over all nodes"
    async with gathered(session, ("alice", "bob", "carol"), apart=True) as call:
        flowing = time.monotonic()
        await call.watch(FRAMES_SECONDS)
        worst = call.worst()
    measured(
        installSeconds=round(installed - began, 1),
        untilAvailableSeconds=round(available - began, 1),
        untilSessionReadySeconds=round(ready - began, 1),
        untilEverybodyReceivesSeconds=round(flowing - began, 1),
        **worst,
    )


@pytest.mark.core
async def test_helm_test_makes_a_call(mafalda: chart.Mafalda, measured: Measured):
    began = time.monotonic()
    await chart.helm("test", chart.RELEASE, "--namespace", NAMESPACE, "--timeout", "150s", seconds=170)
    measured(seconds=round(time.monotonic() - began, 1))


async def test_media_pods_have_no_token_and_no_rights(mafalda: chart.Mafalda):
    for pod in await media_pods():
        spec = pod["spec"]
        mounted = [mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]]
        assert not any("serviceaccount" in path for path in mounted)
        context = spec["containers"][0]["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        owners = pod["metadata"]["ownerReferences"]
        assert [(owner["kind"], owner["name"], owner["controller"]) for owner in owners] == [
            ("MediaCluster", chart.CLUSTER, True)
        ]


async def media_pods() -> list[kubernetes.Document]:
    return await listing("pods", NAMESPACE, chart.MEDIA_PODS)


async def remove_everything() -> None:
    """As if nothing had ever been installed."""
    await chart.uninstall()
    await kubernetes.delete("namespace", NAMESPACE, seconds=120)
    names = [kubernetes.name_of(crd) for crd in await listing("crds")]
    ours = [name for name in names if name.endswith(".mafalda.io") and not name.endswith(".e2e.mafalda.io")]
    if ours:
        await kubernetes.delete("crd", *ours, seconds=60)
    left = json.loads(await kubectl("get", "clusterroles,clusterrolebindings", "-o", "json"))["items"]
    assert not [kubernetes.name_of(found) for found in left if "mafalda" in kubernetes.name_of(found)]
