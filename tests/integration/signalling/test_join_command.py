"""`mafalda join` as a user runs it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from mafalda_operator.cli.participant import Participant, synthetic
from support.media_server import MediaServer, token, until


async def join(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from mafalda_operator.cli.join import join; join()",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_it_sends_receives_and_records(server: MediaServer, tmp_path: Path) -> None:
    recording = tmp_path / "call.webm"
    both = (synthetic("audio"), synthetic("video", seed="alice"))
    async with Participant(server.url, token("alice"), publish=both) as alice:
        process = await join(
            server.url, "--token", token("bob"), "--publish", "audio", "--publish", "video",
            "--size", "160x120@10", "--record", str(recording), "--duration", "4s", "-o", "json",
        )  # fmt: skip
        picture = await until(lambda: alice.received.get(("bob", "video")), "bob's picture", timeout=20)
        await until(lambda: picture.frames > 5, "bob's picture is decoded", timeout=20)
        assert (picture.width, picture.height) == (160, 120)
        code, out, err = await ended(process)
    assert code == 0, err
    lines: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert lines[0] == {"event": "joined", "router": "shop/standup-a", "peers": ["alice"]}
    summary = lines[-1]
    assert summary["event"] == "summary"
    sources = {source["source"]: source for source in summary["sources"]}
    assert set(sources) == {"audio", "video"}
    for source in sources.values():
        assert source["participant"] == "alice"
        assert source["frames"] > 20
        assert source["lost"] == 0
        assert source["firstFrameMs"] < 5000
    with av.open(str(recording)) as container:
        assert {stream.type for stream in container.streams} == {"audio", "video"}
        frames = list(container.decode(video=0))
        assert len(frames) > 20
        assert (frames[0].width, frames[0].height) == (320, 240)


async def test_ctrl_c_leaves_with_a_goodbye(server: MediaServer) -> None:
    process = await join(server.url, "--token", token("bob"))
    (hosted,) = server.host.routers.values()
    await until(lambda: "bob" in hosted.participants, "bob has joined", timeout=20)
    process.send_signal(signal.SIGINT)
    code, out, err = await ended(process)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "joined at router shop/standup-a; here: nobody else"
    assert out.splitlines()[-1] == "received nothing"
    assert not hosted.participants


@pytest.mark.parametrize(
    ("claims", "said"),
    [({"exp": 1}, "token refused: expired"), ({"iss": "x"}, "token refused: wrongIssuer")],
)
async def test_a_refused_token_is_an_error(server: MediaServer, claims: dict[str, Any], said: str) -> None:
    code, _, err = await ended(await join(server.url, "--token", token("bob", **claims)))
    assert code == 1
    assert err == f"Error: {said}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense", "--token", "T"], "no WebSocket URL"),
        (["ws://x/?roomId=a/b", "--token", "T"], "session 'a/b'"),
        (["ws://x/", "--token", "x"], "mafalda token"),
        (["ws://x/", "--token", "T", "--publish", "screen"], "neither"),
        (["ws://x/", "--token", "T", "--record", "call.txt"], ".webm"),
    ],
)
async def test_mistakes_are_told_before_anything_is_dialled(arguments: list[str], said: str) -> None:
    given = [token("bob") if argument == "T" else argument for argument in arguments]
    code, out, err = await ended(await join(*given))
    assert code == 1
    assert said in err
    assert out == ""
