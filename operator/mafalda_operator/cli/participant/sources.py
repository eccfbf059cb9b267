"""What a participant publishes: a moving picture, a tone, or a media file."""

from __future__ import annotations

import array
import asyncio
import functools
import math
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.container import InputContainer
from av.frame import Frame

from mafalda_operator.cli.participant.errors import SourceError

Kind = Literal["audio", "video"]

_VIDEO_CLOCK = 90_000
_AUDIO_RATE = 48_000
_AUDIO_SAMPLES = 960
"""20 ms: what an Opus packet carries."""
_TONE_HERTZ = 500
"""A whole number of periods fits in 20 ms, so one frame repeated is a steady tone."""
_LATE = 0.5
"""Seconds a source may fall behind before it skips frames."""


@dataclass(frozen=True)
class Source:
    """Something to publish. `name` is stable; `open` makes a fresh track for each attachment."""

    name: str
    kind: Kind
    open: Callable[[], MediaStreamTrack]


@dataclass(frozen=True)
class VideoFormat:
    """Size in pixels (even) and frames a second of the synthetic picture."""

    width: int = 320
    height: int = 240
    rate: int = 15


class _Pace:
    """Lets a track run in real time: frame n is due n/rate seconds after the first."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._start: float | None = None
        self._count = -1

    async def next(self) -> int:
        """The number of the next frame, once it is due; numbers are skipped when far behind."""
        now = time.monotonic()
        if self._start is None:
            self._start = now
        self._count += 1
        due = self._start + self._count / self._rate
        if now - due > _LATE:
            self._count = int((now - self._start) * self._rate)
        elif due > now:
            await asyncio.sleep(due - now)
        return self._count


class MovingPicture(MediaStreamTrack):
    """Diagonal stripes that move, in a colour that follows from `seed`."""

    kind = "video"

    def __init__(self, form: VideoFormat, seed: str) -> None:
        super().__init__()
        self._form = form
        self._pace = _Pace(form.rate)
        shade = bytes(int(128 + 96 * math.sin(2 * math.pi * x / 64)) for x in range(64))
        self._row = shade * (2 * form.width // 64 + 2)
        colour = zlib.crc32(seed.encode())
        self._chroma = (64 + colour % 128, 64 + (colour >> 8) % 128)

    async def recv(self) -> av.VideoFrame:
        number = await self._pace.next()
        form = self._form
        frame = av.VideoFrame(form.width, form.height, "yuv420p")
        luma = frame.planes[0]
        padding = bytes(luma.line_size - form.width)
        shift = number * 4 % 64
        lines = (self._row[at : at + form.width] + padding for at in self._starts(shift))
        luma.update(b"".join(lines))
        for plane, value in zip(frame.planes[1:], self._chroma, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts = number * _VIDEO_CLOCK // form.rate
        frame.time_base = Fraction(1, _VIDEO_CLOCK)
        return frame

    def _starts(self, shift: int) -> Iterator[int]:
        return ((shift + y) % 64 for y in range(self._form.height))


class Tone(MediaStreamTrack):
    """A quiet, steady tone of 500 Hz."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._pace = _Pace(_AUDIO_RATE / _AUDIO_SAMPLES)
        step = 2 * math.pi * _TONE_HERTZ / _AUDIO_RATE
        wave = (int(4000 * math.sin(step * n)) for n in range(_AUDIO_SAMPLES))
        self._samples = array.array("h", wave).tobytes()

    async def recv(self) -> av.AudioFrame:
        number = await self._pace.next()
        frame = av.AudioFrame(format="s16", layout="mono", samples=_AUDIO_SAMPLES)
        frame.planes[0].update(self._samples)
        frame.sample_rate = _AUDIO_RATE
        frame.pts = number * _AUDIO_SAMPLES
        frame.time_base = Fraction(1, _AUDIO_RATE)
        return frame


class FileTrack(MediaStreamTrack):
    """One stream of a media file, decoded, in real time, again and again.

    A round lasts as long as the file, not the stream, so that audio and video of one file stay together.
    """

    def __init__(self, path: Path, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self._frames: Iterator[Frame] | None = _frames(path, kind)
        self._start: float | None = None

    async def recv(self) -> Frame:
        frames = self._frames
        frame = None if frames is None else await asyncio.to_thread(next, frames, None)
        if frame is None or self.readyState != "live":
            self.stop()
            raise MediaStreamError
        now, at = time.monotonic(), frame.time or 0.0
        if self._start is None:
            self._start = now - at
        if (due := self._start + at) > now:
            await asyncio.sleep(due - now)
        return frame

    def stop(self) -> None:
        super().stop()
        self._frames = None


def _frames(path: Path, kind: Kind) -> Iterator[Frame]:
    """Frames without end, their times rising over all rounds."""
    clock, begin = (_AUDIO_RATE if kind == "audio" else _VIDEO_CLOCK), Fraction(0)
    while True:
        with av.open(str(path)) as container:
            length = Fraction(container.duration or 0, av.time_base)
            count, end = 0, begin
            for frame in _decoded(container, kind):
                count += 1
                at = begin + (frame.pts or 0) * (frame.time_base or Fraction(0))
                frame.pts, frame.time_base = int(at * clock), Fraction(1, clock)
                end = at + Fraction(1, 50)
                yield frame
        if not count:
            return
        begin = max(begin + length, end)


def _decoded(container: InputContainer, kind: Kind) -> Iterator[Frame]:
    if kind == "video":
        first: int | None = None
        for picture in container.decode(video=0):
            if picture.pts is not None:
                first = picture.pts if first is None else first
                picture.pts -= first
                yield picture
        return
    resampler = av.AudioResampler(format="s16", layout="stereo", rate=_AUDIO_RATE, frame_size=_AUDIO_SAMPLES)
    samples = 0
    for sound in container.decode(audio=0):
        for piece in resampler.resample(sound):
            piece.pts, piece.time_base = samples, Fraction(1, _AUDIO_RATE)
            samples += piece.samples
            yield piece


def synthetic(kind: Kind, *, seed: str = "", form: VideoFormat | None = None) -> Source:
    """The tone or the moving picture, named `audio` or `video`."""
    if kind == "audio":
        return Source("audio", "audio", Tone)
    chosen = form or VideoFormat()
    return Source("video", "video", lambda: MovingPicture(chosen, seed))


def from_file(path: Path) -> list[Source]:
    """The first audio and video stream of a media file, named after it: `clip-audio`, `clip-video`.

    Raises SourceError when it is no media file, or has neither.
    """
    try:
        with av.open(str(path)) as container:
            kinds: list[Kind] = []
            if container.streams.audio:
                kinds.append("audio")
            if container.streams.video:
                kinds.append("video")
    except (OSError, av.FFmpegError) as error:
        raise SourceError(f"{path} can't be published: {error}") from error
    if not kinds:
        raise SourceError(f"{path} has neither audio nor video")
    return [Source(f"{path.stem}-{kind}", kind, functools.partial(FileTrack, path, kind)) for kind in kinds]


def parse(argument: str, *, seed: str = "", form: VideoFormat | None = None) -> list[Source]:
    """The sources that `--publish ARGUMENT` names: `audio`, `video`, or a media file's."""
    if argument in ("audio", "video"):
        return [synthetic("audio" if argument == "audio" else "video", seed=seed, form=form)]
    path = Path(argument)
    if not path.is_file():
        raise SourceError(f"{argument!r} is neither `audio`, `video` nor a file")
    return from_file(path)
