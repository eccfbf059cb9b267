"""`helm upgrade` to an image with another worker during a call, and `helm rollback`: all pods are
replaced one after the other, and everybody stays in.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from e2e.support import chart, sessions
from e2e.support.calls import Gathering, gathered
from e2e.support.chart import CLUSTER, NAMESPACE
from e2e.support.kubernetes import Document, get, listing
from e2e.support.measured import Measured
from e2e.support.running import run, until
from e2e.support.testbed import cluster
from e2e.support.watching import Watched, watching

from mediaserver.mediasoup import WORKER_VERSION

NEXT_WORKER = "3.99.0-e2e"
WORKERS = 1
"""Of each server after the upgrade; before it, one for each core."""
ROLLED_SECONDS = 200.0
LONGEST_GAP_MS = 15_000
"""Above it somebody counts as cut off. Gateways go as well: their participants dial again."""
NAMES = ("alice", "bob", "carol")

_NEXT = f"""\
ARG BASE
FROM ${{BASE}}
USER 0
RUN cd /opt/mafalda/lib/python3*/site-packages \\
 && sed -i 's/^WORKER_VERSION.*/WORKER_VERSION: Final = "{NEXT_WORKER}"/' mediaserver/mediasoup/process.py \\
 && python3 -m compileall -qf --invalidation-mode unchecked-hash mediaserver/mediasoup/process.py
USER 65532:65532
"""
"""The next release as far as anybody can see: the same programs, but they say that their worker is newer."""


async def next_image(image: str) -> str:
    """Its tag, once every node has it."""
    repository = image.rpartition(":")[0]
    tag = "e2e-next"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(_NEXT)
        await run(
            *("buildah", "build", "-q", "--isolation", "chroot", "--layers", "--format", "docker"),
            *("--pull=never", "--build-arg", f"BASE={image}", "--tag", f"{repository}:{tag}", folder),
            seconds=120,
        )
    await cluster("load", f"{repository}:{tag}", seconds=180)
    return tag


async def image_of(labels: str) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in await listing("pods", NAMESPACE, labels)}


async def status() -> Document:
    found: Document = (await get("mediacluster", CLUSTER, NAMESPACE))["status"]
    return found


async def until_rolled(worker: str, image: str, before: str) -> Document:
    """The MediaCluster's status once every pod is of its newest revision, which is not `before`."""
    seen: Document = {}

    async def rolled() -> bool:
        nonlocal seen
        seen = await status()
        return (
            seen["currentRevision"] == seen["updateRevision"] != before
            and seen["updatedReplicas"] == seen["readyServers"] == seen["replicas"] == 3
        )

    await until("all pods are of the new revision", rolled, seconds=ROLLED_SECONDS, tell=lambda: seen)
    await chart.until_available(3)
    versions: list[str] = []

    async def reported() -> bool:
        nonlocal versions
        servers = await listing("mediaservers", NAMESPACE)
        versions = [server["status"].get("workerVersion", "") for server in servers]
        return versions == [worker] * 3

    await until(f"all servers report worker {worker}", reported, seconds=30, tell=lambda: versions)
    for labels in (chart.OPERATORS, chart.GATEWAYS, chart.MEDIA_PODS):

        async def replaced(labels: str = labels) -> bool:
            return await image_of(labels) == {image}

        await until(f"{labels} run {image}", replaced, seconds=40)
    return seen


def phases(watched: Watched) -> list[tuple[str, str, int]]:
    """What the MediaCluster's status said, each once: currentRevision, updateRevision, updatedReplicas."""
    found: list[tuple[str, str, int]] = []
    for state in watched.states:
        told: Mapping[str, Any] = state.get(CLUSTER, {}).get("status", {})
        if "updateRevision" not in told:
            continue
        now = (told["currentRevision"], told["updateRevision"], told.get("updatedReplicas", 0))
        if not found or found[-1] != now:
            found.append(now)
    return found


def check_phases(watched: Watched, old: str, new: str) -> None:
    """The old revision is the current one until all pods are of the new one, pod by pod. The new operator may
    begin, for its own image, before the chart's hook has changed the MediaCluster: a revision in between."""
    told = phases(watched)
    assert told[0][0] == told[0][1] == old
    assert told[-1] == (new, new, 3)
    under_way = [updated for current, update, updated in told if (current, update) == (old, new)]
    assert under_way == sorted(under_way), told
    assert {1, 2} <= set(under_way), told


async def everybody_stays(session: sessions.ObjectKey, call: Gathering) -> dict[str, Any]:
    await sessions.until_ready(session)
    await call.until_flowing()
    assert sorted(call.participants) == sorted(NAMES)
    assert all(participant.attached for participant in call.participants.values())
    worst = call.worst()
    assert worst["longestGapMs"] < LONGEST_GAP_MS, worst
    return worst


@pytest.mark.timeout(480)
async def test_upgrade_and_rollback_replace_everything_and_nobody_leaves(
    mafalda: chart.Mafalda, nodes: tuple[str, ...], namespace: str, measured: Measured
):
    (image,) = await image_of(chart.GATEWAYS)
    tag = await next_image(image)
    other = f"{image.rpartition(':')[0]}:{tag}"
    spec = {**mafalda.values["cluster"], "spec": {"workersPerServer": WORKERS}}
    upgraded = {**mafalda.values, "image": {**mafalda.values["image"], "tag": tag}, "cluster": spec}
    first = (await status())["currentRevision"]
    servers = await listing("mediaservers", NAMESPACE)
    assert all(len(one["status"]["workers"]) > WORKERS for one in servers), "the upgrade changes nothing"
    session = await sessions.create(namespace, routers=2)  # so that there is room on the others when one goes
    async with gathered(session, NAMES) as call:
        for step in ("upgrade", "rollback"):
            call.reset()
            joins = sum(participant.joins for participant in call.participants.values())
            async with (
                watching("mediaclusters", NAMESPACE) as clusters,
                watching("pods", NAMESPACE, chart.MEDIA_PODS) as pods,
            ):
                began = time.monotonic()
                if step == "upgrade":
                    await chart.install(upgraded)
                    helm = time.monotonic() - began
                    rolled = await until_rolled(NEXT_WORKER, other, first)
                    second = rolled["currentRevision"]
                    old, new = first, second
                else:
                    await chart.helm(
                        "rollback", chart.RELEASE, "-n", NAMESPACE, "--wait", "--timeout=180s", seconds=200
                    )
                    helm = time.monotonic() - began
                    await until_rolled(WORKER_VERSION, image, second)
                    old, new = second, first
                took = time.monotonic() - began
                worst = await everybody_stays(session, call)
            check_phases(clusters, old, new)
            assert pods.fewest_ready() >= mafalda.replicas - 1, "more than one pod was away"
            servers = await listing("mediaservers", NAMESPACE)
            measured(
                step=step,
                helmSeconds=round(helm, 1),
                allReplacedSeconds=round(took, 1),
                fewestReadyPods=pods.fewest_ready(),
                workersOfEachServer=[len(found["status"]["workers"]) for found in servers],
                dialsOfAll=sum(one.joins for one in call.participants.values()) - joins,
                **worst,
            )
            if step == "upgrade":
                assert [len(found["status"]["workers"]) for found in servers] == [WORKERS] * 3
    assert await chart.installed_values() == mafalda.values
