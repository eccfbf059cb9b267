"""Processes inside pods, found and ended from outside: their containers have no tools to do so."""

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from e2e.support.kubernetes import Document, get


async def kill(pod: str, namespace: str, command: str, *, number: signal.Signals = signal.SIGKILL) -> None:
    """A signal to the first process of the pod's container, which must run that command."""
    os.kill(first_process(await get("pod", pod, namespace), command), number)


def first_process(pod: Document, command: str) -> int:
    """The one of the container's control group that is number 1 to itself. Fails if it runs another."""
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    (pid,) = [pid for pid in running() if container in _read(pid, "cgroup") and _is_first(pid)]
    assert command in command_of(pid), f"process {pid} of pod {pod['metadata']['name']}: {command_of(pid)}"
    return pid


def children(parent: int, command: str) -> list[int]:
    """Processes of that parent that run that command."""
    return [pid for pid in running() if _parent(pid) == parent and command in command_of(pid)]


def command_of(pid: int) -> str:
    """Empty if it has ended."""
    return _read(pid, "cmdline").replace("\0", " ")


def running() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            yield int(folder.name)


def _is_first(pid: int) -> bool:
    return re.search(r"^NSpid:.*\t1$", _read(pid, "status"), re.MULTILINE) is not None


def _parent(pid: int) -> int:
    found = re.search(r"^PPid:\t(\d+)$", _read(pid, "status"), re.MULTILINE)
    return int(found[1]) if found else 0


def _read(pid: int, file: str) -> str:
    """Empty if the process has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{file}").read_text()
    return ""
