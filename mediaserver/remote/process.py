"""A worker process of an application: its five descriptors are carried over the tunnel."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Final

from mediaserver import shim
from mediaserver.mediasoup import WorkerStartError
from mediaserver.mediasoup.process import posix_spawn, watch_exit
from mediaserver.remote.errors import CannotStart
from mediaserver.remote.policy import TenantPolicy

_FORWARDED: Final = ("--logLevel", "--logTag", "--libwebrtcFieldTrials", "--disableLiburing")
_PORTS: Final = {"--rtcMinPort": 10000, "--rtcMaxPort": 59999}
"""With the worker's own defaults."""
_FILES: Final = ("dtlsCertificateFile", "dtlsPrivateKeyFile")
MOST_ARGUMENTS: Final = 64
LONGEST_FILE: Final = 16 * 1024


class DtlsFiles:
    """Contents of the application's files, as files that only the worker reads; gone after `remove`."""

    def __init__(self, contents: Mapping[str, str]) -> None:
        """Raises CannotStart for other files than mediasoup has, and for what is no base64."""
        self.arguments: list[str] = []
        self._directory: str | None = None
        unknown = contents.keys() - set(_FILES)
        if unknown:
            raise CannotStart(
                f"{min(unknown)[:80]!r} is no file of a worker", exit_code=shim.EXIT_WRONG_SETTINGS
            )
        try:
            for name, content in contents.items():
                self._write(name, _decode(name, content))
        except OSError as error:
            self.remove()
            raise CannotStart(f"the media server cannot keep {name}: {error.strerror}") from error
        except BaseException:
            self.remove()
            raise

    def _write(self, name: str, content: bytes) -> None:
        if len(content) > LONGEST_FILE:
            raise CannotStart(
                f"{name} has {len(content)} bytes, at most {LONGEST_FILE} are taken",
                exit_code=shim.EXIT_WRONG_SETTINGS,
            )
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix="mafalda-dtls-")  # mode 0700
        path = Path(self._directory) / f"{name}.pem"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        self.arguments.append(f"--{name}={path}")

    def remove(self) -> None:
        """Idempotent."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None


def _decode(name: str, content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:  # also for what is not ASCII, which is no binascii.Error
        raise CannotStart(
            f"the contents of {name} are not base64", exit_code=shim.EXIT_WRONG_SETTINGS
        ) from error


def worker_arguments(asked: Sequence[str], policy: TenantPolicy) -> list[str]:
    """What the worker is started with: the application's arguments, without files, with ports of this server.

    Raises CannotStart for arguments that no mediasoup passes, and for ports that no worker takes, even
    where they are replaced.
    """
    if len(asked) > MOST_ARGUMENTS:
        raise CannotStart(f"{len(asked)} arguments, at most {MOST_ARGUMENTS} are taken")
    kept = []
    ports = dict(_PORTS)
    for argument in asked:
        name, _, value = argument.partition("=")
        if name in ports and policy.addresses == "Rewrite":
            ports[name] = _port(name, value)
            continue
        if name not in (*_FORWARDED, *_PORTS) or not _passable(argument):
            raise CannotStart(
                f"{name[:80]!r} is no setting of a worker here", exit_code=shim.EXIT_WRONG_SETTINGS
            )
        kept.append(argument)
    if ports["--rtcMaxPort"] < ports["--rtcMinPort"]:
        raise CannotStart("rtcMaxPort is less than rtcMinPort", exit_code=shim.EXIT_WRONG_SETTINGS)
    if policy.addresses == "Rewrite":
        kept += [f"{name}={port}" for name, port in zip(_PORTS, policy.client_ports, strict=True)]
    return kept


def _passable(argument: str) -> bool:
    """Whether a process can be given it."""
    try:
        return b"\0" not in os.fsencode(argument)
    except UnicodeEncodeError:
        return False


def _port(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise CannotStart(f"{name} is no port from 0 to 65535", exit_code=shim.EXIT_WRONG_SETTINGS)
    return int(value)


class TenantProcess:
    """A running worker and this side of its descriptors."""

    def __init__(
        self, pid: int, requests: socket.socket, answers: socket.socket, output: FileIO, errors: FileIO
    ) -> None:
        self.pid = pid
        self.requests = requests
        self.answers = answers
        self.output = output
        self.errors = errors
        self.exited = watch_exit(pid)

    def send_signal(self, number: int) -> None:
        """Nothing if it has ended."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def spawn(binary: Path, arguments: Sequence[str], version: str) -> TenantProcess:
    """Starts a worker with nothing of this server's environment. Raises CannotStart."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        try:
            requests, their_requests = socket.socketpair()
            ours.callback(requests.close)
            theirs.callback(their_requests.close)
            answers, their_answers = socket.socketpair()
            ours.callback(answers.close)
            theirs.callback(their_answers.close)
            output, their_output = _pipe()
            ours.callback(output.close)
            theirs.callback(os.close, their_output)
            errors, their_errors = _pipe()
            ours.callback(errors.close)
            theirs.callback(os.close, their_errors)
            descriptors = (their_output, their_errors, their_requests.fileno(), their_answers.fileno())
            pid = posix_spawn(binary, arguments, {"MEDIASOUP_VERSION": version}, descriptors)
            process = TenantProcess(pid, requests, answers, output, errors)
        except (OSError, WorkerStartError) as error:
            raise CannotStart(f"the media server cannot start a worker: {error}") from error
        for stream in (requests, answers):
            stream.setblocking(False)
        ours.pop_all()
    return process


def _pipe() -> tuple[FileIO, int]:
    reading, writing = os.pipe()
    return FileIO(reading, "rb"), writing


async def wait_exit(process: TenantProcess) -> tuple[int, int]:
    """How it ended, as an EXIT record says it."""
    status = await asyncio.shield(process.exited)
    if status.signal is not None:
        return 1, status.signal
    return 0, shim.EXIT_UNAVAILABLE if status.code is None else status.code
