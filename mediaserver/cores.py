"""How many cores this process may use: those it may run on, and no more than its container's CPU quota.

Pure but for `usable_cores`, which reads /proc and the cgroup files that it names.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


class QuotaError(Exception):
    """A cgroup file reads otherwise than Linux writes it; the message names it."""


def usable_cores(root: Path = Path("/"), affinity: int | None = None) -> int:
    """At least 1. `root` stands for the file system's, `affinity` for the cores that may be run on.

    Raises QuotaError.
    """
    cores = len(os.sched_getaffinity(0)) if affinity is None else affinity
    quota = cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The least CPU quota of this process's cgroups (version 1 and 2), in cores; None: none is set.

    A quota counts for everything below, so those of the cgroups above count too, as far as they are visible.
    """
    quotas = [quota for group in _groups(root) if (quota := _quota(group)) is not None]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[Path]:
    """The directories of all cgroups with a CPU controller that this process is in."""
    paths = _own_paths(root)
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, mount = line.partition(" - ")
        kind, _, options = mount.partition(" ")
        controller = "" if kind == "cgroup2" else "cpu"
        if kind not in ("cgroup", "cgroup2") or (
            controller and controller not in options.rpartition(" ")[2].split(",")
        ):
            continue
        own = paths.get(controller)
        if own is None:
            continue
        mounted, point = (PurePosixPath(_unescaped(field)) for field in fields.split(" ")[3:5])
        top = root / point.relative_to("/")
        # In a container the path may be that of the host, of which only a part is mounted here.
        below = own.relative_to(mounted) if own.is_relative_to(mounted) else PurePosixPath()
        if ".." in below.parts:
            below = PurePosixPath()
        for depth in range(len(below.parts) + 1):
            yield top.joinpath(*below.parts[:depth])


def _own_paths(root: Path) -> dict[str, PurePosixPath]:
    """This process's cgroup by controller; of version 2 by the empty name."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            paths[controller] = PurePosixPath(path)
    return paths


def _quota(group: Path) -> float | None:
    unified = _words(group / "cpu.max")
    if unified:
        return None if unified[0] == "max" else _ratio(group / "cpu.max", unified)
    split = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
    if not split or split[0] == "-1":
        return None
    return _ratio(group / "cpu.cfs_quota_us", split)


def _ratio(path: Path, words: list[str]) -> float:
    try:
        quota, period = map(int, words)
        return quota / period
    except (ValueError, ZeroDivisionError) as error:
        raise QuotaError(f"{path} and its period read {words}, which is no CPU quota") from error


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]


def _lines(path: Path) -> list[str]:
    """None where there is no such file, as in a cgroup without that controller."""
    return path.read_text().splitlines() if path.is_file() else []


def _unescaped(field: str) -> str:
    """A path of mountinfo, where blanks are written as \\040."""
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
