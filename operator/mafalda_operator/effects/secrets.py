"""Secrets that are read and watched one by one, by name: token keys, certificates.

Watching by name needs no right to see any other Secret (RBAC: get, list and watch with resourceNames, or in
the clusters' namespaces).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import structlog

from mafalda_operator.effects.api import SECRETS, KubeApi, Object
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.errors import Forbidden, Gone, KubeError
from mafalda_operator.model import KeySecret, ObjectKey

WATCH_SECONDS = 300

ContentT = TypeVar("ContentT")

log = structlog.get_logger(__name__)


class WatchedSecrets(Generic[ContentT]):
    """Holds the newest content of each wanted Secret; ``on_change`` is called with its name.

    ``read`` makes the content of the object, or of None when there is no such Secret; ``what`` is its name in
    logs.
    """

    def __init__(
        self,
        api: KubeApi,
        read: Callable[[ObjectKey, Object | None], ContentT],
        on_change: Callable[[ObjectKey], None],
        *,
        what: str,
    ) -> None:
        self._api, self._read, self._on_change, self._what = api, read, on_change, what
        self._tasks: dict[ObjectKey, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._held: dict[ObjectKey, ContentT] = {}
        self._versions: dict[ObjectKey, int] = {}
        """As of which resource version each is held."""

    def get(self, secret: ObjectKey) -> ContentT | None:
        """None: not read yet."""
        return self._held.get(secret)

    def set_wanted(self, wanted: Iterable[ObjectKey]) -> None:
        """Watch exactly these."""
        names = set(wanted)
        for secret in self._tasks.keys() - names:
            self._end(secret)
        for secret in names - self._tasks.keys():
            self._start(secret)

    def put(self, secret: ObjectKey, obj: Object) -> None:
        """What the API server answered to our own write, unless the watch has said more since."""
        if secret in self._tasks and not self._is_old(secret, obj):
            self._take(secret, obj, _version(obj))

    async def close(self) -> None:
        self.set_wanted(())
        if self._ending:
            await asyncio.wait(self._ending)

    def _start(self, secret: ObjectKey) -> None:
        task = asyncio.create_task(self._keep(secret), name=f"{self._what} {secret}")
        task.add_done_callback(self._ended)
        self._tasks[secret] = task

    def _end(self, secret: ObjectKey) -> None:
        task = self._tasks.pop(secret)
        self._held.pop(secret, None)
        self._versions.pop(secret, None)
        task.cancel()
        self._ending.add(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("watching a Secret ended by a fault", what=self._what, exc_info=task.exception())

    async def _keep(self, secret: ObjectKey) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._read_and_watch(secret)
                backoff.reset()
            except Gone:
                continue
            except Forbidden as error:
                remedy = "allow get, list and watch of this Secret to the operator's account"
                log.error(f"may not read {self._what}", secret=str(secret), error=str(error), remedy=remedy)
                await asyncio.sleep(backoff.next(error))
            except KubeError as error:
                log.warning(f"cannot read {self._what} now", secret=str(secret), error=str(error))
                await asyncio.sleep(backoff.next(error))

    async def _read_and_watch(self, secret: ObjectKey) -> None:
        selector = f"metadata.name={secret.name}"
        listing = await self._api.list(SECRETS, secret.namespace, field_selector=selector)
        self._take(secret, listing.items[0] if listing.items else None, listing.resource_version)
        async for event in self._api.watch(
            SECRETS,
            secret.namespace,
            field_selector=selector,
            since=listing.resource_version,
            seconds=WATCH_SECONDS,
        ):
            if event.get("type") in ("ADDED", "MODIFIED", "DELETED"):
                obj = event["object"]
                # Our own write's answer may have come before the events that led there.
                if not self._is_old(secret, obj):
                    self._take(secret, obj if event["type"] != "DELETED" else None, _version(obj))

    def _is_old(self, secret: ObjectKey, obj: Object) -> bool:
        return 0 < _version(obj) < self._versions.get(secret, 0)

    def _take(self, secret: ObjectKey, obj: Object | None, version: int) -> None:
        self._versions[secret] = version
        content = self._read(secret, obj)
        if self._held.get(secret) != content:
            self._held[secret] = content
            self._on_change(secret)


class KeySecrets(WatchedSecrets[KeySecret]):
    """The Secrets that MediaClusters' key sets name. A rotated key reaches the media servers at once."""

    def __init__(self, api: KubeApi, on_change: Callable[[ObjectKey], None]) -> None:
        super().__init__(api, _read_keys, on_change, what="token keys")


def _version(obj: Object) -> int:
    """0: it does not say."""
    return int((obj.get("metadata") or {}).get("resourceVersion") or 0)


def _read_keys(secret: ObjectKey, obj: Object | None) -> KeySecret:
    return KeySecret({}, exists=False) if obj is None else KeySecret.read(_data(secret, obj))


def _data(secret: ObjectKey, obj: Object) -> dict[str, bytes]:
    data: dict[str, bytes] = {}
    for name, encoded in (obj.get("data") or {}).items():
        try:
            data[name] = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            log.error("token key is not base64", secret=str(secret), kid=name)
    return data
