"""What `mafalda join` prints: lines for people, or a JSON object a line."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import click

from mafalda_operator.cli.participant import Event, Joined, Participant, Received

_INTERVAL = 1.0


class Output:
    """Prints to stdout as things happen."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json

    def event(self, event: Event) -> None:
        """Joins and losses."""
        if isinstance(event, Joined):
            what = "rejoined" if event.again else "joined"
            peers = ", ".join(event.peers) or "nobody else"
            self._print(
                {"event": what, "router": event.router, "peers": list(event.peers)},
                f"{what} at router {event.router}; here: {peers}",
            )
            return
        code = "no close code" if event.code is None else f"code {event.code}"
        then = "over" if event.pause is None else f"dialling again in {event.pause:.1f} s"
        self._print(
            {"event": "left", "code": event.code, "reason": event.reason, "dialAgainIn": event.pause},
            f"left: {event.reason} ({code}); {then}",
        )

    async def keep_printing(self, participant: Participant) -> None:
        """Every second what is received."""
        while True:
            await asyncio.sleep(_INTERVAL)
            now = time.monotonic()
            for received in participant.received.values():
                figures = self._figures(received, now, participant)
                self._print({"event": "receiving", **figures}, _line(figures))

    def summary(self, participant: Participant) -> None:
        now = time.monotonic()
        sources = [self._figures(received, now, participant) for received in participant.received.values()]
        text = "received nothing" if not sources else "\n".join("in all: " + _line(s) for s in sources)
        self._print({"event": "summary", "joins": participant.joins, "sources": sources}, text)

    def _figures(self, received: Received, now: float, participant: Participant) -> dict[str, Any]:
        wanted = max(participant.dialled_at or received.offered_at, received.offered_at)
        first = received.time_to_first_frame(wanted)
        return {
            "participant": received.peer,
            "source": received.source,
            "kind": received.kind,
            "frames": received.frames,
            "framesPerSecond": round(received.rate(now), 1),
            "lost": received.lost,
            "firstFrameMs": None if first is None else round(first * 1000),
            "longestGapMs": round(received.gap(now) * 1000),
            "width": received.width,
            "height": received.height,
            "paused": received.paused,
            "ended": received.ended,
        }

    def _print(self, data: dict[str, Any], text: str) -> None:
        click.echo(json.dumps(data) if self._json else text)


def _line(figures: dict[str, Any]) -> str:
    size = f" {figures['width']}x{figures['height']}" if figures["width"] else ""
    first = "none yet" if figures["firstFrameMs"] is None else f"after {figures['firstFrameMs']} ms"
    state = " paused" if figures["paused"] else " ended" if figures["ended"] else ""
    return (
        f"{figures['participant']}/{figures['source']}{size}{state}: {figures['frames']} frames,"
        f" {figures['framesPerSecond']}/s, {figures['lost']} packets lost, first {first}"
    )
