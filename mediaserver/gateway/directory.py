"""What the gateway knows of clusters, servers and sessions, and a signal when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from mediaserver.gateway.reflector import Reflector, Source
from mediaserver.gateway.resources import Cluster, ObjectKey, Server, Session


class Signal:
    """Wakes whoever waits. Bounded by the number of those who wait."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def fire(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for ``condition``, looked at after each fire(), for ``seconds`` at most; whether it holds."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._fired()
        except TimeoutError:
            return condition()
        return True

    async def _fired(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


class Directory:
    """Copies of the three kinds, each followed by a task of its own between ``start`` and ``close``."""

    def __init__(self, source: Source, changed: Callable[[], None]) -> None:
        self._clusters = Reflector(source, "mediaclusters", Cluster, changed)
        self._servers = Reflector(source, "mediaservers", Server, changed)
        self._sessions = Reflector(source, "mediasessions", Session, changed)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def reflectors(self) -> tuple[Reflector[Any], ...]:
        return (self._clusters, self._servers, self._sessions)

    @property
    def clusters(self) -> Mapping[ObjectKey, Cluster]:
        return self._clusters.objects

    @property
    def servers(self) -> Mapping[ObjectKey, Server]:
        return self._servers.objects

    @property
    def sessions(self) -> Mapping[ObjectKey, Session]:
        return self._sessions.objects

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once."""
        return all(reflector.synced.is_set() for reflector in self.reflectors)

    @property
    def knows_servers(self) -> bool:
        """Whether a MediaServer that is not among ``servers`` does not exist, for all that can be told."""
        return self._servers.synced.is_set() and not self._servers.problem

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(reflector.run(), name=f"watch {reflector.plural}")
            for reflector in self.reflectors
        ]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
