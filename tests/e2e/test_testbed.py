"""The testbed itself: pods, networks and faults behave as on a real cluster."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from e2e.support import kubernetes, pods, testbed
from e2e.support.http import fetch, fetch_from
from e2e.support.images import busybox
from e2e.support.kubernetes import kubectl, until_condition
from e2e.support.measured import Measured
from e2e.support.running import CommandFailed, until

HOST_PORT = 18080
NEW_KIND_SECONDS = 75.0
"""The controller manager looks for kinds it does not know yet every 30 s."""
ENFORCED_SECONDS = 20.0
"""Within which a new NetworkPolicy holds on every node."""


@pytest.fixture(autouse=True)
async def image(nodes: tuple[str, ...]) -> str:
    return await busybox()


@pytest.fixture
async def web(namespace: str, nodes: tuple[str, ...]) -> list[str]:
    """A web server on each node, and the address of each."""
    names = [f"web-{node}" for node in nodes]
    servers = [pods.server(name, node=node) for name, node in zip(names, nodes, strict=True)]
    await kubernetes.apply(*pods.web_objects(), *servers, namespace=namespace)
    found = [await until_condition("pod", name, "Ready", namespace) for name in names]
    return [str(pod["status"]["podIP"]) for pod in found]


async def clients(namespace: str, *all_pods: kubernetes.Document) -> None:
    await kubernetes.apply(*all_pods, namespace=namespace)
    for pod in all_pods:
        await until_condition("pod", kubernetes.name_of(pod), "Ready", namespace)


async def test_pods_of_all_nodes_reach_each_other_by_address_service_and_host_port(
    namespace: str, web: list[str], nodes: tuple[str, ...]
):
    await clients(namespace, pods.pod("client", node=nodes[0]))
    for node, address in zip(nodes, web, strict=True):
        assert await fetch_from("client", namespace, f"http://{address}:{pods.PORT}/") == f"web-{node}"
    await clients(namespace, pods.server("host", node=nodes[2], host_port=HOST_PORT))
    host = next(n for n in await kubernetes.listing("nodes") if kubernetes.name_of(n) == nodes[2])
    external = next(a["address"] for a in host["status"]["addresses"] if a["type"] == "ExternalIP")
    assert await fetch(f"http://{external}:{HOST_PORT}/") == "host"
    by_name = f"http://web.{namespace}.svc.cluster.local/"
    all_names = {"host", *(f"web-{node}" for node in nodes)}
    assert await fetch_from("client", namespace, by_name) in all_names
    assert await fetch(by_name) in all_names, "services are not reached from outside pods"


async def test_restricted_pod_runs_and_is_seen_by_logs_exec_and_port_forward(namespace: str, web: list[str]):
    name = f"web-{testbed.NODES[1]}"
    assert await kubectl("-n", namespace, "logs", name) == "hello world\n"
    assert "uid=65532" in await kubernetes.execute(name, namespace, "id")
    with pytest.raises(CommandFailed, match="Read-only file system"):
        await kubernetes.execute(name, namespace, "touch", "/file")
    assert "Seccomp:\t2" in await kubernetes.execute(name, namespace, "cat", "/proc/self/status")
    async with forwarded(namespace, name) as port:
        assert await fetch(f"http://127.0.0.1:{port}/") == name


@contextlib.asynccontextmanager
async def forwarded(namespace: str, pod: str) -> AsyncIterator[int]:
    """The local port that kubectl forwards to the pod's web server."""
    process = await asyncio.create_subprocess_exec(
        "kubectl", "-n", namespace, "port-forward", pod, f":{pods.PORT}", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 15)).decode()
        assert line.startswith("Forwarding from 127.0.0.1:"), line
        yield int(line.split(":")[1].split(" ")[0])
    finally:
        process.terminate()
        await process.wait()


async def test_network_policy_keeps_others_out_on_the_same_node_and_across_nodes(
    namespace: str, web: list[str], nodes: tuple[str, ...], measured: Measured
):
    await clients(
        namespace,
        pods.pod("friend", node=nodes[0], labels={"may": "enter"}),
        pods.pod("stranger", node=nodes[0]),
    )
    urls = [f"http://{address}:{pods.PORT}/" for address in web]
    for url in urls:
        assert await fetch_from("stranger", namespace, url) is not None
    friends = {"from": [{"podSelector": {"matchLabels": {"may": "enter"}}}], "ports": [{"port": pods.PORT}]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "web"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "web"}},
            "policyTypes": ["Ingress"],
            "ingress": [friends],
        },
    }
    await kubernetes.apply(policy, namespace=namespace)

    async def kept_out() -> bool:
        return not any([await fetch_from("stranger", namespace, url) for url in urls])

    took = await until("the policy holds on every node", kept_out, seconds=ENFORCED_SECONDS)
    for url in urls:
        assert await fetch_from("friend", namespace, url) is not None
        assert await fetch(url) is None, "the machine outside gets in"
    measured(enforcedAfterSeconds=round(took, 1))


async def test_node_that_is_cut_off_keeps_its_pods_and_comes_back(
    namespace: str, web: list[str], nodes: tuple[str, ...], measured: Measured
):
    url = f"http://{web[2]}:{pods.PORT}/"
    assert await fetch(url) == f"web-{nodes[2]}"
    before = await kubernetes.get("pod", f"web-{nodes[2]}", namespace)
    async with testbed.cut_off(nodes[2]):
        assert await fetch(url) is None
        lost = await testbed.until_node(nodes[2], ready=False)
        joined = time.monotonic()
    back = time.monotonic() - joined

    async def answers() -> bool:
        return await fetch(url) == f"web-{nodes[2]}"

    await until("its pod is reached again", answers, seconds=15)
    after = await kubernetes.get("pod", f"web-{nodes[2]}", namespace)
    assert (
        after["status"]["containerStatuses"][0]["containerID"]
        == before["status"]["containerStatuses"][0]["containerID"]
    )
    measured(notReadyAfterSeconds=round(lost, 1), readyAgainAfterSeconds=round(back, 1))


GROVE = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "groves.e2e.mafalda.io"},
    "spec": {
        "group": "e2e.mafalda.io",
        "scope": "Namespaced",
        "names": {"kind": "Grove", "plural": "groves", "singular": "grove"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
                },
                "subresources": {
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
                },
            }
        ],
    },
}
"""A kind with a scale subresource, whose pods a PodDisruptionBudget counts by it."""


@pytest.fixture
async def grove(namespace: str) -> AsyncIterator[kubernetes.Document]:
    await kubernetes.apply(GROVE)
    await until_condition("crd", "groves.e2e.mafalda.io", "Established")
    body = {
        "apiVersion": "e2e.mafalda.io/v1",
        "kind": "Grove",
        "metadata": {"name": "oaks"},
        "spec": {"replicas": 2},
    }
    await kubernetes.apply(body, namespace=namespace)
    yield await kubernetes.get("grove", "oaks", namespace)
    await kubernetes.delete("crd", "groves.e2e.mafalda.io")


async def test_disruption_budget_counts_the_pods_of_a_custom_resource(
    namespace: str, grove: kubernetes.Document
):
    owner = {"apiVersion": "e2e.mafalda.io/v1", "kind": "Grove", "name": "oaks", "controller": True}
    both = [pods.pod(f"oak-{n}", labels={"grove": "oaks"}) for n in (1, 2)]
    for pod in both:
        pod["metadata"]["ownerReferences"] = [{**owner, "uid": grove["metadata"]["uid"]}]
    await clients(namespace, *both)
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "oaks"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"grove": "oaks"}}},
    }
    await kubernetes.apply(budget, namespace=namespace)

    async def allows_one() -> bool:
        # A budget that could not be counted yet is looked at again only when it or its pods change.
        await kubernetes.patch(
            "pdb", "oaks", {"metadata": {"annotations": {"seen": str(time.time())}}}, namespace
        )
        status = (await kubernetes.get("pdb", "oaks", namespace)).get("status", {})
        return (status.get("expectedPods"), status.get("disruptionsAllowed")) == (2, 1)

    await until("the budget counts both pods", allows_one, seconds=NEW_KIND_SECONDS, poll=2.0)
    await evict("oak-1", namespace)
    with pytest.raises(CommandFailed, match="disruption budget"):
        await evict("oak-2", namespace)


async def evict(pod: str, namespace: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    await kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


async def test_drained_node_loses_its_pods_and_takes_none(namespace: str, nodes: tuple[str, ...]):
    await clients(namespace, pods.pod("guest", node=nodes[1], labels={"app": "guest"}))
    await kubectl(
        "drain", nodes[1], "--force", "--delete-emptydir-data", "--pod-selector=app=guest", "--timeout=60s",
        seconds=70,
    )  # fmt: skip
    try:
        assert not await kubernetes.exists("pod", "guest", namespace)
    finally:
        await kubectl("uncordon", nodes[1])


@pytest.mark.parametrize("component", ["etcd", "apiserver"])
async def test_pods_run_on_and_objects_stay_when_it_restarts(
    component: str, namespace: str, web: list[str], measured: Measured
):
    url = f"http://{web[0]}:{pods.PORT}/"
    began = time.monotonic()
    await testbed.cluster("restart", component, "--kill")
    took = time.monotonic() - began
    assert await fetch(url) is not None
    assert await kubernetes.exists("pod", f"web-{testbed.NODES[0]}", namespace)
    measured(component=component, backAfterSeconds=round(took, 1))


async def test_audit_log_tells_who_asked_for_what(namespace: str):
    await kubernetes.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "traced"}}, namespace=namespace
    )
    events = [event for event in await testbed.audited() if event["objectRef"].get("namespace") == namespace]
    traced = [
        (event["user"]["username"], event["verb"])
        for event in events
        if event["objectRef"].get("resource") == "configmaps" and event["objectRef"].get("name") == "traced"
    ]
    assert ("admin", "patch") in traced or ("admin", "create") in traced


async def test_up_leaves_what_runs_alone(measured: Measured):
    def started() -> set[str]:
        folder = Path(os.environ["MAFALDA_CLUSTER"]) / "run"
        return {file.read_text() for file in folder.glob("*.json")}

    before, began = started(), time.monotonic()
    await testbed.cluster("up")
    assert started() == before
    measured(seconds=round(time.monotonic() - began, 1))


async def test_wrong_names_are_told_apart_and_named():
    with pytest.raises(
        CommandFailed, match=f"there is no node mafalda-n7; there are {testbed.NODES[0]}"
    ) as failed:
        await testbed.cluster("cut", "mafalda-n7")
    assert failed.value.code == 1
    with pytest.raises(CommandFailed, match="no image localhost/nothing:1") as failed:
        await testbed.cluster("load", "localhost/nothing:1")
    assert failed.value.code == 1
