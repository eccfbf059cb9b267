"""Carries out what a plan wants of pods, their MediaServers, and what a MediaCluster owns beside them."""

from __future__ import annotations

from typing import Any, Protocol

from mafalda_operator.effects.api import BY_KIND, CLUSTERS, PODS, SERVERS, KubeApi, Object, Resource
from mafalda_operator.effects.errors import Conflict, NotFound
from mafalda_operator.model import DRAIN_FINALIZER, ObjectKey, ObjectRef
from mafalda_operator.planning.actions import (
    ApplyObject,
    CreatePod,
    CreateServer,
    DeletePod,
    PodAction,
    SetFinalizer,
)

_ATTEMPTS = 3


class Store(Protocol):
    """Where answers go."""

    def put(self, kind: str, obj: Object) -> None: ...
    def delete(self, kind: str, key: ObjectKey, uid: str) -> None: ...


class PodActor:
    """Each action may be repeated without harm. Raises the errors of ``effects.errors``."""

    def __init__(self, api: KubeApi, store: Store) -> None:
        self._api, self._store = api, store

    async def carry_out(self, action: PodAction) -> None:
        match action:
            case CreatePod():
                await self._create(PODS, action.key, dict(action.body), action.cluster_uid)
            case CreateServer():
                await self._create(SERVERS, action.key, dict(action.body), action.pod_uid)
            case DeletePod():
                await self._delete(action)
            case ApplyObject():
                await self._apply(action)
            case SetFinalizer():
                await self._set_finalizer(action)

    async def _create(self, resource: Resource, key: ObjectKey, body: Object, owner_uid: str) -> None:
        try:
            made = await self._api.create(resource, key.namespace, body)
        except Conflict as error:
            if not error.already_exists:
                raise
            made = await self._own(resource, key, owner_uid, error)
        self._store.put(resource.kind, made)

    async def _own(self, resource: Resource, key: ObjectKey, owner_uid: str, error: Conflict) -> Object:
        """The object of that name, which must have that controller: else it is not for us to touch."""
        found = await self._api.get(resource, key.namespace, key.name)
        owners = found["metadata"].get("ownerReferences") or []
        if any(owner.get("uid") == owner_uid for owner in owners):
            return found
        raise Conflict(
            error.status,
            error.reason,
            f"{resource.kind} {key} exists and does not belong to this MediaCluster; delete or rename it",
        ) from error

    async def _delete(self, action: DeletePod) -> None:
        try:
            answer = await self._api.delete(PODS, action.key.namespace, action.key.name, uid=action.uid)
        except (NotFound, Conflict):  # gone, or another has its name
            self._store.delete(PODS.kind, action.key, action.uid)
            return
        if answer.get("kind") == PODS.kind and answer["metadata"].get("deletionGracePeriodSeconds"):
            self._store.put(PODS.kind, answer)  # it ends within its grace period
        else:
            self._store.delete(PODS.kind, action.key, action.uid)

    async def _apply(self, action: ApplyObject) -> None:
        resource, key = BY_KIND[action.ref.kind], action.ref.key
        if action.uid:
            await self._patch(action, resource)
            return
        try:
            made = await self._api.create(resource, key.namespace, dict(action.body))
        except Conflict as error:
            if not error.already_exists:
                raise
            made = await self._own(resource, key, action.owner_uid, error)
            patch = _as_patch(action, made)
            made = await self._api.patch(resource, key.namespace, key.name, patch)
        self._store.put(resource.kind, made)

    async def _patch(self, action: ApplyObject, resource: Resource) -> None:
        key = action.ref.key
        metadata = {**action.body.get("metadata", {}), "uid": action.uid}
        try:
            changed = await self._api.patch(
                resource, key.namespace, key.name, {**action.body, "metadata": metadata}
            )
        except NotFound:
            self._store.delete(resource.kind, key, action.uid)
            return
        self._store.put(resource.kind, changed)

    async def _set_finalizer(self, action: SetFinalizer) -> None:
        """Leaves everybody else's finalizers alone. Raises Conflict when the object changes all the time."""
        for _ in range(_ATTEMPTS - 1):
            try:
                await self._try_finalizer(action)
            except Conflict:  # our own status write, say, came between reading and writing
                continue
            return
        await self._try_finalizer(action)

    async def _try_finalizer(self, action: SetFinalizer) -> None:
        namespace, name = action.cluster
        try:
            cluster = await self._api.get(CLUSTERS, namespace, name)
            metadata = cluster["metadata"]
            if metadata["uid"] != action.uid:
                return
            held: list[str] = metadata.get("finalizers") or []
            wanted = [one for one in held if one != DRAIN_FINALIZER]
            wanted += [DRAIN_FINALIZER] if action.present else []
            if wanted != held:
                version: dict[str, Any] = {"uid": action.uid, "resourceVersion": metadata["resourceVersion"]}
                body: Object = {"metadata": {**version, "finalizers": wanted}}
                cluster = await self._api.patch(CLUSTERS, namespace, name, body)
        except NotFound:
            self._store.delete(CLUSTERS.kind, action.cluster, action.uid)
            return
        if cluster["metadata"].get("deletionTimestamp") is not None and not cluster["metadata"].get(
            "finalizers"
        ):
            self._store.delete(CLUSTERS.kind, action.cluster, action.uid)
        else:
            self._store.put(CLUSTERS.kind, cluster)


def _as_patch(action: ApplyObject, found: Object) -> Object:
    """What makes an object that exists already what it was to be made as."""
    metadata = action.body["metadata"]
    body = {name: value for name, value in action.body.items() if name != "metadata"}
    return {**body, "metadata": {"uid": found["metadata"]["uid"], "labels": metadata["labels"]}}


def subject(action: PodAction) -> ObjectRef:
    """What the action is about."""
    match action:
        case CreatePod() | DeletePod():
            return ObjectRef(PODS.kind, action.key)
        case CreateServer():
            return ObjectRef(SERVERS.kind, action.key)
        case ApplyObject():
            return action.ref
        case SetFinalizer():
            return ObjectRef(CLUSTERS.kind, action.cluster)
