"""The participant's end of protoo: requests both ways over one WebSocket."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientError, ClientSession, ClientWebSocketResponse, ClientWSTimeout, WSMsgType
from yarl import URL

from mafalda_operator.cli.participant.errors import ParticipantError, RequestFailed

SUBPROTOCOL = "protoo"
DIAL_TIMEOUT = 5.0
"""Seconds for TCP, TLS and the upgrade together."""
REQUEST_TIMEOUT = 10.0
PING_INTERVAL = 10.0
CLOSE_TIMEOUT = 2.0
_INBOX = 1024
"""Requests and notifications of the server that may wait for their turn."""

OnRequest = Callable[[str, dict[str, Any]], Awaitable[None]]
OnNotification = Callable[[str, dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class Closed:
    """How the socket closed: the close frame's code (None without one) and reason."""

    code: int | None
    reason: str


class Signalling:
    """A dialled socket. Requests and notifications of the server are handled in order, one at a time."""

    def __init__(
        self, socket: ClientWebSocketResponse, on_request: OnRequest, on_notification: OnNotification
    ) -> None:
        self._socket = socket
        self._on_request = on_request
        self._on_notification = on_notification
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_INBOX)

    @staticmethod
    async def dial(http: ClientSession, url: URL) -> ClientWebSocketResponse:
        """The upgraded socket. Raises RequestFailed when nobody answers, or not with an upgrade."""
        where = url.with_query(None)
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                return await http.ws_connect(
                    url,
                    protocols=(SUBPROTOCOL,),
                    heartbeat=PING_INTERVAL,
                    max_msg_size=4 * 2**20,
                    timeout=ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
                )
        except (ClientError, OSError, TimeoutError) as error:
            raise RequestFailed("dial", f"{where}: {str(error) or type(error).__name__}") from error

    async def request(self, method: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """The server's answer. Raises RequestFailed for an error, silence, or a closed socket."""
        request_id = next(self._ids)
        pending: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[request_id] = pending
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                await self._send({"request": True, "id": request_id, "method": method, "data": data or {}})
                answer = await pending
        except TimeoutError as error:
            raise RequestFailed(method, f"no answer within {REQUEST_TIMEOUT:g} s") from error
        except OSError as error:
            raise RequestFailed(method, f"connection lost: {error}") from error
        finally:
            self._pending.pop(request_id, None)
        if not answer.get("ok"):
            raise RequestFailed(method, str(answer.get("errorReason", "refused")), answer.get("errorCode"))
        data = answer.get("data")
        return data if isinstance(data, dict) else {"data": data}

    async def run(self) -> Closed:
        """Serves the socket until it closes; leaves no task behind."""
        reader, handler = asyncio.create_task(self._read()), asyncio.create_task(self._handle())
        try:
            await asyncio.wait((reader, handler), return_when=asyncio.FIRST_COMPLETED)
            return reader.result() if reader.done() else handler.result()
        finally:
            reader.cancel()
            handler.cancel()
            await asyncio.wait((reader, handler))
            for pending in self._pending.values():
                if not pending.done():
                    pending.set_exception(RequestFailed("request", "the connection closed"))
            await self._socket.close()

    async def close(self) -> None:
        """Says goodbye (1000)."""
        await self._socket.close()

    async def _read(self) -> Closed:
        while True:
            message = await self._socket.receive()
            if message.type is WSMsgType.TEXT:
                if (fault := self._take(message.data)) is not None:
                    return Closed(None, fault)
            elif message.type is WSMsgType.CLOSE:
                return Closed(message.data, message.extra or "")
            elif message.type in (WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                return Closed(None, "connection lost")

    def _take(self, text: str) -> str | None:
        """Sorts a frame in; returns what is wrong with it, if anything."""
        try:
            frame = json.loads(text)
        except ValueError as error:
            return f"the server sent garbage: {error}"
        if not isinstance(frame, dict):
            return "the server sent garbage: no object"
        if frame.get("response"):
            self._take_answer(frame)
            return None
        try:
            self._inbox.put_nowait(frame)
        except asyncio.QueueFull:
            return f"the server sent more than {_INBOX} messages at once"
        return None

    def _take_answer(self, frame: dict[str, Any]) -> None:
        pending = self._pending.get(frame.get("id", -1))
        if pending is not None and not pending.done():
            pending.set_result(frame)

    async def _handle(self) -> Closed:
        while True:
            frame = await self._inbox.get()
            method, data = str(frame.get("method")), frame.get("data") or {}
            if not frame.get("request"):
                await self._on_notification(method, data)
                continue
            answer: dict[str, Any] = {"response": True, "id": frame.get("id"), "ok": True, "data": {}}
            try:
                await self._on_request(method, data)
            except ParticipantError as error:
                answer |= {"ok": False, "errorCode": 500, "errorReason": str(error)}
            try:
                await self._send(answer)
            except OSError as error:
                return Closed(None, f"connection lost: {error}")

    async def _send(self, frame: dict[str, Any]) -> None:
        await self._socket.send_str(json.dumps(frame))
