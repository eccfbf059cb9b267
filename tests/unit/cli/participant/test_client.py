"""Dialling, joining and dialling again, against a scripted server without media."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import WSMsgType, web
from doubles.protoo import eventually
from mafalda_operator.cli.participant import CallEnded, Joined, Left, Participant, SourceError, synthetic
from mafalda_operator.cli.participant import redial as redial_rules

from mediaserver.wire.tokens import ParticipantClaims, mint

Script = Callable[[web.WebSocketResponse], Awaitable[None]]


def token(sub: str = "alice") -> str:
    claims = ParticipantClaims(iss="main", sub=sub, session="shop/standup", exp=2e9, nbf=0, jti="x")
    return mint(claims, "1", b"k" * 32)


class Server:
    """Plays one script for each dial; the last one again and again."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.dials: list[Any] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("protoo",))
        await socket.prepare(request)
        self.dials.append(dict(request.query))
        script = self.scripts[min(len(self.dials), len(self.scripts)) - 1]
        await script(socket)
        return socket


async def welcome(socket: web.WebSocketResponse, resume: str | None = None) -> None:
    """Answers until the participant has joined."""
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            frame = json.loads(message.data)
            data = {
                "getRouterRtpCapabilities": {"codecs": [], "headerExtensions": []},
                "join": {"peers": [{"id": "bob"}], "resume": resume, "router": "shop/a"},
            }[frame["method"]]
            await socket.send_json({"response": True, "id": frame["id"], "ok": True, "data": data})
            if frame["method"] == "join":
                return


def closes(code: int, reason: str, *, joined: bool = True, resume: str | None = None) -> Script:
    async def script(socket: web.WebSocketResponse) -> None:
        if joined:
            await welcome(socket, resume)
        await socket.close(code=code, message=reason.encode())

    return script


async def stays(socket: web.WebSocketResponse) -> None:
    await welcome(socket)
    async for _ in socket:
        pass


async def breaks(socket: web.WebSocketResponse) -> None:
    await welcome(socket)
    assert socket._req is not None
    assert socket._req.transport is not None
    socket._req.transport.abort()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_get("/", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = "ws://{}:{}/".format(*runner.addresses[0])
    yield made
    await runner.cleanup()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGAIN", "LATER", "LOST"):
        monkeypatch.setattr(redial_rules, name, redial_rules.Backoff(first=0.01, longest=0.05))


async def test_it_joins_and_leaves_with_a_goodbye(server: Server) -> None:
    goodbyes: list[Any] = []

    async def until_goodbye(socket: web.WebSocketResponse) -> None:
        await welcome(socket)
        goodbyes.append(await socket.receive())

    server.scripts = [until_goodbye]
    events: list[Any] = []
    async with Participant(server.url, token(), on_event=events.append) as participant:
        assert participant.attached
        assert participant.router == "shop/a"
    assert events == [Joined("shop/a", ("bob",), again=False)]
    assert [(message.type, message.data) for message in goodbyes] == [(WSMsgType.CLOSE, 1000)]
    assert server.dials == [{"roomId": "shop/standup", "peerId": "alice", "token": token()}]


async def test_4000_ends_the_call_with_the_servers_reason(server: Server) -> None:
    server.scripts = [closes(4000, "session ended")]
    async with Participant(server.url, token()) as participant:
        with pytest.raises(CallEnded, match=r"^session ended$"):
            await participant.wait()
    assert len(server.dials) == 1


async def test_a_refused_join_is_raised_by_start(server: Server) -> None:
    server.scripts = [closes(4000, "token refused: expired", joined=False)]
    with pytest.raises(CallEnded, match="token refused: expired"):
        await Participant(server.url, token()).start()
    assert len(server.dials) == 1


@pytest.mark.parametrize("script", [closes(4001, "moved"), closes(4002, "full"), closes(1000, ""), breaks])
async def test_it_dials_again(server: Server, script: Script) -> None:
    server.scripts = [script, stays]
    events: list[Any] = []
    async with Participant(server.url, token(), on_event=events.append) as participant:
        await eventually(lambda: participant.joins == 2)
    assert [type(event) for event in events] == [Joined, Left, Joined]
    assert events[2].again


async def test_it_dials_again_with_the_resume_token(server: Server) -> None:
    server.scripts = [closes(4001, "moved", resume="RESUME"), stays]
    async with Participant(server.url, token()) as participant:
        await eventually(lambda: participant.joins == 2)
    assert [dial["token"] for dial in server.dials] == [token(), "RESUME"]
    assert {dial["peerId"] for dial in server.dials} == {"alice"}


async def test_a_refused_request_while_joining_is_tried_again(server: Server) -> None:
    async def refuses(socket: web.WebSocketResponse) -> None:
        frame = await socket.receive_json()
        failure = {"response": True, "id": frame["id"], "ok": False, "errorCode": 503, "errorReason": "no"}
        await socket.send_json(failure)
        await socket.receive()

    server.scripts = [refuses, stays]
    events: list[Any] = []
    async with Participant(server.url, token(), on_event=events.append) as participant:
        assert participant.joins == 1
    assert "no (503)" in events[0].reason


async def test_an_attachment_that_never_gets_far_is_dialled_again_ever_slower(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mafalda_operator.cli.participant.client.FIRST_JOIN_TIMEOUT", 0.2)
    pauses: list[float | None] = []
    server.scripts = [stays]
    participant = Participant(
        server.url,
        token(),
        publish=[synthetic("audio")],
        on_event=lambda event: pauses.append(event.pause) if isinstance(event, Left) else None,
    )
    with pytest.raises(CallEnded, match="does not allow"):
        await participant.start()
    assert len(pauses) < 12


async def test_nobody_there_is_an_error_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mafalda_operator.cli.participant.client.FIRST_JOIN_TIMEOUT", 0.1)
    with pytest.raises(CallEnded, match=r"ws://127\.0\.0\.1:9/") as error:
        await Participant("ws://127.0.0.1:9/", token()).start()
    assert "token" not in str(error.value)


@pytest.mark.parametrize("text", ["garbage", "[]", '{"request": true, "id": 1, "method": "teleport"}'])
async def test_a_server_that_sends_garbage_is_left_or_refused(server: Server, text: str) -> None:
    answers: list[Any] = []

    async def garbage(socket: web.WebSocketResponse) -> None:
        await welcome(socket)
        await socket.send_str(text)
        async for message in socket:
            answers.append(json.loads(message.data))

    server.scripts = [garbage, stays]
    async with Participant(server.url, token()) as participant:
        if "teleport" in text:
            await eventually(lambda: answers)
            assert "teleport" in answers[0]["errorReason"]
        else:
            await eventually(lambda: participant.joins == 2)


async def test_sources_have_names_of_their_own(server: Server) -> None:
    server.scripts = [stays]
    async with Participant(server.url, token()) as participant:
        with pytest.raises(SourceError, match="not published"):
            await participant.unpublish("video")
        with pytest.raises(Exception, match="does not allow"):
            await participant.publish(synthetic("audio"))
        assert participant.sources == {}


def asks_to_move(*codes: int, within: float = 5.0) -> Script:
    """Joined, then asked to attach elsewhere; closed with each code, if any."""

    async def script(socket: web.WebSocketResponse) -> None:
        await welcome(socket)
        await socket.send_json(
            {"notification": True, "method": "reattach", "data": {"reason": "moves", "within": within}}
        )
        for code in codes:
            await asyncio.sleep(0.2)
            await socket.close(code=code, message=b"the router moves")
        async for _ in socket:
            pass

    return script


async def test_it_attaches_elsewhere_before_it_leaves(server: Server) -> None:
    joins: list[Any] = []
    goodbyes: list[str] = []

    async def first(socket: web.WebSocketResponse) -> None:
        await asks_to_move()(socket)
        goodbyes.append("old")

    async def second(socket: web.WebSocketResponse) -> None:
        assert not goodbyes, "the older attachment goes on"
        async for message in socket:
            frame = json.loads(message.data)
            if frame["method"] == "join":
                joins.append(frame["data"])
            data = {
                "getRouterRtpCapabilities": {"codecs": [], "headerExtensions": []},
                "join": {"peers": [], "resume": None, "router": "shop/b"},
            }[frame["method"]]
            await socket.send_json({"response": True, "id": frame["id"], "ok": True, "data": data})

    server.scripts = [first, second]
    events: list[Any] = []
    async with Participant(server.url, token(), on_event=events.append) as participant:
        await eventually(lambda: participant.joins == 2 and goodbyes)
        assert participant.attached
        assert participant.router == "shop/b"
    assert [type(event) for event in events] == [Joined, Joined]
    assert joins[0]["reattach"] is True


async def test_it_stays_where_it_is_while_there_is_no_other_place(server: Server) -> None:
    server.scripts = [
        asks_to_move(),
        closes(4001, "the router moves", joined=False),
        closes(4002, "full", joined=False),
        stays,
    ]
    events: list[Any] = []
    async with Participant(server.url, token(), on_event=events.append) as participant:
        await eventually(lambda: participant.joins == 2)
        assert participant.attached
    assert [type(event) for event in events] == [Joined, Joined]
    assert len(server.dials) == 4


async def test_when_time_is_over_it_dials_again_as_after_any_4001(server: Server) -> None:
    server.scripts = [asks_to_move(4001, within=0.1), breaks_before_join, stays]
    events: list[Any] = []
    async with Participant(server.url, token(), on_event=events.append) as participant:
        await eventually(lambda: participant.joins == 2)
    assert [type(event) for event in events] == [Joined, Left, Joined]
    assert events[1].code == 4001


async def breaks_before_join(socket: web.WebSocketResponse) -> None:
    await socket.close(code=1011)
