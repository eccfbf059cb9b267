"""The README's first command, as a newcomer runs it: `mafalda demo`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def demo(*arguments: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("mafalda")), "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.timeout(300)
def test_every_step_holds_and_nothing_is_left(tmp_path: Path):
    report, temporary = tmp_path / "report.json", tmp_path / "tmp"
    temporary.mkdir()
    done = demo("--report", str(report), temporary=temporary)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(report.read_text())
    assert measured["passed"]
    assert measured["leftovers"] == []
    assert len(measured["first_frame_ms"]) == 12, "three participants, two others each, audio and video"
    assert {(entry["receiver"], entry["peer"]) for entry in measured["frames"]} == {
        (receiver, peer)
        for receiver in ("alice", "bob", "carol")
        for peer in ("alice", "bob", "carol")
        if receiver != peer
    }
    assert all(entry["decoded"] > 0 for entry in measured["frames"])
    assert len({router["server"] for router in measured["routers"]}) == 2, "one server was lost"
    assert len(measured["routers"]) == len(measured["links"]) == 3
    assert isinstance(measured["session_ready_ms"], int)
    assert isinstance(measured["recovery_ms"], int)
    assert list(temporary.iterdir()) == []


def test_a_manifest_without_a_gateway_port_is_a_clear_error(tmp_path: Path):
    manifest = tmp_path / "demo.yaml"
    text = (ROOT / "examples" / "demo.yaml").read_text()
    manifest.write_text(text.replace("ws://127.0.0.1:8080", "ws://media.example.com"))
    done = demo("--file", str(manifest), temporary=tmp_path)
    assert done.returncode == 1
    assert "spec.publicURL names no port" in done.stdout
