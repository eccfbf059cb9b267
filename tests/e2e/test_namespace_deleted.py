"""A namespace is deleted with all that is in it: live sessions, or a MediaCluster with pods. It ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from e2e.support import chart, kubernetes, sessions
from e2e.support.calls import Gathering, gathered
from e2e.support.kubernetes import kubectl, listing, until_condition
from e2e.support.measured import Measured
from e2e.support.running import until
from mafalda_operator.cli.participant import CallEnded, Event, Left, Participant

from mediaserver.wire.close_codes import ENDED

GONE_SECONDS = 60.0
"""For a namespace whose calls end with it."""
TOLD_SECONDS = 20.0
DRAIN_SECONDS = 10
"""Kubernetes ends a namespace's pods first, and waits for them: up to half of their grace period between two
looks, so that a namespace with media pods takes about as long as they may drain."""
_numbers = itertools.count(1)


@asynccontextmanager
async def short_lived() -> AsyncIterator[str]:
    """A namespace that the test deletes itself."""
    name = f"e2e-ends-{os.getpid()}-{next(_numbers)}"
    await kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        await kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


async def until_gone(namespace: str) -> float:
    """Fails with what Kubernetes says holds it."""
    seen: kubernetes.Document = {}

    async def gone() -> bool:
        nonlocal seen
        if not await kubernetes.exists("namespace", namespace):
            return True
        seen = await kubernetes.get("namespace", namespace)
        return False

    return await until(
        f"namespace {namespace} is gone",
        gone,
        seconds=GONE_SECONDS,
        tell=lambda: kubernetes.conditions_of(seen),
    )


async def ended(participant: Participant, seconds: float = TOLD_SECONDS) -> str:
    """Why its call ended."""
    try:
        async with asyncio.timeout(seconds):
            await participant.wait()
    except CallEnded as error:
        return str(error.reason)
    except TimeoutError:
        raise AssertionError(f"{participant.peer_id} was not told that the session ended") from None
    raise AssertionError(f"{participant.peer_id} left by itself")


async def test_a_namespace_with_live_sessions_ends_and_participants_are_told(
    mafalda: chart.Mafalda, measured: Measured
):
    async with short_lived() as namespace:
        session = await sessions.create(namespace, routers=3)
        await sessions.create(namespace)
        async with gathered(session, ("alice", "bob")) as call:
            events: list[Event] = []
            url, token = await sessions.url_and_token(session, "carol")
            async with Participant(url, token, on_event=events.append) as carol:
                began = time.monotonic()
                await kubectl("delete", "namespace", namespace, "--wait=false")
                reasons = await asyncio.gather(*map(ended, (*call.participants.values(), carol)))
                told = time.monotonic() - began
            gone = await until_gone(namespace)
        assert reasons == ["session ended"] * 3
        last = events[-1]
        assert isinstance(last, Left)
        assert (last.code, last.pause) == (ENDED, None)
    assert not [found for found in await listing("mediarouters") if namespace in str(found["metadata"])]
    measured(
        participantsToldAfterSeconds=round(told, 1),
        namespaceGoneAfterSeconds=round(time.monotonic() - began, 1),
        waitedForItSeconds=round(gone, 1),
    )
    await chart.until_available(mafalda.replicas)


def media_cluster(name: str) -> dict[str, Any]:
    """Its pods have addresses of their own, so that they need not share the nodes' ports with the first's."""
    return {
        "apiVersion": "mafalda.io/v1alpha1",
        "kind": "MediaCluster",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "publicURL": chart.GATEWAY,
            "network": {"type": "Pod", "announce": [{"type": "PodIP"}]},
            "drain": {"timeout": f"{DRAIN_SECONDS}s"},
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        },
    }


async def test_a_namespace_with_a_media_cluster_ends(
    mafalda: chart.Mafalda, nodes: tuple[str, ...], measured: Measured
):
    """Its RoleBindings may go first, and with them what the operator may do there."""
    async with short_lived() as namespace:
        await chart.install({**mafalda.values, "mediaNamespaces": [chart.NAMESPACE, namespace]})
        try:
            await kubernetes.apply(media_cluster("own"), namespace=namespace)
            await until_condition("mediacluster", "own", "Available", namespace, seconds=60)
            reference = {"name": "own", "namespace": namespace}
            session = await sessions.create(namespace, routers=2, clusterRef=reference)
            async with gathered(session, ("alice", "bob")) as call:
                pods = len(await listing("pods", namespace, chart.MEDIA_PODS))
                began = time.monotonic()
                await kubectl("delete", "namespace", namespace, "--wait=false")
                reasons, _ = await asyncio.gather(told(call), until_gone(namespace))
                gone = time.monotonic() - began
            assert pods == 2
            assert reasons == ["session ended"] * 2
        finally:
            await chart.install(mafalda.values)
    await chart.until_available(mafalda.replicas)
    again = await sessions.create("default", name=f"after-{os.getpid()}")
    await kubernetes.delete("mediasession", again.name, namespace=again.namespace)
    measured(namespaceGoneAfterSeconds=round(gone, 1), pods=pods)


async def told(call: Gathering) -> list[str]:
    everybody = call.participants.values()
    return list(await asyncio.gather(*(ended(one, TOLD_SECONDS + GONE_SECONDS) for one in everybody)))
