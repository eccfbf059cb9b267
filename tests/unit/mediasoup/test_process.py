"""Finding and starting the worker's binary, with small programs in its place."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest

from mediaserver.mediasoup import WorkerStartError, create_worker, find_worker_bin
from mediaserver.mediasoup.process import spawn


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_binary_is_the_argument_else_the_environments_else_the_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argument, named = script(tmp_path / "argument", ":"), script(tmp_path / "named", ":")
    cached = tmp_path / "cache" / "worker" / "current" / "mediasoup-worker"
    cached.parent.mkdir(parents=True)
    script(cached, ":")
    monkeypatch.setenv("MAFALDA_WORKER_BIN", str(named))
    monkeypatch.setenv("MAFALDA_CACHE", str(tmp_path / "cache"))
    assert find_worker_bin(argument) == argument
    assert find_worker_bin() == named
    monkeypatch.delenv("MAFALDA_WORKER_BIN")
    assert find_worker_bin() == cached
    monkeypatch.delenv("MAFALDA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "mafalda").symlink_to(tmp_path / "cache")
    assert find_worker_bin() == tmp_path / "mafalda" / "worker" / "current" / "mediasoup-worker"


def test_without_a_binary_the_error_names_the_path_and_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAFALDA_WORKER_BIN", str(tmp_path / "none"))
    with pytest.raises(WorkerStartError, match=r"none.*MAFALDA_WORKER_BIN.*tools/build-worker"):
        find_worker_bin()
    (tmp_path / "plain").write_text("")
    with pytest.raises(WorkerStartError, match="can't be executed"):
        find_worker_bin(tmp_path / "plain")


async def test_the_process_has_exactly_its_five_descriptors_and_its_own_group(tmp_path: Path) -> None:
    program = script(tmp_path / "fds", "ls -l /proc/$$/fd > $1; cat /proc/$$/stat > $2; env > $3")
    outputs = [tmp_path / name for name in ("listing", "stat", "env")]
    with (tmp_path / "inheritable").open("w") as other:
        process = await spawn(program, [str(path) for path in outputs], {"PATH": os.environ["PATH"]})
        status = await asyncio.wait_for(process.exited, 10)
        assert other.fileno() > 2
    assert status.code == 0
    links = {line.split()[8]: line.split()[10] for line in outputs[0].read_text().splitlines()[1:]}
    # 10 and up, and the script itself, are the shell's own.
    theirs = {number: target for number, target in links.items() if int(number) < 10}
    assert sorted(theirs) == ["0", "1", "2", "3", "4"]
    assert theirs["0"] == "/dev/null"
    assert theirs["3"].startswith("socket:")
    assert theirs["4"].startswith("socket:")
    assert theirs["3"] != theirs["4"]
    fields = outputs[1].read_text().rsplit(")", 1)[1].split()
    assert int(fields[2]) == process.pid  # process group
    process.outgoing.close()
    process.incoming.close()


async def test_what_it_prints_is_logged_by_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = script(tmp_path / "talks", "echo one; echo two >&2; printf three")
    with caplog.at_level(logging.WARNING, logger="mediaserver.mediasoup.worker"):
        process = await spawn(program, [], {})
        await asyncio.wait_for(process.output_ended, 10)
    assert sorted(process.output) == ["one", "three", "two"]
    assert f"[worker {process.pid}] one" in caplog.text
    process.outgoing.close()
    process.incoming.close()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("exit 41", "MEDIASOUP_VERSION"),
        ("echo settings error: bad tag >&2; exit 42", "refuses its settings.*bad tag"),
        ("exit 3", "exit code 3"),
        ("kill -9 $$", "killed by signal 9"),
    ],
)
async def test_a_worker_that_ends_while_starting(tmp_path: Path, program: str, message: str) -> None:
    with pytest.raises(WorkerStartError, match=message):
        await create_worker(worker_bin=script(tmp_path / "worker", program))


async def test_a_worker_that_says_nothing_is_given_up_and_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = script(tmp_path / "worker", f"echo $$ > {pid_file}; exec sleep 60")
    with pytest.raises(WorkerStartError, match=r"did not come up within 0.3 s"):
        await create_worker(worker_bin=program, start_timeout=0.3)
    pid = int(pid_file.read_text())
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"process {pid} still runs")


async def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "worker"
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    with pytest.raises(WorkerStartError, match="can't start"):
        await create_worker(worker_bin=path)
