"""All control links: one for each MediaServer whose MediaCluster exists."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping

import structlog
from aiohttp import ClientSession, TCPConnector

from mafalda_operator.effects.link import ControlLink, Epochs, Heard, Target
from mafalda_operator.model import ObjectKey, ServerView
from mafalda_operator.planning.book import ServerChange
from mediaserver.control.contract import DesiredEntry
from mediaserver.wire.membership import Credential

log = structlog.get_logger(__name__)


class ServerLinks:
    """Owns the links from ``open`` to ``close``; everything between is called by the loop."""

    def __init__(
        self,
        credential: Credential,
        epochs: Epochs,
        on_heard: Callable[[Heard], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._credential, self._epochs, self._on_heard = credential, epochs, on_heard
        self._clock, self._rng = clock, rng
        self._session: ClientSession | None = None
        self._links: dict[ObjectKey, ControlLink] = {}
        self._tasks: dict[ObjectKey, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._session = ClientSession(connector=TCPConnector(limit=0))

    async def close(self) -> None:
        """End every link, telling the servers goodbye."""
        self.set_targets(())
        if self._ending:
            await asyncio.wait(self._ending)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def set_targets(self, targets: Iterable[Target]) -> None:
        """Hold links to exactly these; one whose address, cluster or silence changed is dialled anew."""
        wanted = {target.server: target for target in targets}
        for server in [server for server, link in self._links.items() if wanted.get(server) != link.target]:
            self._end(server)
        for server, target in wanted.items():
            if server not in self._links:
                self._start(server, target)

    def view(self, server: ObjectKey) -> ServerView | None:
        link = self._links.get(server)
        return link.view if link is not None else None

    def views(self) -> Mapping[ObjectKey, ServerView]:
        """Of every link, as of now."""
        return {server: link.view for server, link in self._links.items()}

    def released(self, server: ObjectKey) -> bool:
        """Whether the present connection has been told the whole desired state."""
        link = self._links.get(server)
        return link is not None and link.released

    def release(self, server: ObjectKey, whole: Mapping[str, DesiredEntry]) -> None:
        """Tell a new connection the whole desired state."""
        self._links[server].release(whole)

    def send(self, server: ObjectKey, change: ServerChange) -> None:
        """Tell a released connection what changed."""
        self._links[server].send(change)

    @property
    def connected(self) -> int:
        return sum(1 for link in self._links.values() if link.view.connected)

    def __len__(self) -> int:
        return len(self._links)

    def _start(self, server: ObjectKey, target: Target) -> None:
        if self._session is None:
            raise RuntimeError("open() was not called")
        link = ControlLink(
            target,
            self._session,
            self._credential,
            self._epochs,
            self._on_heard,
            clock=self._clock,
            rng=self._rng,
        )
        self._links[server] = link
        task = asyncio.create_task(link.run(), name=f"control link {server}")
        task.add_done_callback(self._ended)
        self._tasks[server] = task

    def _end(self, server: ObjectKey) -> None:
        del self._links[server]
        task = self._tasks.pop(server)
        task.cancel()
        self._ending.add(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a control link ended by a fault", exc_info=task.exception())
