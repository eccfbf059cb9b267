"""A server is drained while a call runs: what its participants, and those who receive them, miss."""

import asyncio
import contextlib
import dataclasses
import inspect
import json
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiortc import MediaStreamTrack, rtcrtpsender
from mafalda_operator.cli.participant import (
    Joined,
    Left,
    Participant,
    Received,
    Source,
    VideoFormat,
    synthetic,
)
from support.rig import CLUSTER, Rig, until

VIDEO_STEP, AUDIO_STEP = 90_000 // 15, 960
"""Ticks between two frames of the synthetic sources."""
SETTLED_SECONDS = 30.0
NAMES = ("alice", "bob", "carol")
LONGEST_GAP = 1.5
"""Seconds without a frame that a machine with much else to do may take; alone it is less than 0.3."""
MISSED = {VIDEO_STEP: 8, AUDIO_STEP: 40}
"""Frames that a source gave and that may be missing on such a machine; alone 0 and 5."""


@pytest.fixture(autouse=True)
def plain_timestamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders count their time stamps from nothing, so that frames can be told apart over two attachments."""
    random32 = rtcrtpsender.random32

    def plain() -> int:
        caller = inspect.currentframe().f_back  # type: ignore[union-attr]
        return 0 if caller is not None and caller.f_code.co_name == "_run_rtp" else random32()

    monkeypatch.setattr(rtcrtpsender, "random32", plain)


@dataclass
class Watch:
    """What one participant gets of one source, frame by frame."""

    step: int
    given: set[int]
    """Numbers of the frames that the source gave: on a busy machine it skips some."""
    stamps: list[int] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)

    def missed(self) -> int:
        """Frames that the source gave between the first and the last that came, and that never came."""
        got = {round(stamp / self.step) for stamp in self.stamps}
        return len({number for number in self.given if min(got) < number < max(got)} - got)

    def longest_gap(self) -> float:
        return max((b - a for a, b in zip(self.moments, self.moments[1:], strict=False)), default=0.0)


class Group:
    """Participants who all send and receive, and everything that reaches them."""

    def __init__(self) -> None:
        self.participants: dict[str, Participant] = {}
        self.watches: dict[tuple[str, str, str], Watch] = {}
        self.events: dict[str, list[Joined | Left]] = {}
        self._given: defaultdict[tuple[str, str], set[int]] = defaultdict(set)

    def noted(self, publisher: str, source: Source) -> Source:
        """The source, whose frames are noted as it gives them."""
        step = VIDEO_STEP if source.kind == "video" else AUDIO_STEP
        given = self._given[publisher, source.name]

        def opened() -> MediaStreamTrack:
            track = source.open()
            plain = track.recv

            async def recv() -> Any:
                frame = await plain()
                given.add(round(frame.pts / step))
                return frame

            track.recv = recv
            return track

        return dataclasses.replace(source, open=opened)

    def begin(self) -> None:
        """Forget what came so far."""
        self.watches.clear()

    def take(self, who: str, received: Received, timestamp: int | None) -> None:
        step = VIDEO_STEP if received.kind == "video" else AUDIO_STEP
        given = self._given[received.peer, received.source]
        watch = self.watches.setdefault((who, received.peer, received.source), Watch(step, given))
        assert timestamp is not None
        watch.stamps.append(timestamp)
        watch.moments.append(time.monotonic())

    def expected(self) -> set[tuple[str, str, str]]:
        return {
            (receiver, publisher, source)
            for receiver in self.participants
            for publisher in self.participants
            for source in ("audio", "video")
            if receiver != publisher
        }

    def flowing(self, since: float) -> bool:
        return all(
            (watch := self.watches.get(key)) is not None and watch.moments[-1] > since
            for key in self.expected()
        )

    def figures(self) -> list[str]:
        return [
            f"{' <- '.join(key[:2])} {key[2]}: {len(watch.stamps)} frames, {watch.missed()} missed, "
            f"longest gap {watch.longest_gap() * 1000:.0f} ms"
            for key, watch in sorted(self.watches.items())
        ]

    def lost(self) -> int:
        return max(one.lost for p in self.participants.values() for one in p.received.values())


@contextlib.asynccontextmanager
async def group(rig: Rig, session: str, names: tuple[str, ...] = NAMES) -> AsyncIterator[Group]:
    made = Group()
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            made.events[name] = []
            sources = synthetic("audio"), synthetic("video", seed=name, form=VideoFormat(160, 120))
            participant = Participant(
                *await rig.url_and_token(session, name),
                publish=[made.noted(name, source) for source in sources],
                on_event=made.events[name].append,
                on_frame=lambda received, _, who=name: made.take(who, received, received.timestamp),
            )
            await stack.enter_async_context(participant)
            made.participants[name] = participant

        async def flows() -> bool:
            return made.flowing(0.0)

        await until("everybody receives everybody", flows, tell=made.figures)
        yield made


async def patch(rig: Rig, server: str, state: str) -> None:
    spec = json.dumps({"spec": {"desiredState": state}})
    await rig.kubectl("-n", CLUSTER.namespace, "patch", "mfsrv", server, "--type=merge", "-p", spec)


async def status_of(rig: Rig, server: str) -> dict[str, Any]:
    found = await rig.kubectl("-n", CLUSTER.namespace, "get", "mfsrv", server, "-o", "json")
    status: dict[str, Any] = json.loads(found)["status"]
    return status


async def until_state(rig: Rig, server: str, reason: str) -> dict[str, Any]:
    """Its status once Ready has that reason, which is the STATE that kubectl shows."""
    status: dict[str, Any] = {}

    async def so() -> bool:
        nonlocal status
        status = await status_of(rig, server)
        return any(c["type"] == "Ready" and c["reason"] == reason for c in status["conditions"])

    await until(f"{server} is {reason}", so, tell=lambda: status, seconds=SETTLED_SECONDS)
    return status


async def wide(rig: Rig) -> str:
    return await rig.kubectl("-n", CLUSTER.namespace, "get", "mediaservers", "-o", "wide")


async def everybody_receives(call: Group, within: float = SETTLED_SECONDS) -> None:
    since = time.monotonic()

    async def flows() -> bool:
        return call.flowing(since + 0.5)

    await until("everybody receives everybody", flows, tell=call.figures, seconds=within)


def assert_nothing_missed(call: Group) -> None:
    print("\n".join(call.figures()), f"\npackets lost by the worst receiver: {call.lost()}")
    for name, events in call.events.items():
        assert not [event for event in events if isinstance(event, Left)], f"{name} was cut off: {events}"
    for key, watch in call.watches.items():
        assert watch.longest_gap() < LONGEST_GAP, key
        assert watch.missed() <= MISSED[watch.step], key


@contextlib.asynccontextmanager
async def states(rig: Rig, **wanted: str) -> AsyncIterator[None]:
    """Servers in these desired states; afterwards all are active and ready again."""
    try:
        for server, state in wanted.items():
            await patch(rig, server.replace("_", "-"), state)
        yield
    finally:
        for layout in rig.stack.layout.servers:
            await patch(rig, layout.name, "Active")
        for layout in rig.stack.layout.servers:
            await until_state(rig, layout.name, "Ready")


def others(rig: Rig, server: str) -> dict[str, str]:
    return {
        layout.name.replace("-", "_"): "Cordoned"
        for layout in rig.stack.layout.servers
        if layout.name != server
    }


async def test_a_call_goes_on_while_one_of_its_servers_is_drained(rig: Rig):
    session = await rig.session(routers=2)
    async with group(rig, session) as call:
        status = await rig.status(session)
        drained = rig.server_of(status, call.participants["carol"].router)
        moving = [n for n, p in call.participants.items() if rig.server_of(status, p.router) == drained]
        call.begin()
        began = time.monotonic()
        async with states(rig):
            await patch(rig, drained, "Drained")
            seen = await until_state(rig, drained, "Drained")
            print(f"\nmoved: {', '.join(moving)}; {drained} empty after {time.monotonic() - began:.1f} s")
            print(await wide(rig))
            await everybody_receives(call)
            assert_nothing_missed(call)
            assert seen["drain"]["routersLeft"] == seen["drain"]["participantsLeft"] == 0
            assert await rig.router_names(drained) == []
            after = await rig.until_ready(session, without=drained)
            assert len(after["routers"]) == 2
            for name, events in call.events.items():
                assert len(events) == (2 if name in moving else 1), events


async def test_without_a_place_elsewhere_a_call_stays_until_the_drain_is_called_off(rig: Rig):
    session = await rig.session(routers=1)
    async with group(rig, session, NAMES[:2]) as call:
        before = (await rig.status(session))["routers"]
        server = before[0]["serverName"]
        call.begin()
        async with states(rig, **others(rig, server)):
            await patch(rig, server, "Drained")
            await until_state(rig, server, "Draining")

            async def told() -> bool:
                conditions = {c["type"]: c for c in (await rig.status(session))["conditions"]}
                scheduled = conditions["Scheduled"]
                return (
                    conditions["Available"]["status"] == "True"
                    and scheduled["reason"] == "NoCapacity"
                    and "stays, at most until" in scheduled["message"]
                )

            await until("the session says why it stays", told, tell=lambda: "")
            async with group(rig, session, ("dave",)):
                pass  # joins work to the end
            await patch(rig, server, "Active")
            assert "drain" not in await until_state(rig, server, "Ready")
        await everybody_receives(call)
        assert_nothing_missed(call)
        assert (await rig.status(session))["routers"] == before


async def test_at_the_deadline_what_has_no_place_ends(rig: Rig):
    session = await rig.session(routers=1)
    timeout = {"spec": {"drain": {"timeout": "3s"}}}
    path = ("-n", CLUSTER.namespace, "patch", "mfc", CLUSTER.name, "--type=merge", "-p")
    await rig.kubectl(*path, json.dumps(timeout))
    try:
        async with group(rig, session, NAMES[:2]) as call:
            server = (await rig.status(session))["routers"][0]["serverName"]
            async with states(rig, **others(rig, server)):
                began = time.monotonic()
                await patch(rig, server, "Drained")
                await until_state(rig, server, "Drained")
                took = time.monotonic() - began
                assert await rig.router_names(server) == []
                left = [
                    event for events in call.events.values() for event in events if isinstance(event, Left)
                ]
                assert {event.code for event in left if event.code is not None} == {4001}, left
                assert 2.5 < took < 10
            await rig.until_ready(session)
            await everybody_receives(call)
    finally:
        await rig.kubectl(*path, json.dumps({"spec": {"drain": None}}))


async def test_a_server_that_is_told_to_end_is_left_first(rig: Rig):
    stopped = rig.stack.layout.servers[0]
    await asyncio.to_thread(rig.stack.kill, stopped.name)
    flags = (*stopped.flags, "--drain-timeout=60s")
    await asyncio.to_thread(rig.stack.start_server, dataclasses.replace(stopped, flags=flags))
    await asyncio.to_thread(rig.stack.await_healthy, stopped.name)
    await until_state(rig, stopped.name, "Ready")
    session = await rig.session(routers=3)
    async with group(rig, session) as call:
        status = await rig.status(session)
        async with states(rig):
            call.begin()
            began = time.monotonic()
            rig.stack.send(stopped.name, signal.SIGTERM)

            async def ended() -> bool:
                return not rig.stack.cluster.processes.running(stopped.name)

            await until(
                "the process ends", ended, tell=lambda: rig.stack.cluster.processes.log_tail(stopped.name)
            )
            print(f"\n{stopped.name} ended {time.monotonic() - began:.1f} s after SIGTERM")
            assert (await status_of(rig, stopped.name))["drain"]["reason"] == "ServerLeaving"
            await everybody_receives(call)
            assert_nothing_missed(call)
            moved = [n for n, p in call.participants.items() if len(call.events[n]) == 2]
            assert moved == [
                n for n, e in call.events.items() if rig.server_of(status, e[0].router) == stopped.name
            ]
            await rig.until_ready(session, without=stopped.name)
            await rig.restore()
