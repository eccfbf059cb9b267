"""Uninstalled in the middle of a call: nothing is left but what the values keep, and it can be had again."""

from __future__ import annotations

import time

import pytest
from e2e.support import chart, sessions
from e2e.support.calls import gathered
from e2e.support.chart import NAMESPACE
from e2e.support.kubernetes import kubectl
from e2e.support.measured import Measured
from e2e.support.running import until

OURS = (
    "pods,secrets,leases,configmaps,serviceaccounts,services,endpointslices,poddisruptionbudgets,deployments,"
    "replicasets,jobs,roles,rolebindings,networkpolicies,ingresses"
)
MAFALDA = "mediaclusters,mediaservers"
KUBERNETES_OWN = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
LEFT_SECONDS = 30.0
"""Within which Kubernetes' garbage collection takes what belonged to what helm deleted."""
CRDS = 4


async def left(*, crds: bool) -> list[str]:
    """What is there of the release, all over the cluster; with `crds` also objects of its kinds in its
    namespace, else the kinds themselves."""
    kinds = f"{OURS},{MAFALDA}" if crds else OURS
    here = await kubectl("-n", NAMESPACE, "get", kinds, "-o", "name", "--ignore-not-found")
    everywhere = await kubectl("get", "clusterroles,clusterrolebindings", "-o", "name")
    found = {line.replace(".rbac.authorization.k8s.io", "") for line in here.split()} - KUBERNETES_OWN
    found |= {line for line in everywhere.split() if "mafalda" in line}
    return sorted(found) + ([] if crds else await definitions())


async def definitions() -> list[str]:
    told = await kubectl("get", "crds", "-o", "name")
    return [line for line in told.split() if line.endswith(".mafalda.io") and ".e2e." not in line]


async def until_nothing_is_left(*, crds: bool) -> float:
    seen: list[str] = []

    async def gone() -> bool:
        nonlocal seen
        seen = await left(crds=crds)
        return not seen

    return await until("nothing is left", gone, seconds=LEFT_SECONDS, tell=lambda: seen)


@pytest.mark.core
async def test_uninstall_during_a_call_leaves_definitions_and_sessions_alone(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace, routers=2)
    async with gathered(session, ("alice", "bob")):
        began = time.monotonic()
        await chart.uninstall()
        uninstalled = time.monotonic()
        swept = await until_nothing_is_left(crds=True)
    assert len(await definitions()) == CRDS
    assert await sessions.status_of(session), "the session of another namespace went too"

    again = time.monotonic()
    await chart.install(mafalda.values)
    await chart.until_available(mafalda.replicas)
    available = time.monotonic()
    await sessions.until_ready(session)
    async with gathered(session, ("alice", "bob")):
        flowing = time.monotonic()
    measured(
        uninstallSeconds=round(uninstalled - began, 1),
        nothingLeftAfterSeconds=round(swept, 1),
        installedAgainSeconds=round(available - again, 1),
        oldSessionFlowsAfterSeconds=round(flowing - again, 1),
    )


async def test_uninstall_takes_the_definitions_with_it_if_told_so(
    mafalda: chart.Mafalda, namespace: str, measured: Measured
):
    session = await sessions.create(namespace)
    await chart.install({**mafalda.values, "crds": {"keep": False}})
    began = time.monotonic()
    await chart.uninstall()
    swept = await until_nothing_is_left(crds=False)
    uninstalled = time.monotonic()
    assert not await definitions()

    await chart.install(mafalda.values)
    await chart.until_available(mafalda.replicas)
    available = time.monotonic()
    assert not await kubectl("-n", namespace, "get", "mediasessions", session.name, "--ignore-not-found")
    measured(
        uninstallSeconds=round(uninstalled - began, 1),
        nothingLeftAfterSeconds=round(swept, 1),
        installedAgainSeconds=round(available - uninstalled, 1),
    )
