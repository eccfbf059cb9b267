"""What one side of a connection answers to: methods by name, their parameters as msgspec structs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
import structlog

from mediaserver.wire import frames
from mediaserver.wire.errors import ProtocolError

ParamsT = TypeVar("ParamsT", bound=msgspec.Struct)
Handler = Callable[[ParamsT], Awaitable[msgspec.Struct | None]]
NotificationHandler = Callable[[ParamsT], None]

log = structlog.get_logger()


class RpcFailure(Exception):  # noqa: N818  an answer, not a fault of this side
    """Raised by a handler to answer a request with an error.

    With ``close`` the connection is closed after the answer, ``message`` being the reason.
    """

    def __init__(self, code: int, message: str, data: Any = None, *, close: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.close = close


class Methods:
    """The handlers of one side. May be shared by connections if the handlers are."""

    def __init__(self) -> None:
        self._requests: dict[str, tuple[msgspec.json.Decoder[Any], Handler[Any]]] = {}
        self._notifications: dict[str, tuple[msgspec.json.Decoder[Any], NotificationHandler[Any]]] = {}

    def on(self, name: str, params: type[ParamsT], handler: Handler[ParamsT]) -> None:
        """Answer requests ``name`` with what ``handler`` returns, None being an empty object."""
        self._requests[name] = msgspec.json.Decoder(params), handler

    def on_notification(
        self, name: str, params: type[ParamsT], handler: NotificationHandler[ParamsT]
    ) -> None:
        """Give notifications ``name`` to ``handler``, in the order in which they come.

        ProtocolError from the handler closes the connection; any other exception is logged.
        """
        self._notifications[name] = msgspec.json.Decoder(params), handler

    async def answer(self, request: frames.Request) -> msgspec.Struct | None:
        """Handle a request. Raises RpcFailure; whatever else a handler raises is passed on."""
        found = self._requests.get(request.method)
        if found is None:
            raise RpcFailure(frames.METHOD_NOT_FOUND, f"no method {request.method}")
        decoder, handler = found
        try:
            params = decoder.decode(request.params)
        except msgspec.DecodeError as error:
            raise RpcFailure(frames.INVALID_PARAMS, f"params of {request.method}: {error}") from error
        return await handler(params)

    def notified(self, notification: frames.Notification) -> None:
        """Handle a notification; unknown ones are ignored. Raises ProtocolError."""
        found = self._notifications.get(notification.method)
        if found is None:
            return
        decoder, handler = found
        try:
            params = decoder.decode(notification.params)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"params of {notification.method}: {error}") from error
        try:
            handler(params)
        except ProtocolError:
            raise
        except Exception:  # one bad notification must not end the connection
            log.exception("a notification could not be handled", method=notification.method)
