"""tools/cluster where there is no testbed, and what `down` takes for its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from testbed import programs, starting, stopping
from testbed.cluster import locked
from testbed.commands import cluster
from testbed.errors import CommandError, NotPossibleError, NotReadyError
from testbed.running import run, wait_until


def tool(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cluster, ["--dir", str(directory), *arguments])


def test_status_of_none_is_exit_code_1_in_both_forms(tmp_path: Path):
    told = tool(tmp_path / "none", "status", "-o", "json")
    assert told.exit_code == 1
    assert json.loads(told.output)["running"] is False
    told = tool(tmp_path / "none", "status")
    assert told.exit_code == 1
    assert "tools/cluster up" in told.output


@pytest.mark.parametrize(
    "arguments", [("cut", "1"), ("load", "image"), ("restart", "etcd"), ("exec", "true")]
)
def test_commands_without_a_testbed_say_how_to_start_one(tmp_path: Path, arguments: tuple[str, ...]):
    told = tool(tmp_path / "none", *arguments)
    assert told.exit_code == 1
    assert "tools/cluster up" in told.output
    assert not (tmp_path / "none").exists()


def test_wrong_arguments_are_exit_code_2(tmp_path: Path):
    for arguments in (("up", "--nodes", "0"), ("restart", "kubelet"), ("exec",), ("nothing",)):
        assert tool(tmp_path, *arguments).exit_code == 2


def test_only_root_may_start_it_and_is_told_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(programs, "missing_packages", lambda: ["containerd", "runc"])
    told = tool(tmp_path / "none", "up")
    assert told.exit_code == 1
    assert "sudo apt-get install -y --no-install-recommends containerd runc" in told.output


def test_folder_with_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "precious").write_text("mine")
    with locked(tmp_path), pytest.raises(NotPossibleError, match="left alone"):
        stopping.clear(tmp_path)
    assert (tmp_path / "precious").read_text() == "mine"


def test_other_processes_are_not_taken_for_a_nodes(tmp_path: Path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert other.pid not in [record.pid for record in stopping.leftovers(tmp_path)]
    finally:
        other.communicate(b"\n")


def test_lock_is_free_after_use(tmp_path: Path):
    for _ in range(2):
        with locked(tmp_path / "made"):
            assert (tmp_path / "made").is_dir()


def test_failed_and_hanging_programs_are_told(tmp_path: Path):
    with pytest.raises(CommandError, match="exit code 3: no such thing"):
        run("sh", "-c", "echo no such thing >&2; exit 3")
    with pytest.raises(CommandError, match="hung"):
        run("sleep", "60", timeout=0.1)


def test_waiting_ends_when_the_program_did():
    with pytest.raises(NotReadyError, match="etcd ended"):
        wait_until("ready", lambda: False, seconds=60, ended=lambda: ["etcd"])


def test_what_it_starts_does_not_hold_its_callers_files(tmp_path: Path):
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        tool(tmp_path / "none", "status")
        assert not os.get_inheritable(writing)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("directory", "told"),
    [("/tmp/" + "long" * 20, "too long for sockets"), ("/var/lib/testbed", "which nodes see their own of")],
)
def test_directory_that_cannot_work_is_refused(directory: str, told: str):
    with pytest.raises(NotPossibleError, match=told):
        starting.up(Path(directory), "mafalda", 1, [], print)
