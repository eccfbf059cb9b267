"""The system that the suite's workers run on: control plane, operator, gateway and one media server."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mafalda_operator.cli.demo.layout import HOST, WORKERS, Layout, ServerLayout
from mafalda_operator.cli.demo.stack import Stack
from mafalda_operator.cli.local.errors import KubectlFailedError
from mafalda_operator.cli.local.keeper import Keeper
from mafalda_operator.cli.local.ports import PortPicker
from mafalda_operator.cli.local.processes import ProcessGroup
from remote_suite.modes import Mode
from remote_suite.network import network

ROOT = Path(__file__).parents[2]
WORKER, MAFALDA = (ROOT / ".venv" / "bin" / name for name in ("mafalda-worker", "mafalda"))
NAMESPACE, CLUSTER, SERVER, SECRET = "media", "main", "media-1", "main-worker-keys"
SUITE_PORTS = (10000, 20000)
"""Where the suite picks the ports that it asks for: it wants to be given exactly these."""
OTHER_PORTS = (22000, 22499)
TENANT_WORKERS = 32
"""The suite has two at a time; a few that it left may not have ended when the next come."""
READY_SECONDS = 30.0
COMMAND_SECONDS = 30.0
_POLL = 0.1


class SystemFailed(Exception):  # noqa: N818  it is the system that failed
    """It did not become ready, or did not end; the message says what was missing or is left."""


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
        directory = cleanup.enter_context(_directory())
        far = cleanup.enter_context(network()) if mode.netns else None
        layout = _layout(mode, far.address if far else HOST, far.file if far else None)
        stack = Stack.start(directory, layout, crds=ROOT / "crds", say=say)
        cleanup.callback(stack.stop)
        say("waiting for the media server")
        stack.cluster.kubectl("apply", "-f", "-", stdin=_manifest(stack.layout))
        _until("the MediaServer is Ready", lambda: _is_ready(stack))
        environment = {
            "MEDIASOUP_WORKER_BIN": str(WORKER),
            "MAFALDA_URL": f"ws://{HOST}:{stack.layout.gateway}",
            "MAFALDA_TOKEN": _token(stack),
        }
        yield Running(stack.cluster.processes, environment, lambda: _workers(stack))
        if leftovers := stack.stop_processes():
            raise SystemFailed(f"left behind: {', '.join(leftovers)}")


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mafalda-remote-suite-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _layout(mode: Mode, host: str, network: str | None) -> Layout:
    # The suite gets the ports that it asks for where they are the server's, so most of them are made to be:
    # those of pipes where nothing else is rewritten. Not all need be free, so none is looked for.
    clients, pipes = (
        (OTHER_PORTS, SUITE_PORTS) if mode.addresses == "RewritePipes" else (SUITE_PORTS, OTHER_PORTS)
    )
    picker = PortPicker(host=HOST, avoid=[*_all(clients), *_all(pipes)])
    server = ServerLayout(
        name=SERVER,
        internal=picker.port(),
        participants=picker.port(),
        health=picker.port(),
        client=picker.range(WORKERS).start,
        pipe=pipes[0],
        pipes=len(_all(pipes)),
        host=host,
        tenants=clients,
        flags=(f"--tenant-workers={TENANT_WORKERS}", f"--tenant-addresses={mode.addresses}"),
        network=network,
    )
    return Layout(picker.port(), picker.port(), picker.port(), servers=(server,))


def _all(ports: tuple[int, int]) -> range:
    return range(ports[0], ports[1] + 1)


def _manifest(layout: Layout) -> str:
    metadata = {"namespace": NAMESPACE}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "mafalda.io/v1alpha1",
            "kind": "MediaCluster",
            "metadata": {"name": CLUSTER, **metadata},
            "spec": {
                "publicURL": f"ws://{HOST}:{layout.gateway}",
                "tokens": {
                    "keySets": [
                        {
                            "name": "workers",
                            "secretRef": {"name": SECRET},
                            "namespaces": {"from": "Same"},
                            "workers": True,
                        }
                    ]
                },
            },
        },
        {
            "apiVersion": "mafalda.io/v1alpha1",
            "kind": "MediaServer",
            "metadata": {"name": SERVER, **metadata},
            "spec": {
                "clusterRef": {"name": CLUSTER},
                "endpoint": {"address": layout.servers[0].endpoint},
            },
        },
    ]
    return "\n---\n".join(json.dumps(found) for found in objects)


def _is_ready(stack: Stack) -> bool:
    conditions = _get(stack, "mediaserver", SERVER).get("status", {}).get("conditions", ())
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


def _token(stack: Stack) -> str:
    """An application's, signed by the key that the operator made."""
    _until("the Secret with a key for tokens is there", lambda: "data" in _get(stack, "secret", SECRET))
    return _mafalda(
        stack, "worker-token", f"--cluster={NAMESPACE}/{CLUSTER}", "--sub=remote-suite", "--ttl=1h"
    ).strip()


def _workers(stack: Stack) -> list[str]:
    text = _mafalda(stack, "workers", f"--cluster-key-file={stack.key_file}", "--output=json")
    return [str(found["id"]) for found in json.loads(text)["workers"]]


def _mafalda(stack: Stack, command: str, *arguments: str) -> str:
    """What the command prints. Raises SystemFailed."""
    done = subprocess.run(
        [str(MAFALDA), command, f"--kubeconfig={stack.cluster.kubeconfig}", *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise SystemFailed(f"mafalda {command} failed: {done.stderr.strip()}")
    return done.stdout


def _get(stack: Stack, kind: str, name: str) -> dict[str, Any]:
    """The object; an empty one where there is none yet."""
    try:
        found: dict[str, Any] = stack.kubectl_json("-n", NAMESPACE, "get", kind, name)
    except KubectlFailedError as error:
        if "NotFound" not in error.stderr:
            raise
        return {}
    return found


def _until(what: str, holds: Callable[[], bool]) -> None:
    if not comes(holds, READY_SECONDS):
        raise SystemFailed(f"{what}: not within {READY_SECONDS:g} s")


def comes(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether it holds within so many seconds; asked again and again."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True
