"""A cluster's directory: what lies where, who may use it, and how all of it goes away."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mafalda_operator.cli.local.errors import DirectoryInUseError
from mafalda_operator.cli.local.processes import ProcessGroup

CONTROL_PLANE = ("kube-controller-manager", "kube-apiserver", "etcd")


@dataclass(frozen=True)
class Paths:
    """What lies where in a cluster's directory."""

    directory: Path

    @property
    def state(self) -> Path:
        return self.directory / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def tokens(self) -> Path:
        return self.directory / "tokens.csv"

    @property
    def certificates(self) -> Path:
        return self.directory / "certificates"

    @property
    def certificate(self) -> Path:
        return self.certificates / "apiserver.crt"

    @property
    def etcd_data(self) -> Path:
        return self.directory / "etcd"

    @property
    def kubectl_cache(self) -> Path:
        return self.directory / "kubectl-cache"


def remove(directory: Path) -> None:
    """Ends every process of `directory`, the control plane's last, and removes it. Idempotent.

    Raises DirectoryInUseError if the directory is there and not one of ours.
    """
    processes = ProcessGroup(directory)
    if not directory.exists():
        return
    if not processes.prepared:
        raise DirectoryInUseError(f"{directory} holds no cluster of ours and is left alone")
    others = [name for name in processes.records() if name not in CONTROL_PLANE]
    processes.stop(others, grace=5.0)
    processes.stop(CONTROL_PLANE, grace=0)  # its data goes too, so there is nothing to finish
    shutil.rmtree(directory)


@contextlib.contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Makes `directory` if need be and holds it for one starter, empty of what an ended cluster left there.

    Raises DirectoryInUseError if another starter works there, a cluster runs there, or it holds what is not
    ours.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DirectoryInUseError(f"another `up` works in {directory}; wait for it") from error
        if any(directory.iterdir()):
            _clear(directory)
        ProcessGroup(directory).prepare()
        yield
    finally:
        os.close(lock)


def _clear(directory: Path) -> None:
    processes = ProcessGroup(directory)
    if not processes.prepared:
        raise DirectoryInUseError(
            f"{directory} is not empty and holds no cluster of ours; name another directory"
        )
    running = [name for name in processes.records() if processes.running(name)]
    if running:
        raise DirectoryInUseError(f"{', '.join(running)} run in {directory}; `mafalda local down` ends them")
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
