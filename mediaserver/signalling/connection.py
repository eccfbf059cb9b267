"""One participant's WebSocket: reading, writing, requests of either side, and every way it can end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp import WSCloseCode, WSMsgType, web

from mediaserver.signalling import protoo
from mediaserver.signalling.errors import (
    INTERNAL,
    TOO_MANY,
    FrameError,
    Refused,
    Rejected,
    SignallingLost,
)
from mediaserver.signalling.settings import SignallingSettings
from mediaserver.wire.close_codes import DIAL_AGAIN, ENDED, clip_reason

log = structlog.get_logger(__name__)

Answer = Callable[[protoo.Request], Awaitable[Any]]
"""Carries out a participant's request; returns what can be encoded, or raises Refused."""

_GOODBYES = frozenset({0, 1000, 1001, 1005})
"""Close codes of a participant that leaves on purpose; 0 and 1005 stand for a close frame without code."""


@dataclass(frozen=True)
class Ending:
    """How a connection ended. `code` is what we closed it with, None when the other side ended it."""

    code: int | None
    reason: str
    lost: bool = False
    """Without a goodbye of either side, so the participant may come back."""


class Connection:
    """Speaks protoo with one participant. Owned by whoever awaits `run`.

    Requests of the participant are carried out one after the other, in order; answers to ours are taken in
    between, so that a participant may ask for something before it answers.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        answer: Answer,
        settings: SignallingSettings,
        abort: Callable[[], None],
    ) -> None:
        """`abort` cuts the connection without flushing it."""
        self._socket = socket
        self._answer = answer
        self._settings = settings
        self._abort = abort
        self._outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        self._requests: asyncio.Queue[protoo.Request | None] = asyncio.Queue(settings.max_requests + 1)
        self._pending: dict[int, asyncio.Future[protoo.Response]] = {}
        self._ids = itertools.count(1)
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @property
    def closed(self) -> bool:
        """Whether the connection has ended, or is about to; nothing is sent any more."""
        return self._ended.done()

    def notify(self, method: str, data: Any) -> None:
        """Queues a notification; one that can't be sent any more is dropped."""
        self._send(protoo.encode_notification(method, data))

    async def request(self, method: str, data: Any) -> None:
        """Asks the participant and waits for its consent.

        Raises Rejected when it answers with an error, SignallingLost when it does not answer in time or
        the connection ends.
        """
        if self.closed:
            raise SignallingLost(f"{method}: the connection is closed")
        request_id = next(self._ids)
        pending: asyncio.Future[protoo.Response] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = pending
        self._send(protoo.encode_request(request_id, method, data))
        try:
            async with asyncio.timeout(self._settings.answer_timeout):
                response = await pending
        except TimeoutError as error:
            seconds = self._settings.answer_timeout
            raise SignallingLost(f"no answer to {method} within {seconds:g} s") from error
        finally:
            self._pending.pop(request_id, None)
        if not response.ok:
            raise Rejected(response.error_code, response.error_reason or f"{method} rejected")

    def end(self, code: int, reason: str) -> None:
        """Begins to close the connection; what is queued is sent first. The first ending counts."""
        self._finish(Ending(code, reason))

    async def run(self) -> Ending:
        """Serves the participant until the connection ends; leaves no task behind."""
        reader = asyncio.create_task(self._read())
        writer = asyncio.create_task(self._write())
        worker = asyncio.create_task(self._work())
        try:
            ending = await asyncio.shield(self._ended)
        except asyncio.CancelledError:
            self._finish(Ending(DIAL_AGAIN, "server stops"))
            raise
        finally:
            await self._close(reader, writer, worker)
        return ending

    # -- ending ------------------------------------------------------------------------------------------

    def _finish(self, ending: Ending) -> None:
        if not self._ended.done():
            self._ended.set_result(ending)
            self._outgoing.put_nowait(None)

    async def _close(
        self, reader: asyncio.Task[None], writer: asyncio.Task[None], worker: asyncio.Task[None]
    ) -> None:
        ending = self._ended.result()
        for pending in self._pending.values():
            if not pending.done():
                pending.set_exception(SignallingLost(ending.reason))
        await _cancelled(reader)
        try:
            async with asyncio.timeout(self._settings.close_timeout):
                await writer
                if ending.code is not None and not self._socket.closed:
                    await self._socket.close(code=ending.code, message=clip_reason(ending.reason))
        except (TimeoutError, OSError):
            log.debug("participant does not take its close frame", reason=ending.reason)
            self._abort()
        finally:
            await _cancelled(writer)
            # Never cancelled: a request that is under way may be making an object on the worker, which
            # must be seen to its end to be freed. It has its own deadlines.
            with contextlib.suppress(asyncio.QueueFull):
                self._requests.put_nowait(None)
            await worker

    # -- tasks -------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while not self.closed:
                message = await self._socket.receive()
                if message.type is WSMsgType.TEXT:
                    self._take(message.data)
                elif message.type is WSMsgType.BINARY:
                    self.end(ENDED, "malformed message: protoo frames are text, not binary")
                else:
                    self._finish(self._ending_of(message.type, message.data))
        finally:
            self._finish(Ending(None, "connection lost", lost=True))

    def _ending_of(self, kind: WSMsgType, data: Any) -> Ending:
        if kind is WSMsgType.CLOSE:
            return Ending(None, f"participant closed ({data})", lost=data not in _GOODBYES)
        if kind is WSMsgType.ERROR and self._socket.close_code == WSCloseCode.MESSAGE_TOO_BIG:
            return Ending(None, f"message of more than {self._settings.max_message_bytes} bytes")
        return Ending(None, "connection lost", lost=True)

    def _take(self, text: str) -> None:
        try:
            frame = protoo.decode(text)
        except FrameError as error:
            self.end(ENDED, str(error))
            return
        if isinstance(frame, protoo.Request):
            if self._requests.qsize() >= self._settings.max_requests:
                self._send(protoo.encode_failure(frame.id, TOO_MANY, "too many requests wait; slow down"))
            else:
                self._requests.put_nowait(frame)
        elif isinstance(frame, protoo.Response):
            pending = self._pending.get(frame.id)
            if pending is not None and not pending.done():
                pending.set_result(frame)
            else:
                log.debug("answer to no request", id=frame.id)
        else:
            log.debug("notification ignored", method=frame.method[:64])

    async def _work(self) -> None:
        while (request := await self._requests.get()) is not None:
            if self.closed:
                return
            self._send(await self._answered(request))

    async def _answered(self, request: protoo.Request) -> str:
        try:
            return protoo.encode_success(request.id, await self._answer(request))
        except Refused as refused:
            return protoo.encode_failure(request.id, refused.code, refused.reason)
        except Exception:  # a fault of ours: told to the participant, logged with its traceback
            log.exception("request failed", method=request.method[:64])
            return protoo.encode_failure(request.id, INTERNAL, f"{request.method[:64]}: internal error")

    async def _write(self) -> None:
        while (text := await self._outgoing.get()) is not None:
            try:
                await self._socket.send_str(text)
            except OSError:
                self._finish(Ending(None, "connection lost", lost=True))
                return

    def _send(self, text: str) -> None:
        if self.closed:
            return
        if self._outgoing.qsize() >= self._settings.max_outgoing:
            while not self._outgoing.empty():
                self._outgoing.get_nowait()
            self.end(DIAL_AGAIN, f"you do not read: {self._settings.max_outgoing} messages wait for you")
            return
        self._outgoing.put_nowait(text)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("signalling task failed", exc_info=error)
