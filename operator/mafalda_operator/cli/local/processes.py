"""Processes that outlive who started them, and can still be told apart from whoever reuses their process id.

Each process has a file `run/NAME.json` with its id, its start time and the boot it belongs to, and its output
in `logs/NAME.log`. A signal is sent through a pidfd whose start time was checked, so it never reaches another
process. Linux only.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mafalda_operator.cli.local.errors import StartFailedError, StopFailedError

_PROC = Path("/proc")
_STATE, _START_TICKS = 0, 19  # fields 3 and 22 of /proc/PID/stat, counted after the command's name


@dataclass(frozen=True)
class ProcessRecord:
    """One process for all time: `start_ticks` is in clock ticks since the boot named by `boot_id`."""

    pid: int
    start_ticks: int
    boot_id: str


def boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on; None if there is no such process."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()  # a command's name may hold spaces and parentheses


def identify(pid: int) -> ProcessRecord | None:
    """The record of the process that has this id now; None if there is none."""
    fields = _stat(pid)
    return ProcessRecord(pid, int(fields[_START_TICKS]), boot_id()) if fields else None


def is_running(record: ProcessRecord) -> bool:
    """Whether exactly this process still runs. One that ended and was not yet waited for does not."""
    fields = _stat(record.pid)
    return (
        fields is not None
        and fields[_STATE] not in ("Z", "X")
        and int(fields[_START_TICKS]) == record.start_ticks
        and boot_id() == record.boot_id
    )


@contextlib.contextmanager
def _pidfd(record: ProcessRecord) -> Iterator[int | None]:
    """A pidfd of exactly this process, or None if it has ended."""
    try:
        fd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield fd if is_running(record) else None
    finally:
        os.close(fd)


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Sends a signal to exactly this process; False if it has ended."""
    with _pidfd(record) as fd:
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        return True


def wait(record: ProcessRecord, timeout: float) -> bool:
    """Waits until this process has ended, at most `timeout` seconds, and reaps it if it is our child."""
    with _pidfd(record) as fd:
        if fd is not None:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            if not poller.poll(max(0.0, timeout) * 1000):
                return False
    with contextlib.suppress(ChildProcessError):  # not our child: its own parent reaps it
        os.waitpid(record.pid, os.WNOHANG)
    return True


class ProcessGroup:
    """The processes of one directory. What it knows is in files, so any process may make one for the same
    directory.
    """

    def __init__(self, directory: Path) -> None:
        self._marker = directory / ".mafalda-processes"
        self._run = directory / "run"
        self._logs = directory / "logs"

    @property
    def prepared(self) -> bool:
        """Whether the directory was made by `prepare`, and is ours to remove."""
        return self._marker.is_file()

    def prepare(self) -> None:
        for folder in (self._run, self._logs):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._marker.touch()

    def spawn(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None
    ) -> ProcessRecord:
        """Starts `command` in a session of its own: without input, its output in the log of `name`.

        `environment` is added to ours. Raises StartFailedError if the program cannot be executed.
        """
        self.prepare()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            pid = os.posix_spawnp(
                command[0],
                list(command),
                {**os.environ, **(environment or {})},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGPIPE],
            )
        except OSError as error:
            raise StartFailedError(f"{name}: cannot execute {command[0]}: {error.strerror}") from error
        record = identify(pid)
        if record is None:
            raise StartFailedError(f"{name}: {command[0]} vanished at once")
        temporary = self._run / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(asdict(record)))
        temporary.rename(self._record_path(name))
        return record

    def records(self) -> dict[str, ProcessRecord]:
        """Every process started here and not stopped, running or not, by name in alphabetical order."""
        found = {}
        for path in sorted(self._run.glob("*.json")):
            found[path.stem] = ProcessRecord(**json.loads(path.read_text()))
        return found

    def running(self, name: str) -> bool:
        record = self.records().get(name)
        return record is not None and is_running(record)

    def send(self, name: str, number: signal.Signals) -> bool:
        """Sends a signal to the process of that name; False if it does not run."""
        record = self.records().get(name)
        return record is not None and send(record, number)

    def stop(self, names: Collection[str] | None = None, *, grace: float) -> None:
        """Ends the processes of these names (absent: all) and returns when they are gone.

        SIGTERM first, SIGKILL after `grace` seconds; 0 means SIGKILL at once. A stopped process is ended too.
        """
        chosen = {name: record for name, record in self.records().items() if names is None or name in names}
        if grace > 0:
            deadline = time.monotonic() + grace
            for record in chosen.values():
                send(record, signal.SIGTERM)
                send(record, signal.SIGCONT)
            for record in chosen.values():
                wait(record, deadline - time.monotonic())
        for name, record in chosen.items():
            send(record, signal.SIGKILL)
            if not wait(record, 10.0):
                raise StopFailedError(
                    f"{name} (process {record.pid}) survives SIGKILL: it hangs in the kernel"
                )
            self._record_path(name).unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def log_tail(self, name: str, lines: int = 15) -> str:
        """The last lines of that process's output; empty if there is none."""
        try:
            text = self.log(name).read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def copy_logs(self, folder: Path) -> None:
        """Copies every process's output to this folder, in place of what it had."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._logs, folder)

    def _record_path(self, name: str) -> Path:
        return self._run / f"{name}.json"
