import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mafalda_operator.cli.local.errors import StartFailedError
from mafalda_operator.cli.local.processes import ProcessGroup, identify, is_running, send, wait

SLEEP = ["sleep", "60"]
IGNORES_TERM = [
    sys.executable,
    "-c",
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True);"
    "sys.stdin.read(); signal.pause()",
]


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    group = ProcessGroup(tmp_path)
    yield group
    group.stop(grace=0)


def test_a_spawned_process_is_found_again_by_another_group_of_the_directory(
    group: ProcessGroup, tmp_path: Path
) -> None:
    record = group.spawn("a", SLEEP)
    again = ProcessGroup(tmp_path)
    assert again.records() == {"a": record}
    assert again.running("a")
    assert not again.running("b")


def test_it_runs_in_a_session_of_its_own_with_its_output_in_a_private_log(
    group: ProcessGroup, tmp_path: Path
) -> None:
    record = group.spawn(
        "a", ["sh", "-c", "echo $GREETING; echo there >&2"], environment={"GREETING": "hello"}
    )
    assert wait(record, 5)
    assert group.log_tail("a") == "hello\nthere"
    assert stat.S_IMODE(group.log("a").stat().st_mode) == 0o600
    sleeper = group.spawn("b", SLEEP)
    assert os.getsid(sleeper.pid) == sleeper.pid


def test_log_tail_keeps_the_last_lines_only(group: ProcessGroup) -> None:
    assert group.log_tail("nobody") == ""
    record = group.spawn("a", ["seq", "100"])
    assert wait(record, 5)
    assert group.log_tail("a", lines=2) == "99\n100"


def test_a_program_that_does_not_exist_fails_at_once(group: ProcessGroup) -> None:
    with pytest.raises(StartFailedError, match="a: cannot execute /no/such/program: No such file"):
        group.spawn("a", ["/no/such/program"])
    assert group.records() == {}


def test_stop_ends_a_process_and_forgets_it(group: ProcessGroup) -> None:
    record = group.spawn("a", SLEEP)
    group.stop(grace=5)
    assert not is_running(record)
    assert identify(record.pid) is None  # reaped, not a zombie
    assert group.records() == {}


def test_stop_ends_only_the_named_ones(group: ProcessGroup) -> None:
    kept, ended = group.spawn("kept", SLEEP), group.spawn("ended", SLEEP)
    group.stop(["ended", "unknown"], grace=5)
    assert is_running(kept)
    assert not is_running(ended)


def test_stop_kills_what_does_not_heed_sigterm(group: ProcessGroup) -> None:
    record = group.spawn("deaf", IGNORES_TERM)
    heard = threading.Event()
    while not group.log_tail("deaf"):
        heard.wait(0.01)
    group.stop(grace=0.05)
    assert not is_running(record)


def test_stop_ends_a_stopped_process_within_the_grace(group: ProcessGroup) -> None:
    record = group.spawn("a", SLEEP)
    assert group.send("a", signal.SIGSTOP)
    group.stop(grace=30)  # the test's own timeout would strike if SIGTERM waited for nobody to continue it
    assert not is_running(record)


def test_a_reused_process_id_is_never_signalled(group: ProcessGroup) -> None:
    record = group.spawn("a", SLEEP)
    stranger = replace(record, start_ticks=record.start_ticks - 1)
    assert not is_running(stranger)
    assert not send(stranger, signal.SIGKILL)
    assert wait(stranger, 0)
    assert is_running(record)


def test_a_record_of_an_earlier_boot_is_never_signalled(group: ProcessGroup) -> None:
    record = group.spawn("a", SLEEP)
    earlier = replace(record, boot_id="00000000-0000-0000-0000-000000000000")
    assert not is_running(earlier)
    assert not send(earlier, signal.SIGKILL)
    assert is_running(record)


def test_stop_leaves_a_stranger_with_a_recorded_id_alone(group: ProcessGroup, tmp_path: Path) -> None:
    record = group.spawn("a", SLEEP)
    path = tmp_path / "run" / "a.json"
    text = path.read_text()
    path.write_text(text.replace(str(record.start_ticks), str(record.start_ticks - 1)))
    group.stop(grace=5)
    assert is_running(record)
    assert group.records() == {}
    path.write_text(text)


def test_a_zombie_does_not_run() -> None:
    pid = os.posix_spawnp("true", ["true"], os.environ)
    record = identify(pid)
    assert record is not None
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # ended, not reaped
    assert not is_running(record)
    assert wait(record, 5)
    assert identify(pid) is None


def test_wait_gives_up_after_its_time(group: ProcessGroup) -> None:
    record = group.spawn("a", SLEEP)
    assert not wait(record, 0)


def test_identify_reads_names_with_spaces_and_parentheses(group: ProcessGroup, tmp_path: Path) -> None:
    program = tmp_path / "a) (b"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    record = group.spawn("a", [str(program)])
    assert identify(record.pid) == record
