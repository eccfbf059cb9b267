"""One track for two senders."""

from __future__ import annotations

import asyncio

import pytest
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame
from mafalda_operator.cli.participant.shared import BACKLOG, SharedTrack


class Numbers(MediaStreamTrack):
    """Frames whose time stamps count from 0, as fast as a test lets them through; ends after `last`."""

    kind = "audio"

    def __init__(self, last: int = 10**6) -> None:
        super().__init__()
        self.gate = asyncio.Semaphore(0)
        self.count = 0
        self.last = last

    def let(self, count: int) -> None:
        for _ in range(count):
            self.gate.release()

    async def recv(self) -> AudioFrame:
        await self.gate.acquire()
        if self.count > self.last:
            raise MediaStreamError
        frame = AudioFrame(format="s16", layout="mono", samples=960)
        frame.pts = self.count
        self.count += 1
        return frame


class Opener:
    def __init__(self, **numbers: int) -> None:
        self.opened: list[Numbers] = []
        self.numbers = numbers

    def __call__(self) -> Numbers:
        self.opened.append(Numbers(**self.numbers))
        return self.opened[-1]


async def get(track: MediaStreamTrack, count: int = 1) -> list[int]:
    async with asyncio.timeout(5):
        return [(await track.recv()).pts for _ in range(count)]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_two_taps_give_the_same_frames() -> None:
    opener = Opener()
    shared = SharedTrack(opener)
    one, two = shared.tap(), shared.tap()
    reading = asyncio.gather(get(one, 3), get(two, 3))
    await turns()
    opener.opened[0].let(3)
    assert list(await reading) == [[0, 1, 2], [0, 1, 2]]
    assert len(opener.opened) == 1
    one.stop()
    two.stop()


async def test_a_later_tap_begins_with_what_is_new() -> None:
    opener = Opener()
    shared = SharedTrack(opener)
    one = shared.tap()
    reading = asyncio.create_task(get(one, 2))
    await turns()
    two = shared.tap()
    opener.opened[0].let(2)
    assert await reading == [0, 1]
    both = asyncio.gather(get(one), get(two))
    await turns()
    opener.opened[0].let(1)
    assert list(await both) == [[2], [2]]
    one.stop()
    two.stop()


async def test_it_ends_with_the_last_tap_and_can_be_opened_anew() -> None:
    opener = Opener()
    shared = SharedTrack(opener)
    one, two = shared.tap(), shared.tap()
    one.stop()
    await turns()
    assert opener.opened[0].readyState == "live"
    two.stop()
    await turns()
    assert opener.opened[0].readyState == "ended"
    again = shared.tap()
    reading = asyncio.create_task(get(again))
    await turns()
    opener.opened[1].let(1)
    assert await reading == [0]
    again.stop()


async def test_a_source_that_ends_ends_all_taps() -> None:
    opener = Opener(last=0)
    shared = SharedTrack(opener)
    one, two = shared.tap(), shared.tap()
    reading = asyncio.gather(get(one), get(two))
    await turns()
    opener.opened[0].let(2)
    assert list(await reading) == [[0], [0]]
    for tap in (one, two):
        with pytest.raises(MediaStreamError):
            await get(tap)
        assert tap.readyState == "ended"


async def test_a_late_sender_loses_the_oldest_frames() -> None:
    opener = Opener()
    shared = SharedTrack(opener)
    tap = shared.tap()
    reading = asyncio.create_task(get(tap))
    await turns()
    opener.opened[0].let(1)
    assert await reading == [0]
    opener.opened[0].let(BACKLOG + 3)
    await turns(3 * BACKLOG)
    assert await get(tap) == [4]
    tap.stop()


async def test_a_tap_that_is_stopped_wakes_its_reader() -> None:
    tap = SharedTrack(Opener()).tap()
    reading = asyncio.create_task(get(tap))
    await turns()
    tap.stop()
    with pytest.raises(MediaStreamError):
        await reading
