"""The tree of objects that mirrors the worker's: worker, routers, transports, producers and consumers.

What all of them share is here, once: ids, requests that end when the object closes, notifications, and the
close cascade.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any, ClassVar, Final, Self, TypeVar

from .channel import Channel
from .errors import (
    ChannelOverflowError,
    ClosedError,
    CloseReason,
    InvalidArgumentError,
    RequestTimeoutError,
)
from .events import ErrorHook, EventSlot
from .flatbuffer import Table
from .messages import MAX_MESSAGE, Body, Event, Method
from .types import AppData

T = TypeVar("T")
N = TypeVar("N", bound="Node")
Undo = tuple[Method, Table]


_MAX_PAYLOAD: Final = MAX_MESSAGE - 4096
"""Bytes of a payload that surely fit into one message."""


def new_id() -> str:
    """A random id for an object, as mediasoup's own: a version 4 UUID."""
    return str(uuid.uuid4())


class Node:
    """An object of the worker. It closes with its parents, and its children close with it.

    `on_close` comes once for each object, children first, with what was closed to begin with: CLOSED if
    it was the object itself, else which parent (`CloseReason`).
    """

    KIND: ClassVar[str]
    CHILDREN_REASON: ClassVar[CloseReason]
    """What this object's children see when `close()` is called on it."""

    on_close = EventSlot[CloseReason]()
    app_data: AppData
    """Whatever the application keeps with the object; it may be replaced."""

    def __init__(
        self,
        *,
        id: str,
        channel: Channel,
        hook: ErrorHook,
        parents: tuple[Node, ...] = (),
        app_data: AppData | None = None,
    ) -> None:
        self._id = id
        self._channel = channel
        self._hook = hook
        self._parents = parents
        self._children: dict[str, Node] = {}
        self._waiting: set[asyncio.Future[Any]] = set()
        self._close_reason: CloseReason | None = None
        self.app_data = {} if app_data is None else app_data
        for parent in parents:
            parent._children[id] = self
        channel.subscribe(id, self._on_notification)

    @property
    def closed(self) -> bool:
        return self._close_reason is not None

    @property
    def close_reason(self) -> CloseReason | None:
        """Why the object closed; None while it is open."""
        return self._close_reason

    def close(self) -> None:
        """Closes the object here and in the worker, with all its children. Idempotent, never raises."""
        self._close(CloseReason.CLOSED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f" closed ({self._close_reason.value})" if self._close_reason else ""
        return f"<{self._name}{state}>"

    @property
    def _name(self) -> str:
        """How error messages name the object."""
        return f"{self.KIND} {self._id}"

    def _close(self, reason: CloseReason) -> None:
        """The close cascade. Only the object that it begins at tells the worker, which has its own."""
        if self._close_reason is not None:
            return
        self._close_reason = reason
        self._channel.unsubscribe(self._id)
        for parent in self._parents:
            parent._children.pop(self._id, None)
        if reason is CloseReason.CLOSED:
            self._tell_worker()
        for future in self._waiting:
            if not future.done():
                future.set_exception(ClosedError(self._name, reason))
        inherited = self.CHILDREN_REASON if reason is CloseReason.CLOSED else reason
        for child in tuple(self._children.values()):
            child._close(inherited)
        self._closing(reason)
        self.on_close.emit(reason)

    def _tell_worker(self) -> None:
        """Sends the request that closes this object in the worker."""
        raise NotImplementedError

    def _closing(self, reason: CloseReason) -> None:
        """What the kind of object does besides when it closes; events of its own come from here."""

    def _on_notification(self, event: int, body: Body) -> None:
        """Handles what the worker says about this object; events of a newer worker are ignored."""

    def _announce(self) -> None:
        """Emits the events by which parents tell of a new child; runs once, when the child is complete."""

    def _check_open(self) -> None:
        if self._close_reason is not None:
            raise ClosedError(self._name, self._close_reason)

    async def _request(
        self,
        method: Method,
        body: Table | None = None,
        parse: Callable[[Body], T] | None = None,
        *,
        handler_id: str | None = None,
    ) -> T:
        """Asks the worker; fails at once with ClosedError if the object is or gets closed."""
        self._check_open()
        future = self._channel.request(method, self._id if handler_id is None else handler_id, body, parse)
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def _send(self, event: Event, body: Table, payload: bytes) -> None:
        """Sends a notification with a payload to the worker's object.

        Raises ClosedError, InvalidArgumentError for a payload that fits no message, and
        ChannelOverflowError when the worker has stopped reading.
        """
        self._check_open()
        check_payload(payload)
        if self._channel.congested:
            raise ChannelOverflowError(f"the worker has stopped reading; {event.name} was not sent")
        self._channel.notify(event, self._id, body)

    async def _create(
        self, method: Method, body: Table, build: Callable[[Body], N], *, child_id: str, undo: Undo
    ) -> N:
        """Asks the worker to make a child of this object.

        `build` makes ours from the answer at the moment that it arrives, so that no notification is
        missed. If the caller does not wait to the end, or the deadline passes, `undo` closes what the
        worker may have made.
        """

        def built(body: Body) -> N:
            child = build(body)
            child._announce()
            return child

        try:
            return await self._request(method, body, built)
        except (asyncio.CancelledError, RequestTimeoutError):
            if child_id in self._children:
                self._children[child_id].close()
            elif not self.closed:
                self._channel.post(undo[0], self._id, undo[1])
            raise


def check_payload(payload: bytes) -> None:
    """Raises InvalidArgumentError for what fits into no message to the worker."""
    if len(payload) > _MAX_PAYLOAD:
        raise InvalidArgumentError(f"{len(payload)} bytes are too many; a message holds {_MAX_PAYLOAD}")
