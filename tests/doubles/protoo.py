"""A participant that speaks protoo by hand: for tests that send what a proper client never would."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from aiohttp import ClientWebSocketResponse, WSMsgType

DEADLINE = 5.0

JOIN = {"displayName": "", "device": {"name": "test"}}
RECEIVER = {**JOIN, "rtpCapabilities": {"codecs": [], "headerExtensions": []}}
RTP = {"codecs": [{"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": 2}]}


async def eventually(condition: Any) -> Any:
    """What `condition` returns, once that is true."""
    async with asyncio.timeout(DEADLINE):
        while not (found := condition()):  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.002)
    return found


class Refusal(Exception):  # noqa: N818
    """The server answered with an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}")
        self.code, self.reason = code, reason


class RawParticipant:
    """Reads in the background; server requests are answered by `consents` unless it is None."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket
        self.notifications: list[tuple[str, Any]] = []
        self.requests: list[tuple[str, Any]] = []
        self.consents: bool | None = True
        self.closed: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._id = 0
        self._changed = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def ask(self, method: str, data: Any = None) -> Any:
        self._id += 1
        answer = self._answers[self._id] = asyncio.get_running_loop().create_future()
        await self.send({"request": True, "id": self._id, "method": method, "data": data or {}})
        return await asyncio.wait_for(answer, DEADLINE)

    async def send(self, frame: Any) -> None:
        await self.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def until(self, condition: Any) -> Any:
        """What `condition` returns, once that is true; asked again after each message."""
        async with asyncio.timeout(DEADLINE):
            while not (found := condition()):
                self._changed.clear()
                await self._changed.wait()
        return found

    async def notified(self, method: str) -> Any:
        """The data of the first notification of that method, taken off the list."""
        found = await self.until(lambda: [n for n in self.notifications if n[0] == method])
        self.notifications.remove(found[0])
        return found[0][1]

    async def requested(self, method: str) -> Any:
        found = await self.until(lambda: [r for r in self.requests if r[0] == method])
        self.requests.remove(found[0])
        return found[0][1]

    async def end(self) -> tuple[int, str]:
        """The close code and reason that the server gave."""
        return await asyncio.wait_for(asyncio.shield(self.closed), DEADLINE)

    def vanish(self) -> None:
        """The connection breaks without a close frame."""
        transport = self.socket.get_extra_info("socket")
        assert transport is not None
        connection = self.socket._response.connection
        assert connection is not None
        assert connection.transport is not None
        connection.transport.abort()

    async def leave(self) -> None:
        await self.socket.close()

    async def stop(self) -> None:
        self._reader.cancel()
        await asyncio.wait((self._reader,))
        await self.socket.close()

    async def _read(self) -> None:
        while True:
            message = await self.socket.receive()
            if message.type is not WSMsgType.TEXT:
                code = message.data if message.type is WSMsgType.CLOSE else self.socket.close_code
                if not self.closed.done():
                    self.closed.set_result((code or 0, message.extra or ""))
                self._changed.set()
                return
            await self._take(json.loads(message.data))
            self._changed.set()

    async def _take(self, frame: Any) -> None:
        if frame.get("response"):
            answer = self._answers.pop(frame["id"])
            if frame["ok"]:
                answer.set_result(frame["data"])
            else:
                answer.set_exception(Refusal(frame["errorCode"], frame["errorReason"]))
        elif frame.get("request"):
            self.requests.append((frame["method"], frame["data"]))
            if self.consents is not None:
                await self.answer(frame["id"], self.consents)
        else:
            self.notifications.append((frame["method"], frame["data"]))

    async def answer(self, request_id: int, consents: bool) -> None:
        verdict = (
            {"ok": True, "data": {}} if consents else {"ok": False, "errorCode": 403, "errorReason": "no"}
        )
        await self.send({"response": True, "id": request_id, **verdict})
