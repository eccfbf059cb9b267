"""Real participants in this process, and what every one of them receives of every other."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from aiortc import MediaStreamTrack
from e2e.support.sessions import READY_SECONDS, url_and_token
from mafalda_operator.cli.demo.call import Call
from mafalda_operator.cli.participant import Participant, VideoFormat, synthetic
from mafalda_operator.model import ObjectKey

SMALL = VideoFormat(160, 120, 10)
"""Many participants share two cores with the whole cluster."""


_DIALS = 10
_REPORT_SECONDS = 0.5


class Gathering(Call):
    """Participants of one session who all send audio and video to each other."""

    def __init__(self, session: ObjectKey) -> None:
        super().__init__()
        self.session = session
        self.began = time.monotonic()
        self._frames_before: dict[int, int] = {}
        self._lost_before: dict[int, int] = {}
        self._sent: Counter[tuple[str, str]] = Counter()
        self._sent_before: Counter[tuple[str, str]] = Counter()

    async def publish(self, participant: Participant) -> None:
        for kind in ("audio", "video"):
            source = synthetic(kind, seed=participant.peer_id, form=SMALL)
            counted = self._counting(source.open, (participant.peer_id, source.name))
            await participant.publish(replace(source, open=counted))

    def _counting(
        self, open_track: Callable[[], MediaStreamTrack], source: tuple[str, str]
    ) -> Callable[[], MediaStreamTrack]:
        def opened() -> MediaStreamTrack:
            track = open_track()
            receive = track.recv

            async def counted() -> Any:
                frame = await receive()
                self._sent[source] += 1
                return frame

            track.recv = counted
            return track

        return opened

    async def enter(self, *names: str) -> None:
        """They join, publish, and everybody decodes everybody."""
        for name in names:
            await self.join(*await url_and_token(self.session, name), publish=True)
        await self.until_flowing()

    async def enter_apart(self, *names: str) -> None:
        """As `enter`, each at a router of its own.

        A gateway knows of another one's participants by the servers' reports only, so two who join at once
        may meet at one router; the second then dials again.
        """
        for name in names:
            for _ in range(_DIALS):
                taken = set(self.routers().values())
                participant = await self.join(*await url_and_token(self.session, name), publish=False)
                if participant.router not in taken:
                    break
                await self.participants.pop(name).close()
                await asyncio.sleep(_REPORT_SECONDS)
            else:
                raise AssertionError(f"{name} was sent to a taken router {_DIALS} times: {self.routers()}")
            await self.publish(participant)
        await self.until_flowing()

    async def until_flowing(self, *, seconds: float = READY_SECONDS, since: float | None = None) -> float:
        """Waits until every flow brings frames since that time (absent: since now); the seconds it took."""
        began = time.monotonic()
        after = began if since is None else since
        await self.until(
            "everybody receives everybody", lambda: self.all_flowing(since=after), seconds=seconds
        )
        return time.monotonic() - began

    async def watch(self, seconds: float) -> None:
        """Watches that long: what happens to the media meanwhile is in `worst` and `figures`."""
        end = time.monotonic() + seconds
        await self.until("time to pass", lambda: time.monotonic() > end, seconds=seconds + 5)

    def reset(self) -> None:
        """Gaps, losses and frames count from now on."""
        self.began = time.monotonic()
        self._frames_before = {id(flow.received): flow.received.frames for flow in self.flows()}
        self._lost_before = {id(flow.received): flow.received.lost for flow in self.flows()}
        self._sent_before = self._sent.copy()
        for flow in self.flows():
            flow.received.reset_gap()

    def figures(self) -> list[dict[str, Any]]:
        """What every receiver got of every source since `reset`: decoded frames, frames that were sent and
        did not come (those under way included), packets lost, and the longest time without a frame.
        """
        now = time.monotonic()
        found = []
        for flow in self.flows():
            received, source = flow.received, (flow.received.peer, flow.received.source)
            frames = received.frames - self._frames_before.get(id(received), 0)
            found.append(
                {
                    "receiver": flow.receiver.peer_id,
                    "from": received.peer,
                    "source": received.source,
                    "frames": frames,
                    "missed": max(0, self._sent[source] - self._sent_before[source] - frames),
                    "lost": received.lost - self._lost_before.get(id(received), 0),
                    "longestGapMs": round(received.gap(now) * 1000),
                }
            )
        return found

    def worst(self, among: Collection[str] | None = None) -> dict[str, Any]:
        """The worst of all receivers since `reset` (of what these participants get of each other, if given),
        and for how long that was.
        """
        figures = [
            found
            for found in self.figures()
            if among is None or (found["receiver"] in among and found["from"] in among)
        ]
        return {
            "seconds": round(time.monotonic() - self.began, 1),
            "flows": len(figures),
            "fewestFrames": min(found["frames"] for found in figures),
            "mostMissed": max(found["missed"] for found in figures),
            "mostLost": max(found["lost"] for found in figures),
            "longestGapMs": max(found["longestGapMs"] for found in figures),
            "longestAudioGapMs": max(f["longestGapMs"] for f in figures if f["source"] == "audio"),
            "worst": max(figures, key=lambda found: (found["lost"], found["longestGapMs"])),
        }

    async def quiet(self, seconds: float = 5.0) -> dict[str, Any]:
        """`worst` of so many seconds in which nothing is done: what the machine itself costs. Resets."""
        self.reset()
        await self.watch(seconds)
        found = self.worst()
        self.reset()
        return found

    def joins(self) -> dict[str, int]:
        """How often each has joined: every attachment elsewhere is one more."""
        return {name: participant.joins for name, participant in self.participants.items()}

    async def until_joined_again(self, *names: str, seconds: float = READY_SECONDS) -> float:
        """Waits until these have joined more than once and are attached; the seconds it took."""
        began = time.monotonic()
        chosen = [self.participants[name] for name in names]
        await self.until(
            f"{', '.join(names)} attach again",
            lambda: all(one.joins > 1 and one.attached for one in chosen),
            seconds=seconds,
        )
        return time.monotonic() - began


@contextlib.asynccontextmanager
async def gathered(
    session: ObjectKey, names: Sequence[str], *, apart: bool = False
) -> AsyncIterator[Gathering]:
    """A call of these participants, once every one decodes every other; they leave at the end. `apart`: each
    at a router of its own.
    """
    async with Gathering(session) as call:
        await (call.enter_apart if apart else call.enter)(*names)
        call.reset()
        yield call
