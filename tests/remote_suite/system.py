"""The system that the suite's workers run on: control plane, operator, gateway and one media server."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mafalda_operator.cli.demo.layout import HOST, Layout, ServerLayout
from mafalda_operator.cli.demo.stack import Stack
from mafalda_operator.cli.local.errors import KubectlFailedError
from mafalda_operator.cli.local.keeper import Keeper
from mafalda_operator.cli.local.processes import ProcessGroup
from remote_suite.modes import Mode
from remote_suite.network import network

from mediaserver.wire.worker_tokens import WorkerClaims, mint

ROOT = Path(__file__).parents[2]
WORKER = ROOT / ".venv" / "bin" / "mafalda-worker"
NAMESPACE, CLUSTER, SERVER, SECRET = "media", "main", "media-1", "main-worker-keys"
SUITE_PORTS = (10000, 20000)
"""Where the suite picks the ports that it asks for: it wants to be given exactly these."""
OTHER_PORTS = (22000, 22499)
TENANT_WORKERS = 32
"""The suite has two at a time; a few that it left may not have ended when the next come."""
READY_SECONDS = 30.0
TOKEN_SECONDS = 3600
_POLL = 0.1


class SystemFailed(Exception):  # noqa: N818  it is the system that failed
    """It did not become ready; the message says what was missing."""


@dataclass(frozen=True)
class Running:
    """What the suite needs to know."""

    processes: ProcessGroup
    environment: dict[str, str]


@contextmanager
def plain(worker: Path) -> Iterator[Running]:
    """No system at all: the suite starts the worker program itself."""
    with _directory() as directory:
        processes = ProcessGroup(directory)
        processes.prepare()
        keeper = Keeper(directory)
        try:
            yield Running(processes, {"MEDIASOUP_WORKER_BIN": str(worker)})
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
        wanted = _layout(mode, far.address if far else HOST, far.file if far else None)
        stack = Stack.start_on_free_ports(directory / "run", wanted, crds=ROOT / "crds", say=say)
        cleanup.callback(stack.stop)
        say("waiting for the media server")
        stack.cluster.kubectl("apply", "-f", "-", stdin=_manifest(stack.layout))
        _until("the MediaServer is Ready", lambda: _is_ready(stack))
        environment = {
            "MEDIASOUP_WORKER_BIN": str(WORKER),
            "MAFALDA_URL": f"ws://{HOST}:{stack.layout.gateway}",
            "MAFALDA_TOKEN": _token(stack),
        }
        yield Running(stack.cluster.processes, environment)


@contextmanager
def _directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="mafalda-remote-suite-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _layout(mode: Mode, host: str, network: str | None) -> Layout:
    # The suite gets the ports that it asks for where they are the server's, so most of them are made to be:
    # those of pipes where nothing else is rewritten.
    clients, pipes = (
        (OTHER_PORTS, SUITE_PORTS) if mode.addresses == "RewritePipes" else (SUITE_PORTS, OTHER_PORTS)
    )
    server = ServerLayout(
        name=SERVER,
        internal=4000,
        participants=4001,
        health=4002,
        client=21000,
        pipe=pipes[0],
        pipes=pipes[1] - pipes[0] + 1,
        host=host,
        tenants=clients,
        flags=(f"--tenant-workers={TENANT_WORKERS}", f"--tenant-addresses={mode.addresses}"),
        network=network,
    )
    return Layout(gateway=8080, gateway_health=8081, operator_health=8082, servers=(server,))


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
    _until(
        "the Secret with the tokens' key is there", lambda: bool(_get(stack, "secret", SECRET).get("data"))
    )
    kid, key = max(_get(stack, "secret", SECRET)["data"].items())
    now = int(time.time())
    claims = WorkerClaims(
        iss=_get(stack, "mediacluster", CLUSTER)["metadata"]["uid"],
        sub="remote-suite",
        nbf=now,
        exp=now + TOKEN_SECONDS,
        jti=secrets.token_hex(8),
    )
    return mint(claims, kid, base64.b64decode(key))


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
    deadline = time.monotonic() + READY_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise SystemFailed(f"{what}: not within {READY_SECONDS:g} s")
        time.sleep(_POLL)
