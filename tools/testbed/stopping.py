"""`tools/cluster down`: ends exactly what the testbed started and leaves nothing, in whatever state."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mafalda_operator.cli.local import processes
from mafalda_operator.cli.local.processes import ProcessGroup, ProcessRecord

from testbed import control_plane, network
from testbed.errors import NotPossibleError, NotReadyError
from testbed.layout import MAX_NODES, NAME, Paths, nodes
from testbed.layout import control_plane as control_plane_of

_PROC = Path("/proc")
_SECONDS = 10.0
_PAUSE = 0.05


def remove(directory: Path, name: str = NAME) -> bool:
    """Ends the testbed of `directory` and removes that; False if there was nothing. The caller holds the
    lock. Raises as `clear` does.
    """
    found = clear(directory, name)
    directory.rmdir()
    return found


def clear(directory: Path, name: str = NAME) -> bool:
    """Ends the testbed of `directory` and empties that; False if there was nothing. The caller holds the
    lock, so the directory exists. `name` counts where the directory does not tell.

    Raises NotPossibleError if the directory holds something else, or the namespaces are another testbed's.
    """
    group = ProcessGroup(directory)
    entries = list(directory.iterdir())
    if entries and not group.prepared:
        raise NotPossibleError(f"{directory} holds no testbed of ours and is left alone")
    name = _name(directory) or name
    names = [control_plane_of(name), *(node.name for node in nodes(MAX_NODES, name))]
    present = [name for name in names if network.exists(name)]
    if not entries and present:
        _require_empty(present)
    group.stop(grace=0)
    _end_all(lambda: list(leftovers(directory, name)))
    for name in reversed(present):
        network.remove(name)
    for entry in directory.iterdir():
        _remove(entry)
    return bool(entries or present)


def _name(directory: Path) -> str | None:
    """Of the testbed that this directory describes; None if it describes none."""
    try:
        return str(json.loads(Paths(directory).state.read_text()).get("name", NAME))
    except FileNotFoundError:
        return None


def _require_empty(namespaces: list[str]) -> None:
    """Namespaces without a directory are removed only if nobody lives there."""
    for name in namespaces:
        inside = list(_inside(name))
        if inside:
            told = ", ".join(f"{_PROC}/{pid}" for pid in inside[:3])
            raise NotPossibleError(
                f"the namespace {name} is another testbed's ({told}): give its --dir, or another --name"
            )


def _end_all(found: Callable[[], list[ProcessRecord]]) -> None:
    """Kills what `found` lists until it lists nothing. Raises NotReadyError if something survives."""
    deadline = time.monotonic() + _SECONDS
    while records := found():
        if time.monotonic() > deadline:
            pids = ", ".join(str(record.pid) for record in records)
            raise NotReadyError(f"processes {pids} survive SIGKILL: they hang in the kernel")
        for record in records:
            processes.send(record, signal.SIGKILL)
        for record in records:
            processes.wait(record, 1.0)
        time.sleep(_PAUSE)


def leftovers(directory: Path, name: str = NAME) -> Iterator[ProcessRecord]:
    """What nobody recorded: containers, their shims, and what was started as `up` was killed.

    A process is a node's if it lives on mounts made of the node's directory: containers have their root file
    system there, all others the /run that the anchor made. Of the control plane, by name and namespace.
    """
    mark = str(directory / nodes(1, name)[0].name)[:-1].replace(" ", "\\040")
    inode = _inode(Path("/run/netns") / control_plane_of(name))
    for pid in _pids():
        try:
            mounts = (_PROC / str(pid) / "mountinfo").read_text(errors="replace")
            mine = mark in mounts or (_network(pid) == inode and _program(pid) in control_plane.ORDER)
        except OSError:  # ended meanwhile
            continue
        record = processes.identify(pid) if mine else None
        if record is not None and processes.is_running(record):
            yield record


def _inside(namespace: str) -> Iterator[int]:
    inode = _inode(Path("/run/netns") / namespace)
    for pid in _pids():
        try:
            if _network(pid) == inode:
                yield pid
        except OSError:  # ended meanwhile
            continue


def _pids() -> list[int]:
    return [
        int(entry.name)
        for entry in _PROC.iterdir()
        if entry.name.isdigit() and int(entry.name) != os.getpid()
    ]


def _network(pid: int) -> int:
    return (_PROC / str(pid) / "ns/net").stat().st_ino


def _program(pid: int) -> str:
    return (_PROC / str(pid) / "exe").readlink().name


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _remove(entry: Path) -> None:
    """What a killed process's mounts still hold is free in a moment."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return
