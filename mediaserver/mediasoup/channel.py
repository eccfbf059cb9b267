"""Channel: requests to one worker and their answers, its notifications and its log lines.

It alone owns framing, request ids and pending requests. Guarantees:

- every request ends: with the worker's answer, at its deadline, or when the channel closes;
- answers and notifications take effect in the order in which the worker sent them. An answer's `parse` runs
  before any later message is looked at; whoever awaits the request runs before later notifications are
  handed out;
- a message that can't be read closes the channel with a MalformedMessageError naming it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from .errors import (
    ChannelClosedError,
    ChannelOverflowError,
    InvalidArgumentError,
    MalformedMessageError,
    MediasoupError,
    RequestRejectedError,
    RequestTimeoutError,
)
from .flatbuffer import READ_ERRORS, Table
from .framing import FrameError, FrameReader, FrameWriter
from .messages import (
    NO_BODY,
    Body,
    Event,
    Log,
    Method,
    Notification,
    Response,
    decode,
    encode_notification,
    encode_request,
    plain_answer,
)

T = TypeVar("T")
NotificationHandler = Callable[[int, Body], None]

DEFAULT_TIMEOUT: Final = 10.0
_LAST_ID: Final = 0xFFFFFFFF
_LAST_WORDS: Final = 0.2
"""Seconds by which the worker's own stream may outlive ours to it."""

logger = logging.getLogger("mediaserver.mediasoup")
worker_logger = logging.getLogger("mediaserver.mediasoup.worker")
_LOG_LEVELS: Final = {"D": logging.DEBUG, "W": logging.WARNING, "E": logging.ERROR, "X": logging.INFO}


class _Pending(msgspec.Struct):
    """A request that waits for its answer; without a future nobody wants to know it."""

    method: int
    handler_id: str
    seconds: float
    deadline: float
    future: asyncio.Future[Any] | None
    parse: Callable[[Body], Any] | None


class Channel:
    """The connection to one worker, over two stream sockets that it owns; `start` opens it.

    `timeout` is the deadline, in seconds, of a request that states none.
    """

    def __init__(
        self,
        *,
        outgoing: socket.socket,
        incoming: socket.socket,
        name: str,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.timeout = timeout
        self._name = name
        self._sockets = (incoming, outgoing)
        self._loop = asyncio.get_running_loop()
        self.broken: asyncio.Future[MediasoupError] = self._loop.create_future()
        """Gets the reason when the channel ends by anything but `close`; the owner then calls that."""
        self._closed: MediasoupError | None = None
        self._pending: dict[int, _Pending] = {}
        self._handlers: dict[str, NotificationHandler] = {}
        self._last_id = 0
        self._received = 0
        self._batch: list[Notification] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reader = FrameReader(self._on_message, self._on_frame_error, self._on_end)
        self._writer = FrameWriter(outgoing, self._on_write_end)

    async def start(self) -> None:
        """Begins to read and write; closes the sockets if that fails."""
        incoming, outgoing = self._sockets
        try:
            await self._loop.create_unix_connection(lambda: self._reader, sock=incoming)
            await self._loop.create_unix_connection(lambda: self._writer, sock=outgoing)
        except BaseException:
            incoming.close()
            outgoing.close()
            raise

    @property
    def closed(self) -> bool:
        return self._closed is not None

    @property
    def pending_requests(self) -> int:
        """Requests sent and not answered yet."""
        return len(self._pending)

    @property
    def congested(self) -> bool:
        """Whether more waits to be sent than the worker may fall behind by."""
        return self._writer.congested

    def subscribe(self, handler_id: str, handler: NotificationHandler) -> None:
        """Sends the notifications about the object `handler_id` to `handler` from now on."""
        self._handlers[handler_id] = handler

    def unsubscribe(self, handler_id: str) -> None:
        self._handlers.pop(handler_id, None)

    def request(
        self,
        method: Method,
        handler_id: str = "",
        body: Table | None = None,
        parse: Callable[[Body], T] | None = None,
        *,
        timeout: float | None = None,
    ) -> asyncio.Future[T]:
        """Sends a request; the future gets what `parse` makes of the answer's body (without it, None).

        It fails with RequestRejectedError, RequestTimeoutError, or what the channel was closed with.
        Raises ChannelClosedError (or WorkerDiedError) and ChannelOverflowError at once.
        """
        if self._writer.congested:
            raise ChannelOverflowError(f"{self._name} has stopped reading; {method.name} was not sent")
        future: asyncio.Future[T] = self._loop.create_future()
        self._send(method, handler_id, body, future, parse, timeout or self.timeout)
        return future

    def post(self, method: Method, handler_id: str, body: Table | None) -> None:
        """Sends a request whose answer nobody waits for; a refusal is logged. Does nothing when closed."""
        if self._closed is None:
            self._send(method, handler_id, body, None, None, self.timeout)

    def notify(self, event: Event, handler_id: str = "", body: Table | None = None) -> None:
        """Sends a notification to the worker. Does nothing when closed."""
        if self._closed is None:
            self._writer.write(encode_notification(event, handler_id, body))

    def close(self, error: MediasoupError | None = None) -> None:
        """Ends the channel, after sending what waits; pending requests fail with `error`. Idempotent."""
        if self._closed is not None:
            return
        self._closed = error or ChannelClosedError(f"the channel to {self._name} is closed")
        self._reader.close()
        self._writer.close()
        if self._timer is not None:
            self._timer.cancel()
        pending, self._pending = self._pending, {}
        for request in pending.values():
            if request.future is not None and not request.future.done():
                request.future.set_exception(self._closed)
        self._handlers.clear()

    def _send(
        self,
        method: Method,
        handler_id: str,
        body: Table | None,
        future: asyncio.Future[T] | None,
        parse: Callable[[Body], T] | None,
        seconds: float,
    ) -> None:
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        number = self._last_id = self._last_id + 1 if self._last_id < _LAST_ID else 1
        try:
            message = encode_request(number, method, handler_id, body)
        except (struct.error, UnicodeEncodeError) as error:
            raise InvalidArgumentError(f"an argument of {method.name} is out of range: {error}") from error
        if self._pending:
            self._writer.write(message)
        else:
            self._writer.write_now(message)  # nothing else may come in this turn of the loop
        deadline = self._loop.time() + seconds
        self._pending[number] = _Pending(method, handler_id, seconds, deadline, future, parse)
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._expire)
        elif deadline < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Fails what is overdue. One timer serves all requests, since most have the same deadline."""
        now = self._loop.time()
        for number in [n for n, request in self._pending.items() if request.deadline <= now]:
            request = self._pending.pop(number)
            method = Method(request.method).name
            if request.future is None:
                logger.warning("%s did not answer %s within %g s", self._name, method, request.seconds)
            elif not request.future.done():
                request.future.set_exception(
                    RequestTimeoutError(method=method, handler_id=request.handler_id, seconds=request.seconds)
                )
        nearest = min((request.deadline for request in self._pending.values()), default=None)
        self._timer = None if nearest is None else self._loop.call_at(nearest, self._expire)

    def _on_message(self, data: bytes) -> None:
        self._received += 1
        number = plain_answer(data)
        if number:
            self._batch = None
            self._on_plain_answer(number)
            return
        try:
            message = decode(data)
        except READ_ERRORS as error:
            self._break(MalformedMessageError(index=self._received, problem=str(error)), error)
            return
        if isinstance(message, Response):
            self._batch = None
            self._on_response(message)
        elif isinstance(message, Notification):
            if self._batch is None:
                self._batch = []
                self._loop.call_soon(self._hand_out, self._batch)
            message.index = self._received
            self._batch.append(message)
        else:
            self._on_log(message)

    def _on_plain_answer(self, number: int) -> None:
        request = self._pending.get(number)
        if request is None or request.parse is not None or request.future is None:
            self._on_response(Response(number, True, NO_BODY, "", ""))
            return
        del self._pending[number]
        if not request.future.done():
            request.future.set_result(None)

    def _on_response(self, response: Response) -> None:
        request = self._pending.pop(response.id, None)
        if request is None:
            if not 0 < response.id <= self._last_id:
                self._break(
                    MalformedMessageError(
                        index=self._received,
                        problem=f"it answers request {response.id}, which was never sent",
                    )
                )
            return  # its deadline has passed
        if request.future is None:
            if not response.accepted:
                logger.debug("%s refused %s: %s", self._name, Method(request.method).name, response.reason)
        elif not request.future.done():
            self._settle(request, response, request.future)

    def _settle(self, request: _Pending, response: Response, future: asyncio.Future[Any]) -> None:
        if not response.accepted:
            future.set_exception(
                RequestRejectedError(
                    method=Method(request.method).name,
                    handler_id=request.handler_id,
                    error=response.error or "Error",
                    reason=response.reason,
                )
            )
            return
        try:
            result = None if request.parse is None else request.parse(response.body)
        except READ_ERRORS as error:
            problem = f"it answers {Method(request.method).name}, but {error}"
            malformed = MalformedMessageError(index=self._received, problem=problem)
            future.set_exception(malformed)
            self._break(malformed, error)
        else:
            if not future.done():  # else a handler of what `parse` made closed what asked for it
                future.set_result(result)

    def _hand_out(self, batch: list[Notification]) -> None:
        if self._batch is batch:
            self._batch = None
        for notification in batch:
            handler = self._handlers.get(notification.handler_id)
            if handler is None:
                continue  # its object has just been closed
            try:
                handler(notification.event, notification.body)
            except READ_ERRORS as error:
                name = _event_name(notification.event)
                problem = f"it is the notification {name}, but {error}"
                self._break(MalformedMessageError(index=notification.index, problem=problem), error)
                return

    def _on_log(self, log: Log) -> None:
        level = _LOG_LEVELS.get(log.text[:1], logging.INFO)
        worker_logger.log(level, "[%s] %s", self._name, log.text[1:])

    def _on_frame_error(self, error: FrameError) -> None:
        self._break(MalformedMessageError(index=self._received + 1, problem=str(error)), error)

    def _on_end(self, error: Exception | None) -> None:
        self._break(ChannelClosedError(f"the channel to {self._name} was closed by the other side"), error)

    def _on_write_end(self, error: Exception | None) -> None:
        # What the worker said last may still lie unread on the other stream, which mostly ends as well.
        if self._closed is None:
            self._loop.call_later(_LAST_WORDS, self._on_end, error)

    def _break(self, error: MediasoupError, cause: Exception | None = None) -> None:
        """Tells the owner, once, that the channel is of no use any more."""
        error.__cause__ = cause
        if self._closed is None and not self.broken.done():
            self._reader.stop()
            self.broken.set_result(error)


def _event_name(event: int) -> str:
    try:
        return Event(event).name
    except ValueError:
        return f"number {event}"


__all__ = ["DEFAULT_TIMEOUT", "Body", "Channel", "Event", "Method"]
