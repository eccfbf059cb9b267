"""In Pod mode NetworkPolicies keep out whoever has no business there, under an agent that enforces them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from e2e.support import chart, kubernetes, sessions
from e2e.support.calls import gathered
from e2e.support.chart import NAMESPACE
from e2e.support.kubernetes import execute, listing, name_of, until_condition
from e2e.support.measured import Measured
from e2e.support.pods import pod
from e2e.support.running import until

POLICIES_SECONDS = 30.0
"""The agent looks at pods and policies every few seconds."""
PODS = "pods"
CLIENT, PIPE = 10000, 20000
KEYS = {"name": "default", "secretRef": {"name": f"{PODS}-token-keys"}, "namespaces": {"from": "All"}}
PROMETHEUS = {"app": "prometheus"}
MEDIA = {"mafalda.io/role": "media-server"}

_PROBE = """
import concurrent.futures, json, socket, sys

def reach(kind, host, port):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as one:
        one.settimeout(2)
        try:
            one.connect((host, port))
            if kind == "udp":
                for _ in range(3):
                    one.send(b"echo")
                assert one.recv(100) == b"echo"
        except OSError as error:
            return str(error)
    return "reached"

wanted = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(wanted)) as pool:
    print(json.dumps(list(pool.map(lambda one: reach(*one), wanted))))
"""
_ECHO = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in sys.argv[1:]:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("0.0.0.0", int(port)))
    waiting.register(one, selectors.EVENT_READ)
while True:
    for key, _ in waiting.select():
        data, sender = key.fileobj.recvfrom(2000)
        key.fileobj.sendto(data, sender)
"""


@dataclass(frozen=True)
class Try:
    """Whether `who` (a pod of the test) may reach a port; `whom` is for people."""

    who: str
    whom: str
    kind: str
    host: str
    port: int
    allowed: bool

    def __str__(self) -> str:
        return f"{self.who} to {self.whom} {self.kind}/{self.port}"


def media_cluster() -> dict[str, Any]:
    return {
        "apiVersion": "mafalda.io/v1alpha1",
        "kind": "MediaCluster",
        "metadata": {"name": PODS},
        "spec": {
            "replicas": 2,
            "publicURL": chart.GATEWAY,
            "network": {"type": "Pod", "announce": [{"type": "PodIP"}]},
            "allowedSessions": {"namespaces": {"from": "All"}},
            "tokens": {"keySets": [KEYS]},
            "drain": {"timeout": "5s"},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        },
    }


def prober(
    name: str, image: str, *, node: str, labels: dict[str, str], command: str = "exec sleep infinity"
) -> dict[str, Any]:
    """Of the project's image, which has Python."""
    found = pod(name, node=node, labels=labels, command=command)
    found["spec"]["containers"][0]["image"] = image
    return found


async def address(name: str, namespace: str) -> str:
    found = await until_condition("pod", name, "Ready", namespace, seconds=60)
    return str(found["status"]["podIP"])


@asynccontextmanager
async def pods_like_media_servers(image: str, node: str, other: str) -> AsyncIterator[dict[str, str]]:
    """Two pods that the media servers' policy is for: one echoes UDP at ports of clients and of pipes."""
    echo = f"exec python -c '{_ECHO}' {CLIENT} {PIPE}"
    made = (
        prober("echo", image, node=node, labels=MEDIA, command=echo),
        prober("peer", image, node=other, labels=MEDIA),
    )
    await kubernetes.apply(*made, namespace=NAMESPACE)
    try:
        yield {name: await address(name, NAMESPACE) for name in ("echo", "peer")}
    finally:
        await kubernetes.delete("pod", "echo", "peer", namespace=NAMESPACE)


async def test_only_who_is_meant_to_gets_through(
    mafalda: chart.Mafalda, nodes: tuple[str, ...], namespace: str, measured: Measured
):
    scrapers = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": PROMETHEUS},
    }
    secrets = [f"{name}-token-keys" for name in (chart.CLUSTER, PODS)]
    gateways = {**mafalda.values["gateway"], "tokenSecrets": secrets}
    policies = {"metricsFrom": [scrapers]}
    await chart.install({**mafalda.values, "gateway": gateways, "networkPolicy": policies})
    await kubernetes.apply(media_cluster(), namespace=NAMESPACE)
    try:
        await until_condition("mediacluster", PODS, "Available", NAMESPACE, seconds=60)
        gateway = (await listing("pods", NAMESPACE, chart.GATEWAYS))[0]
        image = gateway["spec"]["containers"][0]["image"]
        await kubernetes.apply(
            prober("stranger", image, node=nodes[0], labels={}),
            prober("neighbour", image, node=nodes[1], labels={}),
            prober("prometheus", image, node=nodes[2], labels=PROMETHEUS),
            namespace=namespace,
        )
        for name in ("stranger", "neighbour", "prometheus"):
            await address(name, namespace)
        async with pods_like_media_servers(image, nodes[1], nodes[2]) as addresses:
            tries = await everything(addresses["echo"], gateway)
            took = await until_all_hold(tries, namespace)
        await call_in_pod_mode(namespace)
    finally:
        await kubernetes.delete("mediacluster", PODS, namespace=NAMESPACE, seconds=90)
        await chart.install(mafalda.values)
    await chart.until_available(mafalda.replicas)
    measured(
        holdAfterSeconds=round(took, 1),
        refused=[str(one) for one in tries if not one.allowed],
        allowed=[str(one) for one in tries if one.allowed],
    )


async def everything(echo: str, gateway: kubernetes.Document) -> list[Try]:
    """From pods on the same node and on another one."""
    media = (await listing("pods", NAMESPACE, f"mafalda.io/cluster={PODS}"))[0]["status"]["podIP"]
    operator = (await listing("pods", NAMESPACE, chart.OPERATORS))[0]["status"]["podIP"]
    door = gateway["status"]["podIP"]
    tries = []
    for who in ("stranger", "neighbour"):
        tries += [
            Try(who, "media pod", "tcp", media, 4000, allowed=False),
            Try(who, "media pod", "tcp", media, 4001, allowed=False),
            Try(who, "media pod", "tcp", media, 4002, allowed=False),
            Try(who, "media pod", "tcp", media, CLIENT, allowed=True),
            Try(who, "media pod", "udp", echo, PIPE, allowed=False),
            Try(who, "media pod", "udp", echo, CLIENT, allowed=True),
            Try(who, "operator", "tcp", operator, 8081, allowed=False),
            Try(who, "gateway", "tcp", door, 8082, allowed=False),
            Try(who, "gateway", "tcp", door, 8080, allowed=True),
        ]
    return [
        *tries,
        Try("prometheus", "media pod", "tcp", media, 4002, allowed=True),
        Try("prometheus", "operator", "tcp", operator, 8081, allowed=True),
        Try("prometheus", "gateway", "tcp", door, 8082, allowed=True),
        Try("prometheus", "media pod", "tcp", media, 4000, allowed=False),
        Try("peer", "media pod", "tcp", media, 4000, allowed=True),
        Try("peer", "media pod", "tcp", media, 4001, allowed=False),
        Try("peer", "media pod", "udp", echo, PIPE, allowed=True),
    ]


async def until_all_hold(tries: list[Try], namespace: str) -> float:
    """Those that hold once are not tried again: before the agent knows a pod nothing is refused there, and
    nothing that was refused is let through later."""
    left = list(tries)
    said: dict[str, str] = {}

    async def hold() -> bool:
        nonlocal left
        answers = await ask(left, namespace)
        left = [one for one in left if (answers[one] == "reached") != one.allowed]
        said.clear()
        said.update({str(one): answers[one] for one in left})
        return not left

    return await until("policies hold", hold, seconds=POLICIES_SECONDS, tell=lambda: said)


async def ask(tries: list[Try], namespace: str) -> dict[Try, str]:
    """`reached`, or the error; every pod tries all of its own at once."""

    async def one_pod(who: str) -> dict[Try, str]:
        mine = [one for one in tries if one.who == who]
        wanted = json.dumps([(one.kind, one.host, one.port) for one in mine])
        where = NAMESPACE if who == "peer" else namespace
        told = await execute(who, where, "python", "-c", _PROBE, wanted, seconds=40)
        return dict(zip(mine, json.loads(told), strict=True))

    parts = await asyncio.gather(*map(one_pod, sorted({one.who for one in tries})))
    return {one: answer for part in parts for one, answer in part.items()}


async def call_in_pod_mode(namespace: str) -> None:
    """A real one, over two pods: gateways, peers and pipes get through what keeps the others out."""
    reference = {"name": PODS, "namespace": NAMESPACE}
    spec = {"clusterRef": reference}
    session = await sessions.create(namespace, routers=2, **spec)
    async with gathered(session, ("alice", "bob"), apart=True) as call:
        began = time.monotonic()
        await call.until_flowing(since=began)
    assert len(set(sessions.servers_of(await sessions.status_of(session)))) == 2
    for found in await listing("pods", NAMESPACE, f"mafalda.io/cluster={PODS}"):
        assert kubernetes.is_ready(found), f"{name_of(found)}: a kubelet's probe does not get through"
