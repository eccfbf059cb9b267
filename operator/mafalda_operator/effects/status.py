"""Statuses: the newest of each object, written when it differs from what is stored; the loop never waits.

A status that waits is replaced by a newer one, so an object that changes quickly costs few writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from mafalda_operator.effects.api import BY_KIND, KubeApi, Object
from mafalda_operator.effects.backoff import Backoff
from mafalda_operator.effects.errors import ApiRefused, ApiUnavailable, Conflict, Invalid, KubeError, NotFound
from mafalda_operator.effects.story import named
from mafalda_operator.effects.writers import Urgency, Writers
from mafalda_operator.model import ObjectKey
from mafalda_operator.planning.actions import StatusUpdate

log = structlog.get_logger(__name__)

Target = tuple[str, ObjectKey]
"""Kind and name."""

_URGENCY = {"MediaSession": Urgency.SESSION_STATUS, "MediaRouter": Urgency.ROUTER_STATUS}


class Stored(Protocol):
    """What the writer needs of the store."""

    def status(self, kind: str, key: ObjectKey, uid: str) -> Mapping[str, Any] | None:
        """The stored status of that very object; None when it is gone."""

    def put(self, kind: str, obj: Object) -> None: ...


@dataclass
class _Object:
    """One object's status on its way."""

    update: StatusUpdate | None = None
    due: float = 0.0
    timer: asyncio.TimerHandle | None = None
    queued: bool = False
    urgent: bool = False
    """Queued with nothing left of its patience to wait for."""
    running: bool = False
    overtaken: bool = False
    """The plan has changed its mind while the write was under way."""
    backoff: Backoff = field(default_factory=Backoff)


class StatusWriter:
    """``on_overtaken`` hears of objects whose written status the last plan no longer wants."""

    def __init__(
        self, api: KubeApi, writers: Writers, stored: Stored, on_overtaken: Callable[[str, ObjectKey], None]
    ) -> None:
        self._api, self._writers, self._stored = api, writers, stored
        self._on_overtaken = on_overtaken
        self._objects: dict[Target, _Object] = {}

    @property
    def pending(self) -> Iterable[Target]:
        return self._objects.keys()

    def write(self, update: StatusUpdate) -> None:
        """Write it, at once or within its patience; the latest call for an object counts."""
        target = (update.kind, update.key)
        state = self._objects.setdefault(target, _Object())
        state.update, state.overtaken = update, False
        self._schedule(target, state, update.patience)

    def withdraw(self, kind: str, key: ObjectKey) -> None:
        """What is stored is what is wanted: drop what waits, and look again at what is being written."""
        target = (kind, key)
        state = self._objects.get(target)
        if state is None:
            return
        state.update = None
        if state.running:
            state.overtaken = True
        else:
            self._forget(target, state)

    def close(self) -> None:
        """Drop what waits."""
        for target, state in list(self._objects.items()):
            self._forget(target, state)

    # -- steps ------------------------------------------------------------------------------------------

    def _schedule(self, target: Target, state: _Object, patience: float) -> None:
        if state.running or (state.queued and (patience > 0 or state.urgent)):
            return  # the writer looks at ``update`` when its turn comes, and again at its end
        loop = asyncio.get_running_loop()
        due = loop.time() + patience
        if state.timer is not None:
            if state.due <= due:
                return
            state.timer.cancel()
            state.timer = None
        if patience <= 0:
            self._enqueue(target, state)
            return
        state.due = due
        state.timer = loop.call_at(due, self._enqueue, target, state)

    def _enqueue(self, target: Target, state: _Object) -> None:
        state.timer, state.queued = None, True
        state.urgent = state.update is not None and state.update.patience <= 0
        urgency = _URGENCY.get(target[0], Urgency.STATUS)
        if not state.urgent:
            urgency = Urgency.ROUTER_STATUS  # it may yet be replaced by one that is waited for
        future = self._writers.submit(urgency, lambda: self._write(target, state))
        future.add_done_callback(lambda done: self._after_job(target, state, done))

    def _after_job(self, target: Target, state: _Object, done: asyncio.Future[None]) -> None:
        """A job that the writers did not even begin, for nobody may write now, is tried again later."""
        _note_fault(done)
        if not state.queued or done.cancelled() or self._objects.get(target) is not state:
            return
        if isinstance(done.exception(), ApiUnavailable):
            state.queued = False
            self._schedule(target, state, state.backoff.next())

    async def _write(self, target: Target, state: _Object) -> None:
        state.queued, update = False, state.update
        if update is None or state.running:
            return  # withdrawn; or another writer has this object, and looks again at its end
        state.update, state.running = None, True
        try:
            await self._patch(update)
            state.backoff.reset()
        except (NotFound, Conflict, Invalid) as error:
            self._note_refused(update, error)
        except (ApiUnavailable, ApiRefused) as error:
            self._retry(state, update, error)
        finally:
            state.running = False
        self._after(target, state)

    def _after(self, target: Target, state: _Object) -> None:
        if state.update is not None:
            patience = state.backoff.next() if state.backoff.failures else state.update.patience
            self._schedule(target, state, patience)
            return
        self._forget(target, state)
        if state.overtaken:
            self._on_overtaken(*target)

    def _retry(self, state: _Object, update: StatusUpdate, error: KubeError) -> None:
        log.warning("status not written", error=str(error), **named(update.kind, update.key))
        state.backoff.failures += 1
        if state.update is None and not state.overtaken:
            state.update = update

    def _note_refused(self, update: StatusUpdate, error: ApiRefused) -> None:
        """Gone or made anew meanwhile, as the watch will tell; or a status that the schema refuses."""
        stored = self._stored.status(update.kind, update.key, update.uid)
        if isinstance(error, Invalid) and stored is not None:
            log.error("status refused", error=str(error), **named(update.kind, update.key))

    async def _patch(self, update: StatusUpdate) -> None:
        stored = self._stored.status(update.kind, update.key, update.uid)
        if stored is None:
            return
        changes = merge_patch(stored, update.status)
        if not changes:
            return
        resource = BY_KIND[update.kind]
        body = {"metadata": {"uid": update.uid}, "status": changes}
        answer = await self._api.patch(
            resource, update.key.namespace, update.key.name, body, subresource="status"
        )
        self._stored.put(update.kind, answer)

    def _forget(self, target: Target, state: _Object) -> None:
        if state.timer is not None:
            state.timer.cancel()
            state.timer = None
        state.update = None
        if self._objects.get(target) is state:
            del self._objects[target]


def _note_fault(future: asyncio.Future[None]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None and not isinstance(error, ApiUnavailable):
        log.error("a status write failed by a fault of its own", exc_info=future.exception())


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7396) that turns ``old`` into ``new``; lists are replaced whole."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif key not in old or _plain(before) != _plain(value):
            patch[key] = value
    return patch


def _plain(value: Any) -> Any:
    """Tuples as lists, at every depth: what JSON makes of them."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
