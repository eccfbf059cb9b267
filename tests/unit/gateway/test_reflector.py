from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from doubles.api import FakeApi
from structlog.testing import capture_logs

from mediaserver.gateway import reflector as module
from mediaserver.gateway.directory import Signal
from mediaserver.gateway.reflector import Reflector
from mediaserver.gateway.resources import Session

SPEC = {"clusterRef": {"name": "main"}}


class Followed:
    """A reflector of sessions that runs, and its API."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.changed = Signal()
        self.reflector = Reflector(api, "mediasessions", Session, self.changed.fire)

    def put(self, name: str, **content: Any) -> None:
        self.api.put("mediasessions", "shop", name, spec=SPEC, **content)

    @property
    def names(self) -> set[str]:
        return {key.name for key in self.reflector.objects}

    async def become(self, *names: str) -> None:
        assert await self.changed.until(lambda: self.names == set(names), 5), self.names

    async def watching(self) -> None:
        async with asyncio.timeout(5):
            while not self.api._watches["mediasessions"]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture
async def followed(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Followed]:
    monkeypatch.setattr(module, "MIN_PAUSE", 0.02)
    monkeypatch.setattr(module, "MAX_PAUSE", 0.05)
    api = FakeApi()
    made = Followed(api)
    made.put("a")
    task = asyncio.create_task(made.reflector.run())
    await made.become("a")
    await made.watching()
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_follows(followed: Followed) -> None:
    followed.put("b", status={"routers": [{"name": "r", "serverName": "s", "ready": True, "index": 0}]})
    await followed.become("a", "b")
    session = followed.reflector.objects["shop", "b"]  # type: ignore[index]
    assert session.status.routers[0].ready
    followed.api.delete("mediasessions", "shop", "a")
    await followed.become("b")
    assert followed.api.reads == ["list mediasessions", "watch mediasessions"]


async def test_a_watch_that_ends_goes_on(followed: Followed) -> None:
    followed.api.event("mediasessions", "BOOKMARK", {"metadata": {"resourceVersion": "77"}})
    followed.api.end_watches()
    followed.put("b", quiet=True)
    async with asyncio.timeout(5):
        while followed.api.reads.count("watch mediasessions") < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await followed.watching()
    assert followed.api.reads.count("list mediasessions") == 1
    followed.put("c")
    await followed.become("a", "c")


async def test_gone_lists_anew(followed: Followed) -> None:
    """What was deleted while nobody watched is noticed."""
    followed.put("b", quiet=True)
    followed.api.delete("mediasessions", "shop", "a", quiet=True)
    followed.api.event("mediasessions", "ERROR", {"code": 410, "message": "too old resource version"})
    await followed.become("b")
    assert followed.api.reads.count("list mediasessions") == 2


@pytest.mark.parametrize("line", [b"garbage", b"{}", b'{"type": "ADDED", "object": {"metadata": {}}}'])
async def test_garbage_lists_anew(followed: Followed, line: bytes) -> None:
    followed.put("b", quiet=True)
    followed.api.raw("mediasessions", line)
    await followed.become("a", "b")


async def test_the_api_goes_away(followed: Followed) -> None:
    followed.api.down = True
    with capture_logs() as told:
        followed.api.end_watches()
        async with asyncio.timeout(5):
            while len(followed.api.reads) < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    assert [line["event"] for line in told] == ["the API server cannot be followed"]
    assert followed.names == {"a"}
    assert "connection refused" in followed.reflector.problem
    assert followed.reflector.synced.is_set()
    followed.put("b", quiet=True)
    followed.api.down = False
    await followed.become("a", "b")
    assert followed.reflector.problem == ""
