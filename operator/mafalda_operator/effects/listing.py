"""Our own LISTs: they fill the store before the first plan, and replace it after every watch restart and
every five minutes, since watches alone miss deletions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import structlog

from mafalda_operator.effects.api import OBSERVED, KubeApi, Listing, Object, Resource
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.errors import (
    ApiRefused,
    ApiUnavailable,
    CredentialsError,
    Forbidden,
    KubeError,
    NotFound,
    Unauthorized,
)

PERIOD = 300.0
DEADLINE = 60.0
"""Seconds for one LIST of all kinds."""

log = structlog.get_logger(__name__)


class Store(Protocol):
    def replace(
        self,
        kind: str,
        objects: Iterable[Object],
        version: int,
        *,
        namespace: str | None = None,
    ) -> None: ...


class Lister:
    """Keeps the store listed. ``run`` must be awaited by somebody."""

    def __init__(
        self,
        api: KubeApi,
        store: Store,
        *,
        namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._store, self._clock, self._on_done = api, store, clock, on_done
        self._namespaces: Sequence[str | None] = list(namespaces) or [None]
        self._wanted = asyncio.Event()
        self._suspect_at = clock()
        self._fresh_at = float("-inf")
        self._failing = False

    def request(self, reason: str, *, suspect: bool = True) -> float:
        """Ask for a LIST that begins now or later; ``suspect``: until it is done the store is not complete.

        Returns the moment that ``fresh_since`` compares with.
        """
        log.info(f"listing all kinds anew: {reason}")
        now = self._clock()
        if suspect:
            self._suspect_at = now
        self._wanted.set()
        return now

    @property
    def complete(self) -> bool:
        """Whether the store has been replaced since it was last suspect, and the last LIST did not fail."""
        return not self._failing and self._fresh_at >= self._suspect_at

    def fresh_since(self, moment: float) -> bool:
        """Whether a LIST that began at ``moment`` or later has replaced the store."""
        return self._fresh_at >= moment

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self.list_once()
                backoff.reset()
            except KubeError as error:
                self._failing = True
                log.error("cannot list all kinds; nothing is closed until that works", error=explain(error))
                await asyncio.sleep(backoff.next(error))
                continue
            try:
                async with asyncio.timeout(PERIOD):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def list_once(self) -> None:
        """LIST every kind, then replace the whole store at once. After a KubeError the store is as before."""
        self._wanted.clear()
        began = self._clock()
        jobs = [(resource, namespace) for resource in OBSERVED for namespace in self._scopes(resource)]
        listings = await self._list_all(jobs)
        for (resource, namespace), listing in zip(jobs, listings, strict=True):
            self._store.replace(resource.kind, listing.items, listing.resource_version, namespace=namespace)
        self._fresh_at, self._failing = began, False
        log.debug("listed all kinds", objects=sum(len(listing.items) for listing in listings))
        self._on_done()

    def _scopes(self, resource: Resource) -> Sequence[str | None]:
        return self._namespaces if resource.namespaced else [None]

    async def _list_all(self, jobs: list[tuple[Resource, str | None]]) -> list[Listing]:
        tasks = [asyncio.create_task(self._api.list(resource, namespace)) for resource, namespace in jobs]
        try:
            async with asyncio.timeout(DEADLINE):
                return await asyncio.gather(*tasks)
        except TimeoutError as error:
            raise ApiUnavailable(f"listing all kinds took more than {DEADLINE:.0f} s") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def explain(error: KubeError) -> str:
    """The error, with what to do about it."""
    if isinstance(error, NotFound):
        return (
            f"{error}: are the custom resource definitions installed? kubectl apply -f crds/"
            " and wait until they are established"
        )
    if isinstance(error, Unauthorized):
        return f"{error}: the API server does not accept the operator's credentials; check --kubeconfig"
    if isinstance(error, Forbidden):
        return (
            f"{error}: allow get, list and watch on mediaclusters, mediaservers, mediasessions, mediarouters"
            " (mafalda.io) and namespaces to the operator's account"
        )
    if isinstance(error, ApiRefused | CredentialsError):
        return str(error)
    return f"{error}: is the API server running, and is the kubeconfig's server right?"
