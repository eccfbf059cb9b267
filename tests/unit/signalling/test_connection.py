"""A participant that does not read, or does not answer pings."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import ClientSession, WSMsgType
from doubles.protoo import JOIN, eventually

from mediaserver.signalling import SignallingSettings
from mediaserver.signalling.connection import Connection, Ending
from mediaserver.signalling.errors import SignallingLost
from mediaserver.wire.close_codes import DIAL_AGAIN, ENDED


class StuckSocket:
    """A WebSocket whose other side takes nothing."""

    closed = False
    close_code = None

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send_str(self, text: str) -> None:
        self.sent.append(text)
        await asyncio.Event().wait()

    async def close(self, *, code: int, message: bytes) -> None:
        await asyncio.Event().wait()


async def no_answer(_: Any) -> None:
    return None


@pytest.fixture
def settings() -> SignallingSettings:
    return SignallingSettings(
        max_outgoing=5, close_timeout=0.1, answer_timeout=5, ping_interval=0.2, linger=0.1
    )


async def test_who_does_not_read_is_closed_and_cut_off(settings: SignallingSettings) -> None:
    cuts: list[bool] = []
    socket: Any = StuckSocket()
    connection = Connection(socket, no_answer, settings, lambda: cuts.append(True))
    running = asyncio.create_task(connection.run())
    asking = asyncio.create_task(connection.request("newConsumer", {}))
    await eventually(lambda: socket.sent)
    for number in range(7):
        connection.notify("consumerScore", {"number": number})
    assert connection.closed
    ending = await asyncio.wait_for(running, 2)
    assert ending == Ending(DIAL_AGAIN, "you do not read: 5 messages wait for you")
    assert cuts == [True]
    with pytest.raises(SignallingLost, match="do not read"):
        await asking
    with pytest.raises(SignallingLost):
        await connection.request("newConsumer", {})
    connection.notify("ignored", {})


async def test_the_first_ending_counts(settings: SignallingSettings) -> None:
    socket: Any = StuckSocket()
    connection = Connection(socket, no_answer, settings, lambda: None)
    running = asyncio.create_task(connection.run())
    connection.end(ENDED, "replaced")
    connection.end(DIAL_AGAIN, "worker died")
    assert await running == Ending(ENDED, "replaced")


async def test_cancelling_leaves_no_task(settings: SignallingSettings) -> None:
    before = asyncio.all_tasks()
    socket: Any = StuckSocket()
    running = asyncio.create_task(Connection(socket, no_answer, settings, lambda: None).run())
    await asyncio.sleep(0)  # it has begun
    running.cancel()
    await asyncio.wait((running,))
    assert asyncio.all_tasks() == before


async def test_who_does_not_answer_pings_is_given_up(world) -> None:
    async with ClientSession() as http:
        params = {"roomId": "shop/standup", "peerId": "alice", "token": world.token("alice")}
        socket = await http.ws_connect(world.base, params=params, protocols=("protoo",), autoping=False)
        frame = {"request": True, "id": 1, "method": "join", "data": JOIN}
        await socket.send_json(frame)
        while (message := await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.PING):
            pass
        assert message.type in (WSMsgType.CLOSED, WSMsgType.CLOSE)
        await eventually(lambda: not world.hosted.participants)
