"""Recording what is received into a file that plays: one picture and one sound of one participant."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av import AudioFrame, VideoFrame

from mafalda_operator.cli.participant.errors import ParticipantError
from mafalda_operator.cli.participant.received import Received

_QUEUE = 256
"""Frames that may wait for the encoder; more are left out of the recording."""
_RATE = 48_000
_SETTLE = 2.0
"""Seconds to wait for the second of sound and picture: a file's streams are fixed at its beginning."""
_CODECS = {".webm": ("libvpx", "libopus"), ".mkv": ("libvpx", "libopus"), ".mp4": ("libx264", "aac")}

_Item = tuple[str, VideoFrame | AudioFrame, float]


class RecordingError(ParticipantError):
    """The file can't be written."""


class Recorder:
    """Feed `take` with frames; `close` finishes the file.

    The first participant that is received, or `peer`, is recorded: its first picture and its first sound.
    Encoding is done in a thread of its own, and frames are dropped (and counted) rather than kept waiting.
    """

    def __init__(self, path: Path, *, peer: str | None = None) -> None:
        """Raises RecordingError for a kind of file that is not .webm, .mkv or .mp4."""
        if path.suffix.lower() not in _CODECS:
            raise RecordingError(f"{path}: the name must end in {', '.join(sorted(_CODECS))}")
        self._path = path
        self._peer = peer
        self._chosen: dict[str, Received] = {}
        self._frames: queue.Queue[_Item | None] = queue.Queue(_QUEUE)
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._fault: Exception | None = None
        self.written = 0
        self.dropped = 0
        self._thread.start()

    def take(self, received: Received, frame: VideoFrame | AudioFrame) -> None:
        """Records the frame if it is of what is recorded. For Participant's `on_frame`."""
        self._peer = self._peer or received.peer
        if received.peer != self._peer or self._chosen.setdefault(received.kind, received) is not received:
            return
        try:
            self._frames.put_nowait((received.kind, frame, time.monotonic()))
        except queue.Full:
            self.dropped += 1

    async def close(self) -> None:
        """Raises RecordingError when the file could not be written, or nothing came."""
        await asyncio.to_thread(self._frames.put, None)
        await asyncio.to_thread(self._thread.join)
        if self._fault is not None:
            raise RecordingError(f"{self._path}: {self._fault}") from self._fault
        if not self.written:
            raise RecordingError(f"{self._path}: nothing was received, so there is no recording")

    # -- in the thread ---------------------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            if not (first := self._collect()):
                return
            with av.open(str(self._path), "w") as container:
                file = _File(container, self._path.suffix.lower(), first)
                for item in first:
                    self.written += file.add(*item)
                while (later := self._frames.get()) is not None:
                    self.written += file.add(*later)
                file.finish()
        except (OSError, ValueError, av.FFmpegError) as error:
            self._fault = error
            self._discard()

    def _collect(self) -> list[_Item]:
        """The first frames, until both kinds are there or the time for it is over."""
        first: list[_Item] = []
        while not first or ({item[0] for item in first} < {"audio", "video"}):
            if first and time.monotonic() - first[0][2] > _SETTLE:
                break
            with contextlib.suppress(queue.Empty):
                item = self._frames.get(timeout=0.1)
                if item is None:
                    self._frames.put(None)
                    break
                first.append(item)
        return first

    def _discard(self) -> None:
        while self._frames.get() is not None:
            self.dropped += 1


class _File:
    """The open container with its streams; times are those of arrival, so gaps stay gaps."""

    def __init__(self, container: Any, suffix: str, first: list[_Item]) -> None:
        self._container = container
        self._start = first[0][2]
        self._last = {"audio": -1, "video": -1}
        self._streams: dict[str, Any] = {}
        picture = next((frame for _, frame, _ in first if isinstance(frame, VideoFrame)), None)
        video, audio = _CODECS[suffix]
        if picture is not None:
            stream = container.add_stream(video, rate=30)
            stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.options = (
                {"deadline": "realtime", "cpu-used": "8"} if video == "libvpx" else {}
            )
            self._streams["video"] = stream
        if any(kind == "audio" for kind, _, _ in first):
            self._streams["audio"] = container.add_stream(audio, rate=_RATE, layout="stereo")
        self._resampler = av.AudioResampler(format=_sample_format(audio), layout="stereo", rate=_RATE)

    def add(self, kind: str, frame: VideoFrame | AudioFrame, at: float) -> int:
        """Encodes a frame; 1 if it is in the file."""
        stream = self._streams.get(kind)
        if stream is None:
            return 0
        if isinstance(frame, VideoFrame):
            frame = frame.reformat(width=stream.width, height=stream.height, format="yuv420p")
            self._stamp(frame, kind, at, 1000)
            self._container.mux(stream.encode(frame))
            return 1
        for piece in self._resampler.resample(frame):
            self._stamp(piece, kind, at, _RATE)
            self._container.mux(stream.encode(piece))
        return 1

    def _stamp(self, frame: VideoFrame | AudioFrame, kind: str, at: float, rate: int) -> None:
        arrival = int((at - self._start) * rate)
        length = frame.samples if isinstance(frame, AudioFrame) else 1
        late = arrival - self._last[kind] > rate // 2
        # Sound follows on sample by sample, for arrival jitters; only a real gap moves it.
        frame.pts = arrival if kind == "video" or late else self._last[kind]
        frame.pts = max(frame.pts, self._last[kind])
        frame.time_base = Fraction(1, rate)
        self._last[kind] = frame.pts + length

    def finish(self) -> None:
        for stream in self._streams.values():
            self._container.mux(stream.encode(None))


def _sample_format(codec: str) -> str:
    return "fltp" if codec == "aac" else "s16"
