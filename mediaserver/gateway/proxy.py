"""One participant's WebSocket, carried to its media server and back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from aiohttp import (
    ClientError,
    ClientSession,
    ClientWebSocketResponse,
    ClientWSTimeout,
    WSMessage,
    WSMsgType,
    WSServerHandshakeError,
    web,
)
from aiohttp.http import WSMessageTextBytes

from mediaserver.control.contract import Address
from mediaserver.gateway.errors import UpstreamError
from mediaserver.gateway.resources import ObjectKey
from mediaserver.wire import sockets
from mediaserver.wire.close_codes import DIAL_AGAIN, DIAL_LATER
from mediaserver.wire.handshakes import dial_problem
from mediaserver.wire.membership import Dial

SUBPROTOCOL = "protoo"
ROUTER_HEADER = "X-Mafalda-Router"
PARTICIPANTS_PATH = "/ws"

MAX_FROM_PARTICIPANT = 64 * 1024
MAX_FROM_SERVER = 4 * 1024 * 1024
DIAL_SECONDS = 2.0
SEND_SECONDS = 10.0
"""How long one message may wait for its receiver to read."""
CLOSE_SECONDS = 2.0
PING_SECONDS = 10.0
"""Either side is pinged that often, and given up when no pong comes within half of it."""

_BROKEN = frozenset({None, 0, 1001, 1005, 1006, 1011, 1012, 1013, 1014})
"""How a media server's socket ends when it stops or dies, rather than by decision on a participant."""

_CONTENT = (WSMsgType.TEXT, WSMsgType.BINARY)

Upstream = ClientWebSocketResponse[Literal[True]]
Participant = web.WebSocketResponse[Literal[True]]
Socket = Upstream | Participant


@dataclass(frozen=True)
class Ending:
    """How a participant's socket ended; ``code`` and ``reason`` are what it was or is to be closed with."""

    by: Literal["participant", "server", "gateway"]
    code: int
    reason: str
    abrupt: bool = False
    """Without a goodbye of the participant, so that it may come back."""


async def dial(
    session: ClientSession, address: Address, how: Dial, query: str, router: ObjectKey
) -> Upstream:
    """Dial a router's participants listener with the participant's own query. Raises UpstreamError.

    The error never carries the query: it holds the token.
    """
    host = f"[{address.host}]" if ":" in address.host else address.host
    url = how.url(f"{host}:{address.port}", PARTICIPANTS_PATH)
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            return await session.ws_connect(
                f"{url}?{query}",
                protocols=(SUBPROTOCOL,),
                headers={ROUTER_HEADER: str(router)},
                timeout=ClientWSTimeout(ws_close=CLOSE_SECONDS),
                heartbeat=PING_SECONDS,
                max_msg_size=MAX_FROM_SERVER + 1,
                ssl=True if how.context is None else how.context,
                server_hostname=how.server_name,
            )
    except TimeoutError as error:
        raise UpstreamError(f"{url} did not answer within {DIAL_SECONDS:g} s") from error
    except (ClientError, OSError, ValueError) as error:
        raise UpstreamError(f"{url}: {dial_problem(error, how) or _told(error)}") from error


def _told(error: Exception) -> str:
    """What went wrong, but not the request."""
    if isinstance(error, WSServerHandshakeError):
        return f"it answers HTTP {error.status}"
    return type(error).__name__


class Proxy:
    """Carries messages both ways until one side ends; holds at most one message of each direction."""

    def __init__(self, participant: Participant, upstream: Upstream) -> None:
        self.carried = 0
        """Messages that came from the server."""
        self._participant = participant
        self._upstream = upstream
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    def end(self, code: int, reason: str) -> None:
        """End it from outside. The first ending counts."""
        self._finish(Ending("gateway", code, reason))

    async def tell(self, text: str) -> None:
        """Send the participant a message of the gateway's own, between those of the server."""
        if not await _forward(self._participant, WSMessage(WSMsgType.TEXT, text, None)):
            self._finish(Ending("participant", DIAL_LATER, "does not read", abrupt=True))

    async def run(self) -> Ending:
        """Carry until the end; the server's side is closed then, the participant's is left to the caller."""
        pumps = [asyncio.create_task(self._from_participant()), asyncio.create_task(self._from_server())]
        try:
            return await asyncio.shield(self._ended)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await self._close_upstream()

    async def _close_upstream(self) -> None:
        """Tell the server how the participant went: a goodbye as it came, anything else as a broken line."""
        ending = self._ended.result() if self._ended.done() else Ending("gateway", DIAL_LATER, "", True)
        if ending.abrupt:
            await sockets.cut(self._upstream)
        else:
            await sockets.close(self._upstream, ending.code, ending.reason, CLOSE_SECONDS)

    def _finish(self, ending: Ending) -> None:
        if not self._ended.done():
            self._ended.set_result(ending)

    async def _from_participant(self) -> None:
        socket = self._participant
        while (message := await _next(socket)).type in _CONTENT:
            if not await _forward(self._upstream, message):
                self._finish(Ending("server", DIAL_AGAIN, "media server lost"))
                return
        code = socket.close_code
        if message.type is WSMsgType.CLOSE:
            self._finish(Ending("participant", code or 1005, str(message.extra or "")))
        else:
            self._finish(Ending("participant", code or 1006, "connection lost", abrupt=True))

    async def _from_server(self) -> None:
        socket = self._upstream
        while (message := await _next(socket)).type in _CONTENT:
            self.carried += 1
            if not await _forward(self._participant, message):
                self._finish(Ending("participant", DIAL_LATER, "does not read", abrupt=True))
                return
        code = socket.close_code
        if message.type is WSMsgType.CLOSE and code not in _BROKEN:
            self._finish(Ending("server", code or DIAL_AGAIN, str(message.extra or "")))
        else:
            self._finish(Ending("server", DIAL_AGAIN, "media server lost"))


async def _next(socket: Socket) -> WSMessage | WSMessageTextBytes:
    """The next message; one of type ERROR when the connection broke."""
    try:
        return await socket.receive()
    except (ClientError, OSError, RuntimeError) as error:
        return WSMessage(WSMsgType.ERROR, error, None)


async def _forward(sink: Socket, message: WSMessage | WSMessageTextBytes) -> bool:
    """Send a message on; False when its receiver is gone or does not read."""
    try:
        async with asyncio.timeout(SEND_SECONDS):
            if message.type is WSMsgType.TEXT:
                await sink.send_str(message.data)
            else:
                await sink.send_bytes(message.data)
    except (TimeoutError, ClientError, OSError, RuntimeError):
        return False
    return True
