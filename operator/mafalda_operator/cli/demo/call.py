"""The demo's participants and what they receive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

from mafalda_operator.cli.demo.errors import DemoError
from mafalda_operator.cli.demo.report import FirstFrame, Frames
from mafalda_operator.cli.participant import CallEnded, Participant, Received, synthetic

SOURCES: tuple[Literal["audio", "video"], ...] = ("audio", "video")
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Flow:
    """One source as one participant receives it."""

    receiver: Participant
    received: Received

    def __str__(self) -> str:
        return f"{self.receiver.peer_id} from {self.received.peer} ({self.received.source})"


class Call:
    """Up to three participants in one session; they leave when the block ends."""

    def __init__(self) -> None:
        self.participants: dict[str, Participant] = {}
        self._stack = AsyncExitStack()
        self._first: dict[tuple[str, str, str], FirstFrame] = {}

    async def __aenter__(self) -> Call:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def join(self, url: str, token: str, *, publish: bool) -> Participant:
        """Take part. Raises DemoError when refused."""
        participant = Participant(url, token)
        try:
            await self._stack.enter_async_context(participant)
        except CallEnded as error:
            raise DemoError(f"{participant.peer_id} could not join: {error.reason}") from error
        self.participants[participant.peer_id] = participant
        if publish:
            await self.publish(participant)
        return participant

    async def publish(self, participant: Participant) -> None:
        """Send audio and moving video from now on."""
        for kind in SOURCES:
            await participant.publish(synthetic(kind, seed=participant.peer_id))

    def flows(self) -> Iterator[Flow]:
        """Every source that somebody publishes, as each of the others receives it (or should)."""
        for receiver in self.participants.values():
            for publisher in self.participants.values():
                if publisher is receiver:
                    continue
                for source in publisher.sources:
                    received = receiver.received.get((publisher.peer_id, source))
                    if received is not None:
                        yield Flow(receiver, received)

    def expected(self) -> int:
        """How many flows there should be."""
        others = len(self.participants) - 1
        return sum(len(participant.sources) * others for participant in self.participants.values())

    def all_flowing(self, *, since: float = 0.0, rate: float = 0.0) -> bool:
        """Whether every flow has decoded a frame since ``since``, at ``rate`` frames a second or more."""
        flows = list(self.flows())
        now = time.monotonic()
        return len(flows) == self.expected() and all(
            flow.received.last_frame_at is not None
            and flow.received.last_frame_at > since
            and flow.received.rate(now) >= rate
            for flow in flows
        )

    async def until(self, what: str, holds: Callable[[], bool], *, seconds: float) -> None:
        """Wait for a condition. Raises DemoError naming it and what is received instead."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                raise DemoError(f"{what}: not within {seconds:g} s. {self.describe()}")
            await asyncio.sleep(POLL_SECONDS)

    def describe(self) -> str:
        """One line a flow, for errors."""
        now = time.monotonic()
        flows = "; ".join(
            f"{flow}: {flow.received.frames} frames, {flow.received.rate(now):.0f}/s" for flow in self.flows()
        )
        return f"{len(list(self.flows()))} of {self.expected()} flows. {flows}"

    def first_frames(self) -> list[FirstFrame]:
        """Time to first frame of every flow that had one, from when both sides were there.

        Kept once known, since a later join or publish moves the moment from which it counts.
        """
        for flow in self.flows():
            key = (flow.receiver.peer_id, flow.received.peer, flow.received.source)
            publisher = self.participants[flow.received.peer]
            published = publisher.published_at.get(flow.received.source)
            if key in self._first or published is None or flow.receiver.joined_at is None:
                continue
            seconds = flow.received.time_to_first_frame(max(published, flow.receiver.joined_at))
            if seconds is not None:
                self._first[key] = FirstFrame(*key, ms=max(0, round(seconds * 1000)))
        return list(self._first.values())

    def frames(self) -> list[Frames]:
        """Totals of every flow."""
        return [
            Frames(
                flow.receiver.peer_id,
                flow.received.peer,
                flow.received.source,
                flow.received.frames,
                flow.received.lost,
            )
            for flow in self.flows()
        ]

    def routers(self) -> Mapping[str, str]:
        """`namespace/name` of each participant's router."""
        return {name: participant.router for name, participant in self.participants.items()}
