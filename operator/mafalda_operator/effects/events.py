"""Kubernetes events: what happened to an object, for `kubectl describe`. Last in line, and dropped first."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from mafalda_operator.effects.api import BY_KIND, EVENTS, KubeApi, Object
from mafalda_operator.effects.errors import ApiRefused, ApiUnavailable, Forbidden
from mafalda_operator.effects.story import named
from mafalda_operator.effects.writers import Urgency, Writers
from mafalda_operator.planning.actions import EventNote

COMPONENT = "mafalda-operator"
MAX_WAITING = 2000
"""More than these are dropped and counted: events are a courtesy, statuses the truth."""
_REMEMBERED = 4096
_REPEAT_SECONDS = 60.0
"""The same words about the same object are told once in so long."""
_MAX_MESSAGE = 1024

log = structlog.get_logger(__name__)


class EventWriter:
    def __init__(
        self,
        api: KubeApi,
        writers: Writers,
        *,
        instance: str,
        clock: Callable[[], float],
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._writers, self._instance = api, writers, instance
        self._clock, self._wall, self._on_dropped = clock, wall, on_dropped
        self._waiting = 0
        self._told: OrderedDict[EventNote, float] = OrderedDict()

    def write(self, note: EventNote) -> None:
        """Write it when nothing more urgent waits. ``effects.story`` logs what it is about."""
        if self._just_told(note):
            return
        log.debug(f"event: {note.message}", reason=note.reason, **named(note.kind, note.key))
        if self._waiting >= MAX_WAITING:
            self._on_dropped()
            return
        self._waiting += 1
        body = self._body(note)
        self._writers.submit(Urgency.EVENT, lambda: self._write(note, body)).add_done_callback(self._done)

    def _done(self, future: asyncio.Future[None]) -> None:
        self._waiting -= 1
        if not future.cancelled():
            future.exception()  # was told where it came up, or nobody may write now

    async def _write(self, note: EventNote, body: Object) -> None:
        try:
            await self._api.create(EVENTS, note.key.namespace, body)
        except (ApiRefused, ApiUnavailable) as error:
            self._on_dropped()
            if isinstance(error, Forbidden) and error.namespace_terminating:
                return  # nobody can read it there either
            log.warning(
                "event not written", reason=note.reason, error=str(error), **named(note.kind, note.key)
            )

    def _just_told(self, note: EventNote) -> bool:
        now = self._clock()
        told = self._told.get(note)
        if told is not None and now - told < _REPEAT_SECONDS:
            return True
        self._told[note] = now
        self._told.move_to_end(note)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        return False

    def _body(self, note: EventNote) -> Object:
        now = self._wall().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "metadata": {"namespace": note.key.namespace, "name": f"{note.key.name}.{secrets.token_hex(8)}"},
            "involvedObject": {
                "apiVersion": BY_KIND[note.kind].api_version,
                "kind": note.kind,
                "namespace": note.key.namespace,
                "name": note.key.name,
                "uid": note.uid,
            },
            "type": note.type,
            "reason": note.reason,
            "message": note.message[:_MAX_MESSAGE],
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
