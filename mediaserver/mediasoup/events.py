"""Typed events: one attribute for each event, so that a misspelt one is a type error."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

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
