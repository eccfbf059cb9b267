"""Typed events: one attribute for each event, so that a misspelt one is a type error."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, overload

T = TypeVar("T")

Handler = Callable[[T], None]
ErrorHook = Callable[[str, BaseException], None]
"""Gets the event's name and what a handler raised."""

logger = logging.getLogger("mediaserver.mediasoup")


def log_handler_error(event: str, error: BaseException) -> None:
    """The default error hook: logs the exception with its traceback."""
    logger.error("a handler of %s failed", event, exc_info=error)


class Event(Generic[T]):
    """One kind of happening; handlers are plain functions, called at once and in order of subscription.

    A handler that raises is reported to the error hook; the other handlers still run, and whoever emits
    the event never sees the exception. Subscribing and unsubscribing within a handler is allowed: a
    handler added during an emission is first called by the next one, a removed one is not called again.
    """

    __slots__ = ("_handlers", "_hook", "name")

    def __init__(self, name: str, hook: ErrorHook = log_handler_error) -> None:
        self.name = name
        self._hook = hook
        self._handlers: dict[object, Handler[T]] | None = None

    def subscribe(self, handler: Handler[T]) -> Callable[[], None]:
        """Calls `handler` with every value from now on; returns a function that ends this (idempotent)."""
        key = object()
        if self._handlers is None:
            self._handlers = {}
        handlers = self._handlers
        handlers[key] = handler

        def unsubscribe() -> None:
            handlers.pop(key, None)

        return unsubscribe

    def once(self, handler: Handler[T]) -> Callable[[], None]:
        """Like `subscribe`, for the next value only."""

        def first(value: T) -> None:
            unsubscribe()
            handler(value)

        unsubscribe = self.subscribe(first)
        return unsubscribe

    async def wait(self, timeout: float) -> T:
        """The next value. Raises TimeoutError without one within `timeout` seconds."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        unsubscribe = self.subscribe(lambda value: None if future.done() else future.set_result(value))
        try:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the value.
            async with asyncio.timeout(timeout):
                return await future
        finally:
            unsubscribe()

    def emit(self, value: T) -> None:
        """Calls the handlers. For the owner of the event."""
        if not self._handlers:
            return
        for key, handler in tuple(self._handlers.items()):
            if key not in self._handlers:
                continue
            try:
                handler(value)
            except Exception as error:  # noqa: BLE001 - handed to the hook, which is the point
                self._hook(self.name, error)

    def __repr__(self) -> str:
        return f"<Event {self.name}, {len(self._handlers or ())} handlers>"


class Emitter(Protocol):
    """What has events: an object with a kind, for their names, and the hook for failing handlers."""

    KIND: ClassVar[str]
    _hook: ErrorHook
    __dict__: dict[str, Any]


class EventSlot(Generic[T]):
    """Declares an event in a class body; the Event itself is made when somebody first looks at it.

    Most events of most objects never get a handler, so those cost nothing.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def emit(self, obj: Emitter, value: T) -> None:
        """Emits the event of `obj`, which is not made for that: without it there are no handlers."""
        event: Event[T] | None = obj.__dict__.get(self._name)
        if event is not None:
            event.emit(value)

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: Emitter, owner: type) -> Event[T]: ...
    def __get__(self, obj: Emitter | None, owner: type) -> Self | Event[T]:
        if obj is None:
            return self
        event: Event[T] = Event(f"{obj.KIND}.{self._name}", obj._hook)
        obj.__dict__[self._name] = event  # found there from now on, before this descriptor
        return event
