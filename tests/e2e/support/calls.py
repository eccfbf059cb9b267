"""Real participants in this process, and what every one of them receives of every other."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

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

    async def publish(self, participant: Participant) -> None:
        for kind in ("audio", "video"):
            await participant.publish(synthetic(kind, seed=participant.peer_id, form=SMALL))

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
        for flow in self.flows():
            flow.received.reset_gap()

    def figures(self) -> list[dict[str, Any]]:
        """What every receiver got of every source since `reset`: decoded frames, packets lost, and the
        longest time without a frame.
        """
        now = time.monotonic()
        return [
            {
                "receiver": flow.receiver.peer_id,
                "from": flow.received.peer,
                "source": flow.received.source,
                "frames": flow.received.frames - self._frames_before.get(id(flow.received), 0),
                "lost": flow.received.lost - self._lost_before.get(id(flow.received), 0),
                "longestGapMs": round(flow.received.gap(now) * 1000),
            }
            for flow in self.flows()
        ]

    def worst(self) -> dict[str, Any]:
        """The worst of all receivers since `reset`, and for how long that was."""
        figures = self.figures()
        return {
            "seconds": round(time.monotonic() - self.began, 1),
            "flows": len(figures),
            "fewestFrames": min(found["frames"] for found in figures),
            "mostLost": max(found["lost"] for found in figures),
            "longestGapMs": max(found["longestGapMs"] for found in figures),
            "longestAudioGapMs": max(f["longestGapMs"] for f in figures if f["source"] == "audio"),
        }


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
