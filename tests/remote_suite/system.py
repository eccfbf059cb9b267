"""The system that the suite's workers run on: control plane, operator, gateway and one media server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mafalda_operator.cli.demo.layout import HOST
from mafalda_operator.cli.local.keeper import Keeper
from mafalda_operator.cli.local.processes import ProcessGroup
from remote_suite.modes import Mode
from remote_suite.network import network

from benchmarks.remote_system import (
    CLUSTER,
    NAMESPACE,
    RemoteSystem,
    SystemFailed,
    remote_system,
    server_layout,
)

SUITE_PORTS = (10000, 20000)
"""Where the suite picks the ports that it asks for: it wants to be given exactly these."""
OTHER_PORTS = (22000, 22499)
TENANT_WORKERS = 32
"""The suite has two at a time; a few that it left may not have ended when the next come."""


@dataclass(frozen=True)
class Running:
    """What the suite needs to know."""

    processes: ProcessGroup
    environment: dict[str, str]
    workers: Callable[[], list[str]]
    """Those that run for the suite now, as `mafalda workers` lists them. Raises SystemFailed."""


@contextmanager
def plain(worker: Path) -> Iterator[Running]:
    """No system at all: the suite starts the worker program itself."""
    with _directory() as directory:
        processes = ProcessGroup(directory)
        processes.prepare()
        keeper = Keeper(directory)
        try:
            yield Running(processes, {"MEDIASOUP_WORKER_BIN": str(worker)}, list)
        finally:
            processes.stop(grace=0)
            keeper.close()


@contextmanager
def system(mode: Mode, say: Callable[[str], None]) -> Iterator[Running]:
    """Everything runs, and a worker may be started. Raises what Stack.start does, NetworkError, SystemFailed.

    All of it ends with this process, however that ends.
    """
    with ExitStack() as cleanup:
        far = cleanup.enter_context(network()) if mode.netns else None
        # The suite gets the ports that it asks for where they are the server's, so most of them are made to
        # be: those of pipes where nothing else is rewritten. Not all need be free, so none is looked for.
        clients, pipes = SUITE_PORTS, OTHER_PORTS
        if mode.addresses == "RewritePipes":
            clients, pipes = pipes, clients
        running = cleanup.enter_context(
            remote_system(
                lambda picker: [
                    server_layout(
                        "media-1",
                        picker,
                        tenants=clients,
                        pipes=pipes,
                        flags=(f"--tenant-workers={TENANT_WORKERS}", f"--tenant-addresses={mode.addresses}"),
                        host=far.address if far else HOST,
                        network=far.file if far else None,
                    )
                ],
                avoid=[*_all(clients), *_all(pipes)],
                say=say,
            )
        )
        environment = running.environment() | {"MAFALDA_TOKEN": _token(running)}
        yield Running(running.stack.cluster.processes, environment, lambda: _ids(running))
        if leftovers := running.stack.stop_processes():
            raise SystemFailed(f"left behind: {', '.join(leftovers)}")


def _ids(running: RemoteSystem) -> list[str]:
    return [str(found["id"]) for found in running.workers()]


def _token(running: RemoteSystem) -> str:
    """As a user makes one."""
    told = running.mafalda(
        "worker-token", f"--cluster={NAMESPACE}/{CLUSTER}", "--sub=remote-suite", "--ttl=1h"
    )
    return told.strip()


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mafalda-remote-suite-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _all(ports: tuple[int, int]) -> range:
    return range(ports[0], ports[1] + 1)
