from fractions import Fraction
from pathlib import Path

import av
import pytest
from aiortc.mediastreams import MediaStreamError
from mafalda_operator.cli.participant import SourceError, VideoFormat, from_file, parse, synthetic


def write_clip(path: Path, *, audio: bool = True, video: bool = True, seconds: float = 0.2) -> Path:
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libvpx", rate=20) if video else None
        sound = container.add_stream("libopus", rate=48000, layout="mono") if audio else None
        if picture is not None:
            picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
            for number in range(int(seconds * 20)):
                frame = av.VideoFrame(64, 48, "yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 20)
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        if sound is not None:
            silence = av.AudioFrame(format="s16", layout="mono", samples=int(48000 * seconds))
            silence.planes[0].update(bytes(silence.planes[0].buffer_size))
            silence.pts, silence.sample_rate, silence.time_base = 0, 48000, Fraction(1, 48000)
            container.mux(sound.encode(silence))
            container.mux(sound.encode(None))
    return path


async def test_the_picture_moves_at_its_rate() -> None:
    track = synthetic("video", seed="a", form=VideoFormat(322, 240, 50)).open()
    frames = [await track.recv() for _ in range(3)]
    assert [(frame.width, frame.height) for frame in frames] == [(322, 240)] * 3
    assert [frame.pts for frame in frames] == [0, 1800, 3600]
    assert len({bytes(frame.planes[0]) for frame in frames}) == 3


async def test_each_participant_has_its_colour() -> None:
    one, two = [await synthetic("video", seed=seed).open().recv() for seed in ("alice", "bob")]
    assert bytes(one.planes[1]) != bytes(two.planes[1])


async def test_the_tone_is_steady() -> None:
    track = synthetic("audio").open()
    frames = [await track.recv() for _ in range(3)]
    assert [frame.pts for frame in frames] == [0, 960, 1920]
    samples = memoryview(bytes(frames[0].planes[0])[: 960 * 2]).cast("h")
    assert max(samples) > 3000
    assert abs(samples[-1] - samples[0]) < 400, "one frame goes on where the other ends"


async def test_a_file_is_played_again_and_again(tmp_path: Path) -> None:
    sources = {source.name: source for source in from_file(write_clip(tmp_path / "clip.webm"))}
    assert set(sources) == {"clip-audio", "clip-video"}
    track = sources["clip-video"].open()
    times = [(await track.recv()).time for _ in range(10)]
    assert times == sorted(times)
    assert 0.4 < times[-1] < 0.8, "two rounds and a half, in real time"
    sound = sources["clip-audio"].open()
    stamps = [(await sound.recv()).pts for _ in range(15)]
    assert stamps == sorted(set(stamps))
    track.stop()
    with pytest.raises(MediaStreamError):
        await track.recv()


def test_a_file_of_one_kind_has_one_source(tmp_path: Path) -> None:
    assert [s.kind for s in from_file(write_clip(tmp_path / "a.webm", video=False))] == ["audio"]
    assert [s.kind for s in from_file(write_clip(tmp_path / "v.webm", audio=False))] == ["video"]


def test_what_can_not_be_published_is_named(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no media")
    with pytest.raises(SourceError, match=r"notes\.txt"):
        parse(str(text))
    with pytest.raises(SourceError, match="neither"):
        parse("screen")


def test_names_on_the_command_line() -> None:
    assert [source.name for source in (*parse("audio"), *parse("video"))] == ["audio", "video"]
