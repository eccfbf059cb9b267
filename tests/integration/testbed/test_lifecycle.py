"""`tools/cluster` beside whatever runs, by a small testbed of another name: up, killed half-way, down."""

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed import network, stopping
from testbed.errors import TestbedError
from testbed.layout import control_plane
from testbed.programs import find_programs, missing_packages

ROOT = Path(__file__).parents[3]
NAME = f"mf{os.getpid()}"


def _why_not() -> str:
    if os.geteuid() != 0:
        return "the testbed needs root"
    if missing := missing_packages():
        return f"not installed: {' '.join(missing)}"
    try:
        find_programs()
    except TestbedError as error:
        return str(error)
    return ""


pytestmark = [pytest.mark.skipif(bool(_why_not()), reason=_why_not()), pytest.mark.timeout(240)]


def tool(directory: Path, *arguments: str) -> list[str]:
    return [str(ROOT / "tools" / "cluster"), "--dir", str(directory), "--name", NAME, *arguments]


def run(directory: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        tool(directory, *arguments), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where a testbed may be (pytest's paths are too long for sockets); nothing of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="mf-") as parent:
        place = Path(parent) / "testbed"
        yield place
        run(place, "down")
        assert_nothing_left(place)


def assert_nothing_left(place: Path) -> None:
    assert not place.exists()
    assert not network.exists(control_plane(NAME))
    assert not network.exists(f"{NAME}-n1")
    assert list(stopping.leftovers(place, NAME)) == []
    assert str(place) not in Path("/proc/self/mountinfo").read_text()


def test_up_is_complete_and_down_leaves_nothing(directory: Path):
    told = run(directory, "up", "--nodes", "1")
    assert "tools/cluster exec" in told, "it does not say what to do next"
    status = json.loads(run(directory, "status", "-o", "json"))
    assert status["running"]
    assert [(node["name"], node["ready"], node["cut"]) for node in status["nodes"]] == [
        (f"{NAME}-n1", True, False)
    ]
    node = json.loads(run(directory, "exec", "--", "kubectl", "get", "node", f"{NAME}-n1", "-o", "json"))
    assert node["metadata"]["labels"]["topology.kubernetes.io/zone"] == "a"
    assert not node["spec"].get("taints")
    run(directory, "exec", "--", "sh", "-c", "exit 7", code=7)
    run(directory, "up", "--nodes", "2", code=1)  # of two nodes it would be another one
    killed = next(record for record in stopping.leftovers(directory, NAME))
    os.kill(killed.pid, signal.SIGKILL)  # down does not rely on what runs
    assert "nothing is left" in run(directory, "down")
    assert_nothing_left(directory)
    assert "there is none" in run(directory, "down")


@pytest.mark.parametrize("moment", ["etcd", f"{NAME}-n1.containerd", f"{NAME}-n1.kubelet"])
def test_killed_up_is_cleared_by_down_and_completed_by_up(moment: str, directory: Path):
    starting = subprocess.Popen(tool(directory, "up", "--nodes", "1"), stdout=subprocess.DEVNULL)
    try:
        record = directory / "run" / f"{moment}.json"
        deadline = time.monotonic() + 60
        while not record.exists():
            assert time.monotonic() < deadline
            assert starting.poll() is None, "it ended before"
            time.sleep(0.01)
    finally:
        starting.kill()
        starting.wait()
    assert network.exists(control_plane(NAME))
    if moment.endswith("kubelet"):
        run(directory, "up", "--nodes", "1")
        assert json.loads(run(directory, "status", "-o", "json"))["running"]


def test_testbed_of_somebody_else_is_left_alone(directory: Path):
    run(directory, "up", "--nodes", "1")
    other = directory.with_name("other")
    refused = subprocess.run(
        tool(other, "up", "--nodes", "1"), capture_output=True, text=True, timeout=60, check=False
    )
    assert refused.returncode == 1
    assert "another testbed's" in refused.stderr
    refused = subprocess.run(tool(other, "down"), capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "another testbed's" in refused.stderr
    assert not other.exists()
    assert json.loads(run(directory, "status", "-o", "json"))["running"]
