"""The work of the Helm chart's hooks: apply the first MediaCluster, delete it with its pods, sweep up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mafalda_operator.effects.api import CLUSTERS, PODS, KubeApi, Object, Resource
from mafalda_operator.effects.errors import (
    ApiUnavailable,
    Conflict,
    Forbidden,
    KubeError,
    NotFound,
    ServerFault,
    Throttled,
)
from mafalda_operator.model import LABEL_CLUSTER, LABEL_ROLE, ROLE_MEDIA_SERVER, ObjectKey

MANAGER = "mafalda-chart"
POLL_SECONDS = 0.5
FAULT_SECONDS = 30.0
"""How long faults of the API server are waited out: it answers 500 for a field that it does not know yet."""
JOBS = Resource("Job", "jobs", "batch", "v1")
_INSTANCE = "app.kubernetes.io/instance"
_MANAGED_BY = "app.kubernetes.io/managed-by"

Say = Callable[[str], object]


class HookError(Exception):
    """What could not be done; the message names the object and the remedy."""


async def apply_cluster(api: KubeApi, body: Object, *, seconds: float, say: Say) -> None:
    """Server-side apply, tried again while the kind, a new field of it or our rights are not known yet.

    Raises HookError when the time is over, and at once what the API server says against the object.
    """
    metadata = body["metadata"]
    key = ObjectKey(metadata["namespace"], metadata["name"])
    started = time.monotonic()
    waiting = False
    while True:
        try:
            content = {name: value for name, value in body.items() if name not in ("apiVersion", "kind")}
            await api.apply(CLUSTERS, *key, content, manager=MANAGER)
        except (NotFound, Forbidden, ApiUnavailable, ServerFault, Throttled) as error:
            patience = min(seconds, FAULT_SECONDS) if isinstance(error, ServerFault) else seconds
            if time.monotonic() - started > patience:
                raise HookError(
                    f"MediaCluster {key} could not be applied in {patience:g} s: {error}; are the definitions"
                    " installed (crds.install), does the namespace exist, and is cluster.spec in the values"
                    " spelt as kubectl explain mediacluster.spec has it?"
                ) from error
            if not waiting:
                say(f"MediaCluster {key}: waiting, since {error}")
            waiting = True
            await asyncio.sleep(POLL_SECONDS)
        except KubeError as error:
            raise HookError(f"MediaCluster {key}: {error}; correct cluster.* in the values") from error
        else:
            say(f"MediaCluster {key} applied")
            return


def is_of(cluster: Object, release: str) -> bool:
    """Whether the chart made it, for that release."""
    labels = cluster["metadata"].get("labels") or {}
    return labels.get(_MANAGED_BY) == "Helm" and labels.get(_INSTANCE) == release


def choose(
    clusters: Iterable[Object], with_pods: frozenset[ObjectKey], *, release: str, others: str, keep: bool
) -> list[Object]:
    """Those to delete. Raises HookError when there are others with pods that nobody said what to do with."""
    chosen, refused = [], []
    for cluster in clusters:
        if is_of(cluster, release):
            if not keep:
                chosen.append(cluster)
        elif _held(cluster) or _key(cluster) in with_pods:
            if others == "Delete":
                chosen.append(cluster)
            elif others == "Refuse":
                refused.append(_key(cluster))
    if refused:
        raise HookError(
            f"{', '.join(f'MediaCluster {key}' for key in refused)} has media pods and is not of release"
            f" {release}; without an operator nothing drains or deletes them. Delete it first, or set"
            " uninstall.otherClusters to Delete or Keep by helm upgrade. Nothing was deleted"
        )
    return chosen


async def delete_clusters(
    api: KubeApi,
    *,
    release: str,
    namespaces: Sequence[str],
    others: str,
    keep: bool,
    drain_timeout: str,
    seconds: float,
    say: Say,
) -> None:
    """Returns when they and their pods are gone. Raises HookError, also when that takes too long."""
    deadline = time.monotonic() + seconds
    clusters = [cluster for namespace in namespaces for cluster in await _clusters(api, namespace)]
    with_pods = frozenset(
        [key for namespace in namespaces for key in await _clusters_of_pods(api, namespace)]
    )
    chosen = choose(clusters, with_pods, release=release, others=others, keep=keep)
    for cluster in chosen:
        await _delete(api, cluster, drain_timeout)
        say(f"MediaCluster {_key(cluster)} is deleted; waiting for its pods")
    for cluster in chosen:
        await _until_gone(api, cluster, deadline, seconds)
        say(f"MediaCluster {_key(cluster)} and its pods are gone")
    if not chosen:
        say("there is no MediaCluster to delete")


async def sweep(api: KubeApi, namespace: str, names: Mapping[Resource, Iterable[str]], *, say: Say) -> None:
    """Delete them; one that is not there is passed over."""
    for resource, wanted in names.items():
        for name in wanted:
            try:
                found = await api.get(resource, namespace, name)
                await api.delete(resource, namespace, name, uid=found["metadata"]["uid"])
            except NotFound:
                continue
            say(f"{resource.kind} {namespace}/{name} deleted")


async def _delete(api: KubeApi, cluster: Object, drain_timeout: str) -> None:
    key, uid = _key(cluster), cluster["metadata"]["uid"]
    body: dict[str, Any] = {"metadata": {"uid": uid}, "spec": {"drain": {"timeout": drain_timeout}}}
    try:
        await api.patch(CLUSTERS, *key, body)
        await api.delete(CLUSTERS, *key, uid=uid)
    except NotFound:
        return
    except Conflict as error:
        raise HookError(f"MediaCluster {key} was made anew meanwhile; try again") from error


async def _until_gone(api: KubeApi, cluster: Object, deadline: float, seconds: float) -> None:
    key, uid = _key(cluster), cluster["metadata"]["uid"]
    while True:
        left = []
        try:
            if (await api.get(CLUSTERS, *key))["metadata"]["uid"] == uid:
                left.append(f"MediaCluster {key}")
        except NotFound:
            pass
        pods = [pod for pod in await _pods(api, key.namespace) if _cluster_of(pod) == key]
        left += [f"pod {key.namespace}/{pod['metadata']['name']}" for pod in pods]
        if not left:
            return
        if time.monotonic() > deadline:
            raise HookError(
                f"still there after {seconds:g} s: {', '.join(left)}. Does the operator run? If it can't be"
                f" mended, let the MediaCluster go by kubectl -n {key.namespace} patch mediacluster"
                f""" {key.name} --type=merge -p '{{"metadata":{{"finalizers":null}}}}' and uninstall again"""
            )
        await asyncio.sleep(POLL_SECONDS)


async def _clusters(api: KubeApi, namespace: str) -> list[Object]:
    try:
        return (await api.list(CLUSTERS, namespace)).items
    except NotFound:
        return []  # the kind is not defined: there can be none


async def _pods(api: KubeApi, namespace: str) -> list[Object]:
    return (await api.list(PODS, namespace, label_selector=f"{LABEL_ROLE}={ROLE_MEDIA_SERVER}")).items


async def _clusters_of_pods(api: KubeApi, namespace: str) -> list[ObjectKey]:
    return [key for pod in await _pods(api, namespace) if (key := _cluster_of(pod)) is not None]


def _cluster_of(pod: Object) -> ObjectKey | None:
    metadata = pod["metadata"]
    name = (metadata.get("labels") or {}).get(LABEL_CLUSTER)
    return ObjectKey(metadata["namespace"], name) if name else None


def _held(cluster: Object) -> bool:
    """Whether the operator holds it back until its pods are drained."""
    return bool(cluster["metadata"].get("finalizers"))


def _key(found: Object) -> ObjectKey:
    return ObjectKey(found["metadata"]["namespace"], found["metadata"]["name"])
