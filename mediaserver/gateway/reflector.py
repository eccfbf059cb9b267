"""A copy of all objects of one kind, kept up to date by LIST and WATCH."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import structlog

from mediaserver.gateway.errors import ApiError
from mediaserver.gateway.kube import Listing
from mediaserver.gateway.resources import ObjectKey, Resource, ResourceStruct

ObjectT = TypeVar("ObjectT", bound=Resource)

MIN_PAUSE, MAX_PAUSE = 0.5, 5.0

log = structlog.get_logger()


class Source(Protocol):
    """Where objects come from: KubeReader, or a test."""

    async def list(self, plural: str, kind: type[ObjectT]) -> Listing[ObjectT]: ...
    def watch(self, plural: str, resource_version: str) -> AsyncGenerator[bytes, None]: ...


class _Event(ResourceStruct, frozen=True):
    type: str
    object: msgspec.Raw


class _Version(ResourceStruct, frozen=True):
    metadata: dict[str, Any] = {}


class Reflector(Generic[ObjectT]):
    """Owns its copy; ``changed`` is called after each change. Faults of the API leave the copy as it is."""

    def __init__(
        self,
        source: Source,
        plural: str,
        kind: type[ObjectT],
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plural = plural
        self.synced = asyncio.Event()
        """Set once the first LIST is in."""
        self.last_heard: float | None = None
        """By ``clock``: when the API last answered."""
        self.problem = ""
        self._source = source
        self._kind = kind
        self._changed = changed
        self._clock = clock
        self._decoder = msgspec.json.Decoder(kind)
        self._objects: dict[ObjectKey, ObjectT] = {}

    @property
    def objects(self) -> Mapping[ObjectKey, ObjectT]:
        return self._objects

    async def run(self) -> None:
        """List and watch until cancelled, listing anew after every fault."""
        pause = MIN_PAUSE
        while True:
            try:
                version = await self._list()
                pause = MIN_PAUSE
                while True:
                    version = await self._watch(version)
            except (ApiError, msgspec.DecodeError) as error:
                if not self.problem:  # told once, until it answers again
                    log.warning("the API server cannot be followed", kind=self.plural, error=str(error))
                self.problem = str(error)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, MAX_PAUSE)

    async def _list(self) -> str:
        listing = await self._source.list(self.plural, self._kind)
        self._objects = {item.key: item for item in listing.items}
        self.synced.set()
        self._heard()
        self._changed()
        return listing.resource_version

    async def _watch(self, version: str) -> str:
        """Follow one watch to its end; the version to go on from."""
        async with aclosing(self._source.watch(self.plural, version)) as lines:
            async for line in lines:
                if line.strip():
                    version = self._take(msgspec.json.decode(line, type=_Event), version)
        self._heard()
        return version

    def _heard(self) -> None:
        self.last_heard = self._clock()
        if self.problem:
            log.info("the API server is followed again", kind=self.plural)
        self.problem = ""

    def _take(self, event: _Event, version: str) -> str:
        self._heard()
        if event.type == "ERROR":
            status = msgspec.json.decode(event.object, type=dict[str, Any])
            raise ApiError(f"watch {self.plural}: {status.get('message')}", status.get("code"))
        if event.type == "BOOKMARK":
            seen = msgspec.json.decode(event.object, type=_Version).metadata.get("resourceVersion")
            return str(seen or version)
        item = self._decoder.decode(event.object)
        if event.type == "DELETED":
            self._objects.pop(item.key, None)
        else:
            self._objects[item.key] = item
        self._changed()
        return item.metadata.resource_version or version
