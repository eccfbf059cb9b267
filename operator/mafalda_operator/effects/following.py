"""Pods, nodes and what clusters own: listed and watched by label, only while some MediaCluster has pods.

kopf would watch every pod of every namespace; these watches need rights in the clusters' namespaces only
(nodes: everywhere). The store is filled by a LIST and kept by a watch; both begin anew every few minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import structlog

from mafalda_operator.effects.api import (
    BUDGETS,
    CONFIG_MAPS,
    NODES,
    PODS,
    SERVICES,
    KubeApi,
    Object,
    Resource,
)
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.errors import Forbidden, Gone, KubeError
from mafalda_operator.model import LABEL_CLUSTER, LABEL_ROLE, ROLE_MEDIA_SERVER

WATCH_SECONDS = 300

log = structlog.get_logger(__name__)


class Store(Protocol):
    def replace(
        self, kind: str, objects: Iterable[Object], version: int, *, namespace: str | None = None
    ) -> None: ...
    def note_event(self, kind: str, event_type: str | None, obj: Object) -> None: ...
    def forget(self, kind: str, namespace: str | None) -> None: ...
    def put_followed(self, namespace: str, problem: str | None) -> None: ...


class _Feed(NamedTuple):
    """One LIST and watch; ``namespace`` None: cluster-scoped."""

    resource: Resource
    namespace: str | None
    selector: str

    def __str__(self) -> str:
        return self.resource.plural if self.namespace is None else f"{self.namespace}/{self.resource.plural}"


_MEDIA_PODS = f"{LABEL_ROLE}={ROLE_MEDIA_SERVER}"
_NODES = _Feed(NODES, None, "")


def _feeds(namespace: str) -> list[_Feed]:
    owned = (CONFIG_MAPS, SERVICES, BUDGETS)
    return [
        _Feed(PODS, namespace, _MEDIA_PODS),
        *(_Feed(resource, namespace, LABEL_CLUSTER) for resource in owned),
        _NODES,
    ]


class Follower:
    """Follows what the clusters of the wanted namespaces have. ``close`` forgets everything."""

    def __init__(self, api: KubeApi, store: Store) -> None:
        self._api, self._store = api, store
        self._wanted: frozenset[str] = frozenset()
        self._tasks: dict[_Feed, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._problems: dict[_Feed, str] = {}
        """Empty text: listed."""

    def set_wanted(self, namespaces: Iterable[str]) -> None:
        """Follow exactly these namespaces, and the nodes while there are any."""
        wanted = frozenset(namespaces)
        if wanted == self._wanted:
            return
        gone, self._wanted = self._wanted - wanted, wanted
        feeds = {feed for namespace in wanted for feed in _feeds(namespace)}
        for feed in self._tasks.keys() - feeds:
            self._end(feed)
        for namespace in gone:
            self._store.put_followed(namespace, None)
        for feed in sorted(feeds - self._tasks.keys(), key=str):
            self._start(feed)
        self._tell()

    async def close(self) -> None:
        self.set_wanted(())
        if self._ending:
            await asyncio.wait(self._ending)

    def _start(self, feed: _Feed) -> None:
        task = asyncio.create_task(self._keep(feed), name=f"following {feed}")
        task.add_done_callback(self._ended)
        self._tasks[feed] = task

    def _end(self, feed: _Feed) -> None:
        task = self._tasks.pop(feed)
        self._problems.pop(feed, None)
        task.cancel()
        self._ending.add(task)
        self._store.forget(feed.resource.kind, feed.namespace)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("following ended by a fault", task=task.get_name(), exc_info=task.exception())

    async def _keep(self, feed: _Feed) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._list_and_watch(feed)
                backoff.reset()
            except Gone:
                continue
            except Forbidden as error:
                self._note(feed, _forbidden(feed))
                log.error("may not follow", what=str(feed), error=str(error), remedy=_forbidden(feed))
                await asyncio.sleep(backoff.next(error))
            except KubeError as error:
                if self._problems.get(feed) != "":
                    self._note(feed, f"{feed} cannot be listed: {error}")
                log.warning("cannot follow now", what=str(feed), error=str(error))
                await asyncio.sleep(backoff.next(error))

    async def _list_and_watch(self, feed: _Feed) -> None:
        resource, namespace, selector = feed
        listing = await self._api.list(resource, namespace, label_selector=selector or None)
        self._store.replace(resource.kind, listing.items, listing.resource_version, namespace=namespace)
        self._note(feed, "")
        async for event in self._api.watch(
            resource,
            namespace,
            label_selector=selector or None,
            since=listing.resource_version,
            seconds=WATCH_SECONDS,
        ):
            kind = event.get("type")
            if kind in ("ADDED", "MODIFIED", "DELETED"):
                self._store.note_event(resource.kind, kind, event["object"])

    def _note(self, feed: _Feed, problem: str) -> None:
        """``problem``: why the feed's objects are not known, empty when they are."""
        if self._problems.get(feed) != problem:
            self._problems[feed] = problem
            self._tell()

    def _tell(self) -> None:
        """Tell of each namespace whether all is known. Before anything is, nothing is told."""
        for namespace in self._wanted:
            problems = [self._problems.get(feed) for feed in _feeds(namespace)]
            bad = next((problem for problem in problems if problem), None)
            if bad is not None:
                self._store.put_followed(namespace, bad)
            elif None not in problems:
                self._store.put_followed(namespace, "")


def _forbidden(feed: _Feed) -> str:
    if feed.namespace is None:
        return f"the operator's account may not list and watch {feed.resource.plural}; allow it cluster-wide"
    return (
        f"the operator's account may not list and watch {feed.resource.plural} in namespace {feed.namespace};"
        " allow it there (chart: add the namespace to mediaNamespaces)"
    )
