"""What the operator knows of the cluster: the newest version of every observed object.

Three sources feed it: watch events (late, sometimes repeated, deletions sometimes missing), whole LISTs,
and the answers to our own writes (first to know). Versions decide: Kubernetes' resourceVersions are
comparable integers within a resource (KEP-5504), and a UID that was deleted never comes back.

The store holds versions only and passes what is news on to the planner's Inventory. No I/O; one event
loop calls it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mafalda_operator.model import (
    Inventory,
    MediaCluster,
    MediaRouter,
    MediaServer,
    MediaSession,
    NamespaceInfo,
    NodeView,
    ObjectKey,
    ObjectRef,
    OwnedObject,
    PodView,
    Scope,
)
from mafalda_operator.model.keys import Kind
from mafalda_operator.model.pods import OWNED_KINDS

Object = dict[str, Any]
AnyResource = MediaCluster | MediaServer | MediaSession | MediaRouter

TOMBSTONE_SECONDS = 600.0
"""For so long a late event cannot bring a deleted object back; re-LISTs come more often."""


class Sink(Protocol):
    """Where news of one kind goes; both return what is to be planned anew."""

    def put(self, obj: Object) -> Scope: ...
    def remove(self, key: ObjectKey) -> Scope: ...


class Story(Protocol):
    """Who is told of versions that follow each other, and of objects that are gone."""

    def changed(self, before: AnyResource | None, after: AnyResource) -> None: ...
    def removed(self, gone: AnyResource) -> None: ...


@dataclass(frozen=True, slots=True)
class Held:
    uid: str
    version: int


@dataclass
class KindStore:
    """The versions of one kind's objects."""

    sink: Sink
    clock: Callable[[], float]
    held: dict[ObjectKey, Held] = field(default_factory=dict)
    _tombstones: dict[str, float] = field(default_factory=dict)
    _floors: dict[str | None, int] = field(default_factory=dict)
    """The version of the newest LIST, by namespace; None: of all namespaces."""

    def put(self, obj: Object, *, floor: int | None = None) -> Scope:
        """Take a version of an object in, unless what is held is as new or the object was deleted.

        What is not held and not newer than ``floor`` (absent: the newest LIST) is gone since.
        """
        key, uid, version = identity(obj)
        held = self.held.get(key)
        if not self.is_news(key, uid, version, floor=floor):
            return Scope()
        if held is not None and held.uid != uid:
            self._tombstones[held.uid] = self.clock()
        self.held[key] = Held(uid, version)
        return self.sink.put(obj)

    def is_news(self, key: ObjectKey, uid: str, version: int, *, floor: int | None = None) -> bool:
        """Whether ``put`` would take this version in."""
        held = self.held.get(key)
        if floor is None:
            floor = max(self._floors.get(None, 0), self._floors.get(key.namespace, 0))
        return uid not in self._tombstones and version > (held.version if held is not None else floor)

    def delete(self, key: ObjectKey, uid: str) -> Scope:
        """Take the deletion of the object with that UID in; it cannot come back."""
        self._tombstones[uid] = self.clock()
        held = self.held.get(key)
        if held is None or held.uid != uid:
            return Scope()
        del self.held[key]
        return self.sink.remove(key)

    def replace(self, objects: Iterable[Object], version: int, namespace: str | None) -> Scope:
        """Take a whole LIST in, as of ``version``; of one namespace, or of all.

        What it lacks is gone, unless that is newer than the LIST.
        """
        scopes, present = [], set()
        newest = version >= self._floors.get(namespace, 0)
        for obj in objects:
            present.add(identity(obj)[1])
            scopes.append(self.put(obj, floor=0 if newest else None))
        missing = [
            (key, held.uid)
            for key, held in self.held.items()
            if held.uid not in present
            and held.version <= version
            and (namespace is None or key.namespace == namespace)
        ]
        scopes += [self.delete(key, uid) for key, uid in missing]
        self._floors[namespace] = max(version, self._floors.get(namespace, 0))
        self._forget()
        return merged(scopes)

    def forget(self, namespace: str | None) -> Scope:
        """Nobody follows these objects any more; whoever follows them again begins with a LIST."""
        keys = [key for key in self.held if namespace is None or key.namespace == namespace]
        for key in keys:
            del self.held[key]
        self._floors.pop(namespace, None)
        return merged([self.sink.remove(key) for key in keys])

    def _forget(self) -> None:
        oldest = self.clock() - TOMBSTONE_SECONDS
        for uid in [uid for uid, at in self._tombstones.items() if at < oldest]:
            del self._tombstones[uid]


class Store:
    """All kinds. Every change goes to ``inventory``; what it makes necessary to plan, to ``on_change``."""

    def __init__(
        self,
        inventory: Inventory,
        *,
        clock: Callable[[], float],
        on_change: Callable[[Scope], None],
        story: Story | None = None,
    ) -> None:
        self.inventory = inventory
        self._on_change = on_change
        self.kinds: dict[str, KindStore] = {
            kind: KindStore(_ResourceSink(inventory, kind, parse, story), clock)
            for kind, parse in _PARSERS.items()
        }
        self.kinds["Namespace"] = KindStore(_NamespaceSink(inventory), clock)
        self.kinds["Node"] = KindStore(_NodeSink(inventory), clock)
        self.kinds["Pod"] = KindStore(_PodSink(inventory), clock)
        for owned in OWNED_KINDS:
            self.kinds[owned] = KindStore(_OwnedSink(inventory, owned), clock)

    def put(self, kind: str, obj: Object) -> None:
        self._tell(self.kinds[kind].put(obj))

    def delete(self, kind: str, key: ObjectKey, uid: str) -> None:
        self._tell(self.kinds[kind].delete(key, uid))

    def replace(
        self,
        kind: str,
        objects: Iterable[Object],
        version: int,
        *,
        namespace: str | None = None,
    ) -> None:
        self._tell(self.kinds[kind].replace(objects, version, namespace))

    def note_event(self, kind: str, event_type: str | None, obj: Object) -> None:
        """Take a watch event in; ``event_type`` as Kubernetes has it, None for an object that was listed."""
        key, uid, _ = identity(obj)
        if event_type == "DELETED":
            self.delete(kind, key, uid)
        else:
            self.put(kind, obj)

    def forget(self, kind: str, namespace: str | None) -> None:
        """Drop what is held of a kind that nobody follows there any more."""
        self._tell(self.kinds[kind].forget(namespace))

    def put_followed(self, namespace: str, problem: str | None) -> None:
        """Whether the pods of a namespace, and what belongs to them, are known (empty text), or why not."""
        self._tell(self.inventory.put_followed(namespace, problem))

    def knows(self, kind: str, key: ObjectKey, uid: str, version: int) -> bool:
        """Whether this version of that object is no news."""
        return not self.kinds[kind].is_news(key, uid, version)

    def status(self, kind: str, key: ObjectKey, uid: str) -> Mapping[str, Any] | None:
        """The stored status of that very object; None when it is gone."""
        resource = self.inventory.get(kind, key)
        if resource is None or resource.uid != uid:
            return None
        status: Mapping[str, Any] = resource.status
        return status

    def _tell(self, scope: Scope) -> None:
        if scope:
            self._on_change(scope)


@dataclass
class _ResourceSink:
    inventory: Inventory
    kind: Kind
    parse: Callable[[Object], AnyResource]
    story: Story | None

    def put(self, obj: Object) -> Scope:
        resource = self.parse(obj)
        before = self.inventory.get(self.kind, resource.key)
        scope = self.inventory.put(resource)
        if self.story is not None:
            if before is not None and before.uid != resource.uid:
                self.story.removed(before)
                before = None
            self.story.changed(before, resource)
        return scope

    def remove(self, key: ObjectKey) -> Scope:
        gone = self.inventory.get(self.kind, key)
        scope = self.inventory.remove(self.kind, key)
        if self.story is not None and gone is not None:
            self.story.removed(gone)
        return scope


@dataclass
class _NamespaceSink:
    inventory: Inventory

    def put(self, obj: Object) -> Scope:
        metadata = obj["metadata"]
        terminating = metadata.get("deletionTimestamp") is not None
        info = NamespaceInfo(labels=metadata.get("labels") or {}, terminating=terminating)
        return self.inventory.put_namespace(metadata["name"], info)

    def remove(self, key: ObjectKey) -> Scope:
        return self.inventory.put_namespace(key.name, None)


@dataclass
class _NodeSink:
    inventory: Inventory

    def put(self, obj: Object) -> Scope:
        node = NodeView.parse(obj)
        return self.inventory.put_node(node.name, node)

    def remove(self, key: ObjectKey) -> Scope:
        return self.inventory.put_node(key.name, None)


@dataclass
class _PodSink:
    inventory: Inventory

    def put(self, obj: Object) -> Scope:
        return self.inventory.put_pod(PodView.parse(obj))

    def remove(self, key: ObjectKey) -> Scope:
        return self.inventory.remove_pod(key)


@dataclass
class _OwnedSink:
    inventory: Inventory
    kind: str

    def put(self, obj: Object) -> Scope:
        owned = OwnedObject.parse(obj)
        return self.inventory.put_owned(ObjectRef(self.kind, identity(obj)[0]), owned)

    def remove(self, key: ObjectKey) -> Scope:
        return self.inventory.put_owned(ObjectRef(self.kind, key), None)


_PARSERS: dict[Kind, Callable[[Object], AnyResource]] = {
    "MediaCluster": MediaCluster.parse,
    "MediaServer": MediaServer.parse,
    "MediaSession": MediaSession.parse,
    "MediaRouter": MediaRouter.parse,
}


def merged(scopes: Iterable[Scope]) -> Scope:
    """The union of scopes, at a cost that grows with what they name."""
    known = [scope for scope in scopes if scope]
    return Scope(
        _union([scope.sessions for scope in known]),
        _union([scope.servers for scope in known]),
        _union([scope.clusters for scope in known]),
    )


def _union(parts: list[frozenset[ObjectKey] | None]) -> frozenset[ObjectKey] | None:
    sets = [part for part in parts if part is not None]
    return frozenset().union(*sets) if len(sets) == len(parts) else None


def identity(obj: Mapping[str, Any]) -> tuple[ObjectKey, str, int]:
    """Key, UID and version of an object as the API server gives it. Cluster-scoped: the namespace is ""."""
    metadata = obj["metadata"]
    key = ObjectKey(metadata.get("namespace") or "", metadata["name"])
    return key, metadata["uid"], int(metadata["resourceVersion"])
