"""One track for several attachments: while a participant moves, both send the same picture and sound."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.frame import Frame
from av.packet import Packet

_Media: TypeAlias = "Frame | Packet[Any]"

BACKLOG = 25
"""Frames that wait for a sender that is late; then the oldest are dropped."""


class SharedTrack:
    """Opens a track when the first tap is made, stops it with the last one; then it can be opened anew."""

    def __init__(self, open_track: Callable[[], MediaStreamTrack]) -> None:
        self._open = open_track
        self._taps: set[Tap] = set()
        self._reader: asyncio.Task[None] | None = None

    def tap(self) -> Tap:
        """One more sender of the track. Stop it in the end."""
        if self._reader is None or self._reader.done():
            track = self._open()
            self._kind = track.kind
            self._reader = asyncio.create_task(self._read(track), name=f"shared {track.kind}")
        tap = Tap(self._kind, self._forget)
        self._taps.add(tap)
        return tap

    def _forget(self, tap: Tap) -> None:
        self._taps.discard(tap)
        if not self._taps and self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def _read(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                for tap in tuple(self._taps):
                    tap.put(frame)
        except MediaStreamError:
            for tap in tuple(self._taps):
                tap.put(None)
        finally:
            track.stop()


class Tap(MediaStreamTrack):
    """What one sender reads. Frames count from its first `recv` on, so that nothing old is sent."""

    def __init__(self, kind: str, on_stop: Callable[[Tap], None]) -> None:
        super().__init__()
        self.kind = kind
        self._on_stop = on_stop
        self._frames: deque[_Media | None] = deque(maxlen=BACKLOG)
        self._more = asyncio.Event()
        self._wanted = False

    def put(self, frame: _Media | None) -> None:
        """A frame of the shared track; None: it has ended."""
        if self._wanted or frame is None:
            self._frames.append(frame)
            self._more.set()

    async def recv(self) -> _Media:
        self._wanted = True
        while not self._frames and self.readyState == "live":
            self._more.clear()
            await self._more.wait()
        frame = self._frames.popleft() if self._frames else None
        if frame is None:
            self.stop()
            raise MediaStreamError
        return frame

    def stop(self) -> None:
        super().stop()
        self._more.set()
        with contextlib.suppress(RuntimeError):  # the loop may be closed when a track is collected
            self._on_stop(self)
