"""The SFU of docs/mediasoup.md, as it stands there, with participants that really send and receive."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import subprocess
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import TestServer
from integration.mediasoup.rtp import DEADLINE, until
from mafalda_operator.cli.participant.rtc import Rtc, Stream
from mafalda_operator.cli.participant.sources import MovingPicture, Tone, VideoFormat
from support.remote import SHIM, RemoteServer, environment

DOCS = Path(__file__).parents[3] / "docs/mediasoup.md"


def example() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.S | re.M)
    return str(code)


class Client:
    """A participant: aiortc for media, and the example's signalling."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.notifications: list[dict[str, Any]] = []
        self.rtc = Rtc(self.ask, lambda _: None)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            assert message.type is WSMsgType.TEXT
            data = message.json()
            if "id" in data:
                self._answers.pop(data["id"]).set_result(data)
            else:
                self.notifications.append(data)

    async def ask(self, method: str, data: dict[str, Any]) -> Any:
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "data": data})
        answer = await asyncio.wait_for(self._answers[number], DEADLINE)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["data"]

    def told(self, method: str) -> list[dict[str, Any]]:
        return [note["data"] for note in self.notifications if note["method"] == method]

    async def join(self) -> None:
        await self.rtc.load(await self.ask("getRouterRtpCapabilities", {}))
        await self.rtc.open("send")
        await self.rtc.open("recv")

    async def receive(self, producer_id: str) -> Stream:
        """Consumes on the transport to receive; Rtc made that last."""
        transport = self.rtc._path("recv").transport
        capabilities = self.rtc.capabilities
        offer = await self.ask(
            "consume",
            {"transportId": transport.id, "producerId": producer_id, "rtpCapabilities": capabilities},
        )
        stream = await self.rtc.consume({**offer, "peerId": "somebody"})
        await self.ask("resume", {"consumerId": offer["id"]})
        return stream

    async def close(self) -> None:
        await self.rtc.close()
        await self._socket.close()
        await asyncio.wait_for(self._reader, DEADLINE)


@pytest.fixture(params=["here", "on a media server"])
async def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The SFU, unchanged wherever its worker runs."""
    module = types.ModuleType("sfu")
    exec(compile(example(), str(DOCS), "exec"), module.__dict__)
    async with contextlib.AsyncExitStack() as stack:
        if request.param == "on a media server":
            remote = await stack.enter_async_context(RemoteServer())
            for name, value in {**environment(remote.port), "MAFALDA_WORKER_BIN": str(SHIM)}.items():
                monkeypatch.setenv(name, value)
        server = await stack.enter_async_context(TestServer(module.make_app("127.0.0.1")))
        yield str(server.make_url("/"))


async def join(http: ClientSession, url: str) -> Client:
    client = Client(await http.ws_connect(url))
    await client.join()
    return client


async def frames(stream: Stream, count: int) -> list[Any]:
    return [await asyncio.wait_for(stream.track.recv(), DEADLINE) for _ in range(count)]


async def test_participants_see_and_hear_each_other(url: str) -> None:
    async with ClientSession() as http:
        alice, bob = await join(http, url), await join(http, url)
        audio = await alice.rtc.produce(Tone(), {})
        video = await alice.rtc.produce(MovingPicture(VideoFormat(), "alice"), {})
        await until(lambda: len(bob.told("newProducer")) == 2, "news of the producers")
        assert [note["producerId"] for note in bob.told("newProducer")] == [audio, video]
        assert await bob.ask("getProducers", {}) == [audio, video]
        heard, seen = await bob.receive(audio), await bob.receive(video)
        assert len(await frames(heard, 10)) == 10
        picture = (await frames(seen, 5))[-1]
        assert (picture.width, picture.height) == (320, 240)
        with pytest.raises(RuntimeError, match="NotFoundError: no producer nobody"):
            await bob.receive("nobody")
        with pytest.raises(RuntimeError, match="ValidationError"):
            await bob.ask(
                "connectWebRtcTransport",
                {"transportId": bob.rtc._path("recv").transport.id, "dtlsParameters": {"role": 5}},
            )
        await alice.close()
        await until(lambda: len(bob.told("consumerClosed")) == 2, "news of the consumers' end")
        assert await bob.ask("getProducers", {}) == []
        await bob.close()


def test_it_is_typed_and_formatted(tmp_path: Path) -> None:
    path = tmp_path / "sfu.py"
    path.write_text(example())
    for command in (
        ["mypy", "--strict", "--follow-imports=silent"],
        ["ruff", "format", "--check", "--line-length=110"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command, str(path)],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            cwd=DOCS.parents[1],
        )
        assert done.returncode == 0, done.stdout + done.stderr
