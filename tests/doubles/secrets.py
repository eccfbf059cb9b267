"""Secrets of an API server in memory: create, patch, list and watch by name, as the operator does it."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from mafalda_operator.effects.api import Listing, Object, Resource
from mafalda_operator.effects.errors import Conflict, KubeError, NotFound


class SecretApi:
    """``writes`` lists what was written, as `create NAMESPACE/NAME` and `patch NAMESPACE/NAME`."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.writes: list[str] = []
        self.fault: KubeError | None = None
        """What every write raises."""
        self._versions = itertools.count(1)
        self._watches: defaultdict[tuple[str, str], set[asyncio.Queue[Object]]] = defaultdict(set)

    def put(self, namespace: str, name: str, **content: Any) -> None:
        """By somebody else's hand."""
        metadata = {"namespace": namespace, "name": name, **content.pop("metadata", {})}
        self._store((namespace, name), {"metadata": metadata, **content})

    def delete(self, namespace: str, name: str) -> None:
        gone = self.objects.pop((namespace, name))
        gone["metadata"]["resourceVersion"] = str(next(self._versions))
        for queue in self._watches[namespace, name]:
            queue.put_nowait({"type": "DELETED", "object": gone})

    def _store(self, key: tuple[str, str], obj: Object) -> Object:
        kind = "MODIFIED" if key in self.objects else "ADDED"
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = obj
        for queue in self._watches[key]:
            queue.put_nowait({"type": kind, "object": copy.deepcopy(obj)})
        return copy.deepcopy(obj)

    # -- as KubeApi -------------------------------------------------------------------------------------

    async def list(self, _: Resource, namespace: str, *, field_selector: str) -> Listing:
        found = self.objects.get((namespace, field_selector.removeprefix("metadata.name=")))
        return Listing(1, [] if found is None else [copy.deepcopy(found)])

    async def watch(
        self, _: Resource, namespace: str, *, field_selector: str, since: int, seconds: int
    ) -> AsyncIterator[Object]:
        queue: asyncio.Queue[Object] = asyncio.Queue()
        watches = self._watches[namespace, field_selector.removeprefix("metadata.name=")]
        watches.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            watches.discard(queue)

    async def create(self, _: Resource, namespace: str, body: Object) -> Object:
        name = body["metadata"]["name"]
        self.writes.append(f"create {namespace}/{name}")
        if self.fault is not None:
            raise self.fault
        if (namespace, name) in self.objects:
            raise Conflict(409, "AlreadyExists", f"secrets {name!r} already exists")
        return self._store((namespace, name), copy.deepcopy(body))

    async def patch(self, _: Resource, namespace: str, name: str, body: Object) -> Object:
        self.writes.append(f"patch {namespace}/{name}")
        if self.fault is not None:
            raise self.fault
        try:
            obj = copy.deepcopy(self.objects[namespace, name])
        except KeyError as error:
            raise NotFound(404, "NotFound", f"secrets {name!r} not found") from error
        if body["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
            raise Conflict(409, "Conflict", "the object has been modified")
        obj["metadata"].setdefault("annotations", {}).update(body["metadata"].get("annotations", {}))
        data = {**(obj.get("data") or {}), **body["data"]}
        obj["data"] = {key: value for key, value in data.items() if value is not None}
        return self._store((namespace, name), obj)
