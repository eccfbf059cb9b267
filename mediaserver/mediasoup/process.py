"""The worker process: finding its binary, starting it, and learning of its end.

It is started with posix_spawn (safe beside threads; no preexec_fn) so that exactly the descriptors 0 to 4
are open in it: /dev/null, two for output that is logged, and the two ends of the channel. It leads a process
group of its own, lest a terminal's Ctrl-C end the workers before their server has drained. It ends by
itself when descriptor 3 closes, so it never outlives us, even if we are killed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import msgspec

from .errors import WorkerStartError

WORKER_VERSION: Final = "3.27.1"
"""The mediasoup version whose worker, and whose messages, this package speaks to."""

_REMEDY: Final = "build the worker with tools/build-worker, or name its binary in MAFALDA_WORKER_BIN"
_LONGEST_LINE: Final = 8_192
_KEPT_LINES: Final = 5
# Python ignores PIPE and XFSZ, and a shell's background job ignores INT and QUIT; the worker gets them all.
_DEFAULT_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)

logger = logging.getLogger("mediaserver.mediasoup.worker")


def find_worker_bin(worker_bin: str | os.PathLike[str] | None = None) -> Path:
    """The worker's binary: the argument, else MAFALDA_WORKER_BIN, else the build's cache.

    Raises WorkerStartError, with the remedy, if it is not there or can't be executed.
    """
    named = worker_bin or os.environ.get("MAFALDA_WORKER_BIN")
    if named:
        path, source = Path(named), "worker_bin" if worker_bin else "MAFALDA_WORKER_BIN"
    else:
        path, source = _cached_worker_bin(), "the cache"
    if not path.is_file():
        raise WorkerStartError(f"no mediasoup-worker at {path} (from {source}); {_REMEDY}")
    if not os.access(path, os.X_OK):
        raise WorkerStartError(f"{path} (from {source}) can't be executed; {_REMEDY}")
    return path


def _cached_worker_bin() -> Path:
    cache = os.environ.get("MAFALDA_CACHE")
    if not cache:
        base = os.environ.get("XDG_CACHE_HOME")
        cache = str((Path(base) if base else Path.home() / ".cache") / "mafalda")
    return Path(cache) / "worker" / "current" / "mediasoup-worker"


class ExitStatus(msgspec.Struct, frozen=True):
    """How a process ended: exactly one of `code` and `signal`, or neither if somebody else reaped it."""

    code: int | None = None
    signal: int | None = None


class WorkerProcess:
    """A running worker process and our ends of its channel."""

    def __init__(self, pid: int, outgoing: socket.socket, incoming: socket.socket) -> None:
        self.pid = pid
        self.outgoing = outgoing
        self.incoming = incoming
        self.output: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        """The last lines that it wrote to stdout and stderr."""
        self.output_ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.exited = watch_exit(pid)

    async def log_output(self, pipe: IO[bytes]) -> None:
        """Logs what the process writes to `pipe` from now on, and keeps the last lines."""
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: _Output(self._on_line, self.output_ended), pipe)

    def _on_line(self, line: str) -> None:
        self.output.append(line)
        logger.warning("[worker %d] %s", self.pid, line)

    def kill(self) -> None:
        """Ends the process now; nothing if it has ended."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def watch_exit(pid: int) -> asyncio.Future[ExitStatus]:
    """How a child ends, once it has; reaps it.

    Raises WorkerStartError, having killed it, where no descriptor is left or the kernel is before Linux 5.3.
    """
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise WorkerStartError(f"can't watch worker {pid} (pidfd_open): {error}") from error
    exited: asyncio.Future[ExitStatus] = loop.create_future()

    def on_exit() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            exited.set_result(ExitStatus())
            return
        code = os.waitstatus_to_exitcode(status)
        exited.set_result(ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code))

    loop.add_reader(pidfd, on_exit)
    return exited


class _Output(asyncio.Protocol):
    """Logs what the process writes, by lines of bounded length."""

    def __init__(self, on_line: Callable[[str], None], ended: asyncio.Future[None]) -> None:
        self._on_line = on_line
        self._ended = ended
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._emit(line)
        if len(self._rest) > _LONGEST_LINE:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        text = line[:_LONGEST_LINE].decode(errors="replace").rstrip()
        if text:
            self._on_line(text)

    def connection_lost(self, exc: Exception | None) -> None:
        self._emit(self._rest)
        if not self._ended.done():
            self._ended.set_result(None)


async def spawn(binary: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> WorkerProcess:
    """Starts the worker. Raises WorkerStartError if the system refuses."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        try:
            outgoing, requests = socket.socketpair()
            ours.callback(outgoing.close)
            theirs.callback(requests.close)
            incoming, answers = socket.socketpair()
            ours.callback(incoming.close)
            theirs.callback(answers.close)
            read_end, write_end = os.pipe()
            output = ours.enter_context(os.fdopen(read_end, "rb", buffering=0))
            theirs.callback(os.close, write_end)
            pid = posix_spawn(
                binary, arguments, environment, (write_end, write_end, requests.fileno(), answers.fileno())
            )
        except OSError as error:
            raise WorkerStartError(f"can't start {binary}: {error}") from error
        outgoing.setblocking(False)
        incoming.setblocking(False)
        process = WorkerProcess(pid, outgoing, incoming)
        try:
            await process.log_output(output)
        except BaseException:
            process.kill()
            raise
        ours.pop_all()
    return process


def posix_spawn(
    binary: Path, arguments: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
) -> int:
    """Starts the binary with `descriptors` as its 1, 2, 3, … and nothing else open. Raises OSError."""
    with contextlib.ExitStack() as copies:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
        ]
        for target, descriptor in enumerate(descriptors, start=1):
            # Out of the way first: one of them may have another's number.
            copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
            copies.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, target))
        return os.posix_spawn(
            binary,
            [str(binary), *arguments],
            dict(environment),
            file_actions=actions,
            setpgroup=0,
            setsigmask=(),
            setsigdef=_DEFAULT_SIGNALS,
        )
