"""What is said of wrong values, of what is missing, and of ports that are closed or taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from e2e.support import chart, kubernetes, sessions
from e2e.support.chart import CLUSTER, NAMESPACE
from e2e.support.kubernetes import condition_of, kubectl, listing, name_of, node_of, until_condition
from e2e.support.measured import Measured
from e2e.support.running import CommandFailed, until
from e2e.support.testbed import NODES, on_node

CLIENT_PORTS = "10000:10127"
TOLD_SECONDS = 60.0
WRONG = "wrong"


def media_cluster(**spec: Any) -> dict[str, Any]:
    """A second one, whose pods have addresses of their own."""
    small = {"requests": {"cpu": "50m", "memory": "64Mi"}}
    network = {"type": "Pod", "announce": [{"type": "PodIP"}]}
    return {
        "apiVersion": "mafalda.io/v1alpha1",
        "kind": "MediaCluster",
        "metadata": {"name": WRONG},
        "spec": {"replicas": 1, "network": network, "resources": small, "drain": {"timeout": "5s"}, **spec},
    }


@contextlib.asynccontextmanager
async def made(**spec: Any) -> AsyncIterator[None]:
    """That MediaCluster, for the length of the block."""
    await kubernetes.apply(media_cluster(**spec), namespace=NAMESPACE)
    try:
        yield
    finally:
        await kubernetes.delete("mediacluster", WRONG, namespace=NAMESPACE, seconds=60)
        await kubectl("-n", NAMESPACE, "delete", "secret", f"{WRONG}-token-keys", "--ignore-not-found")


async def told(kind: str, name: str, condition: str, reason: str) -> tuple[str, float]:
    """The message of a condition that is False for that reason, and how long that took."""
    seen: kubernetes.Document = {}

    async def holds() -> bool:
        nonlocal seen
        seen = await kubernetes.get(kind, name, NAMESPACE)
        found = condition_of(seen, condition)
        return (found.get("status"), found.get("reason")) == ("False", reason)

    took = await until(
        f"{kind} {name}: {condition}=False {reason}",
        holds,
        seconds=TOLD_SECONDS,
        tell=lambda: kubernetes.conditions_of(seen),
    )
    return str(condition_of(seen, condition)["message"]), round(took, 1)


async def test_a_misspelt_value_is_refused_by_name(mafalda: chart.Mafalda):
    with pytest.raises(CommandFailed) as refused:
        await chart.install({**mafalda.values, "gateway": {"replica": 3}})
    assert "/gateway" in refused.value.said
    assert "'replica' not allowed" in refused.value.said
    assert await chart.installed_values() == mafalda.values


async def test_an_image_that_does_not_exist_is_named(mafalda: chart.Mafalda, measured: Measured):
    image = "localhost/no-such-image:1"
    async with made(image=image):
        message, took = await told("mediacluster", WRONG, "Progressing", "ImagePullFailed")
        ready, _ = await told("mediacluster", WRONG, "Ready", "ImagePullFailed")
    for words in (image, "spec.image", "imagePullSecrets"):
        assert words in message
    measured(toldAfterSeconds=took, message=message)
    assert image in ready


async def test_a_given_certificate_that_is_missing_is_named(mafalda: chart.Mafalda, measured: Measured):
    async with made(tls={"secretRef": {"name": "no-such-secret"}}):
        message, took = await told("mediacluster", WRONG, "Ready", "TLSSecretMissing")
    assert "no-such-secret" in message
    assert f"{WRONG}.{NAMESPACE}.media-server.mafalda.internal" in message
    measured(toldAfterSeconds=took, message=message)


async def test_token_keys_that_are_lost_are_not_made_anew(mafalda: chart.Mafalda, measured: Measured):
    async with made(replicas=0):
        secret = f"{WRONG}-token-keys"

        async def known() -> bool:
            status = (await kubernetes.get("mediacluster", WRONG, NAMESPACE)).get("status", {})
            return any(found["keyIDs"] for found in status.get("keySets", ()))

        await until("the operator has made the keys", known, seconds=30)
        kept = await kubernetes.get("secret", secret, NAMESPACE)
        await kubernetes.delete("secret", secret, namespace=NAMESPACE)
        message, took = await told("mediacluster", WRONG, "Ready", "TokenKeysMissing")
        assert f"{NAMESPACE}/{secret}" in message
        assert not await kubernetes.exists("secret", secret, NAMESPACE)
        kept["metadata"] = {"name": secret, "labels": kept["metadata"].get("labels", {})}
        await kubernetes.apply(kept, namespace=NAMESPACE)
        await told("mediacluster", WRONG, "Ready", "NoServers")
    measured(toldAfterSeconds=took, message=message)


# -- ports --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def client_ports_closed() -> AsyncIterator[None]:
    """Nobody reaches any node's client ports."""
    rules = [
        (node, ("-p", protocol, "--dport", CLIENT_PORTS, "-j", "DROP"))
        for node in NODES
        for protocol in ("udp", "tcp")
    ]
    try:
        for node, rule in rules:
            await on_node(node, "iptables", "-w", "-t", "raw", "-I", "PREROUTING", *rule)
        yield
    finally:
        for node, rule in rules:
            with contextlib.suppress(CommandFailed):  # it was not made
                await on_node(node, "iptables", "-w", "-t", "raw", "-D", "PREROUTING", *rule)


async def check(deadline: str) -> tuple[dict[str, Any], str]:
    """What `mafalda check` reports, and what it says when it fails."""
    command = (sys.executable, "-m", "mafalda_operator.cli.main", "check", f"--cluster={NAMESPACE}/{CLUSTER}")
    process = await asyncio.create_subprocess_exec(
        *(*command, f"--deadline={deadline}", "-o", "json"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    report: dict[str, Any] = json.loads(out)
    assert (process.returncode == 0) == (report["error"] is None)
    return report, err.decode()


async def test_the_check_names_ports_that_cannot_be_reached(
    mafalda: chart.Mafalda, nodes: tuple[str, ...], measured: Measured
):
    async with client_ports_closed():
        report, said = await check("25s")
    (server,) = report["servers"]
    pod = await kubernetes.get("pod", server, NAMESPACE)
    address = pod["status"]["hostIP"]
    assert said.startswith("failed: no media")
    ports = [f"{address}:{10000 + slot}: UDP does not answer, TCP cannot be dialled" for slot in range(4)]
    assert any(port in said for port in ports), said
    assert "firewall of the servers' nodes" in said
    good, _ = await check("60s")
    assert good["error"] is None
    measured(seconds=report["total_s"], said=said.strip(), secondsWhenAllIsWell=good["total_s"])


_HOLD = """
import socket, sys, time
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    try:
        held.bind((sys.argv[1], int(sys.argv[2])))
        break
    except OSError:
        time.sleep(0.005)
print("bound", flush=True)
sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def port_taken(node: str, host: str, port: int) -> AsyncIterator[asyncio.StreamReader]:
    """A program of that node waits for the port to be free, and takes it then; it says so on a line."""
    process = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net=/run/netns/{node}", sys.executable, "-c", _HOLD, host, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_client_port_that_is_taken_is_named(
    mafalda: chart.Mafalda, nodes: tuple[str, ...], measured: Measured
):
    pod = (await listing("pods", NAMESPACE, chart.MEDIA_PODS))[0]
    node, address = node_of(pod), pod["status"]["hostIP"]
    async with port_taken(node, address, 10000) as says:
        await kubectl("-n", NAMESPACE, "delete", "pod", name_of(pod), "--wait=false")
        async with asyncio.timeout(60):
            assert await says.readline() == b"bound\n"
        message, took = await told("mediacluster", CLUSTER, "PortsAvailable", "PortsTaken")
        for words in (node, f"{address}:10000", "spec.network.clientPorts"):
            assert words in message
        (now,) = [
            found for found in await listing("pods", NAMESPACE, chart.MEDIA_PODS) if node_of(found) == node
        ]
        server, _ = await told("mediaserver", name_of(now), "Ready", "WorkerFailing")
        assert f"{address}:10000" in server
    freed = time.monotonic()
    await until_condition("mediacluster", CLUSTER, "PortsAvailable", NAMESPACE, seconds=60)
    await chart.until_available(mafalda.replicas)
    measured(
        toldAfterSeconds=took,
        message=message,
        server=server,
        readyAgainSeconds=round(time.monotonic() - freed, 1),
    )


# -- addresses ----------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def without_external_address(node: str) -> AsyncIterator[None]:
    async def put(addresses: list[dict[str, str]]) -> None:
        change = [{"op": "replace", "path": "/status/addresses", "value": addresses}]
        await kubectl("patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps(change))

    before = (await kubernetes.get("node", node))["status"]["addresses"]
    await put([one for one in before if one["type"] != "ExternalIP"])
    try:
        yield
    finally:
        await put(before)


async def test_a_node_without_the_announced_address_is_named(
    mafalda: chart.Mafalda, nodes: tuple[str, ...], namespace: str, measured: Measured
):
    """Pods that run keep what they announce."""
    async with without_external_address(nodes[0]):
        message, took = await told("mediacluster", CLUSTER, "AddressAvailable", "NodeAddressMissing")
        for words in (f"node {nodes[0]}", "ExternalIP", "NodeInternalIP", "spec.network.announce"):
            assert words in message
        await sessions.create(namespace, routers=3)
    await until_condition("mediacluster", CLUSTER, "AddressAvailable", NAMESPACE, seconds=30)
    await chart.until_available(mafalda.replicas)
    measured(toldAfterSeconds=took, message=message)
