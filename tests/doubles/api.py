"""An API server in memory, for what the gateway reads: lists, watches, Secrets, labels; and its faults."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

import msgspec

from mediaserver.gateway.errors import ApiError
from mediaserver.gateway.kube import Listing
from mediaserver.gateway.resources import Resource

ObjectT = TypeVar("ObjectT", bound=Resource)

KINDS = ("mediaclusters", "mediaservers", "mediasessions")


class FakeApi:
    """``put`` and ``delete`` objects as plain dictionaries; ``reads`` counts what was asked."""

    def __init__(self) -> None:
        self.down = False
        """Every request fails; watches end with an error."""
        self.hanging = asyncio.Event()
        """Set: Secrets and labels are asked for in vain."""
        self.secrets: dict[str, dict[str, bytes]] = {}
        """By namespace/name."""
        self.forbidden: set[str] = set()
        """Secrets that may not be read, likewise."""
        self.labels: dict[str, dict[str, str]] = {}
        self.reads: list[str] = []
        self._versions = itertools.count(1)
        self._version = 0
        self._objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = {kind: {} for kind in KINDS}
        self._watches: dict[str, set[asyncio.Queue[bytes | None]]] = {kind: set() for kind in KINDS}

    def put(self, plural: str, namespace: str, name: str, *, quiet: bool = False, **content: Any) -> None:
        """Create or replace. ``quiet``: watchers are not told."""
        self._version = next(self._versions)
        metadata = {"namespace": namespace, "name": name, "uid": f"uid-{name}"}
        metadata |= {"resourceVersion": str(self._version)} | content.pop("metadata", {})
        item = {"metadata": metadata, **content}
        kind = "MODIFIED" if (namespace, name) in self._objects[plural] else "ADDED"
        self._objects[plural][namespace, name] = item
        if not quiet:
            self.event(plural, kind, item)

    def delete(self, plural: str, namespace: str, name: str, *, quiet: bool = False) -> None:
        self._version = next(self._versions)
        item = self._objects[plural].pop((namespace, name))
        if not quiet:
            self.event(plural, "DELETED", item)

    def event(self, plural: str, kind: str, item: dict[str, Any]) -> None:
        """Send a raw watch event."""
        for queue in self._watches[plural]:
            queue.put_nowait(msgspec.json.encode({"type": kind, "object": item}))

    def raw(self, plural: str, line: bytes) -> None:
        for queue in self._watches[plural]:
            queue.put_nowait(line)

    def end_watches(self) -> None:
        """As after their time; with ``down`` set: with an error."""
        for queues in self._watches.values():
            for queue in queues:
                queue.put_nowait(None)

    # -- what the gateway asks ------------------------------------------------------------------------

    async def list(self, plural: str, kind: type[ObjectT]) -> Listing[ObjectT]:
        self._answer(f"list {plural}")
        items = msgspec.convert(list(self._objects[plural].values()), list[kind])  # type: ignore[valid-type]
        return Listing(str(self._version), items)

    async def watch(self, plural: str, resource_version: str) -> AsyncGenerator[bytes, None]:
        self._answer(f"watch {plural}")
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._watches[plural].add(queue)
        try:
            while (line := await queue.get()) is not None:
                yield line
            self._answer(f"watch {plural}")
        finally:
            self._watches[plural].discard(queue)

    async def secret(self, namespace: str, name: str) -> dict[str, bytes]:
        self._answer(f"secret {namespace}/{name}")
        await self._hang()
        if f"{namespace}/{name}" in self.forbidden:
            raise ApiError(f"read Secret {namespace}/{name}: 403 Forbidden", 403)
        found = self.secrets.get(f"{namespace}/{name}")
        if found is None:
            raise ApiError("no such Secret", 404)
        return found

    async def namespace_labels(self, name: str) -> dict[str, str]:
        self._answer(f"namespace {name}")
        await self._hang()
        return self.labels.get(name, {})

    async def _hang(self) -> None:
        if self.hanging.is_set():
            await asyncio.Event().wait()

    def _answer(self, what: str) -> None:
        self.reads.append(what)
        if self.down:
            raise ApiError(f"{what}: connection refused")
