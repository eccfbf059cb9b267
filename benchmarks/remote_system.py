"""Remote Mediasoup as a whole, as local processes: control plane, operator, gateway, media servers, a token.

Benchmarks, tests and the run of mediasoup's own suite stand on it. Blocks; from asyncio use threads.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mafalda_operator.cli.demo.layout import HOST, WORKERS, Layout, ServerLayout
from mafalda_operator.cli.demo.stack import PORT_ATTEMPTS, Stack
from mafalda_operator.cli.local.errors import KubectlFailedError, StartFailedError
from mafalda_operator.cli.local.ports import PortPicker

from mediaserver.wire.worker_tokens import REVOKED, WorkerClaims, mint

ROOT = Path(__file__).parents[1]
WORKER, MAFALDA = (ROOT / ".venv" / "bin" / name for name in ("mafalda-worker", "mafalda"))
NAMESPACE, CLUSTER, SECRET = "media", "main", "main-worker-keys"
READY_SECONDS = 30.0
TOKEN_SECONDS = 3600
COMMAND_SECONDS = 30.0
_POLL = 0.1


class SystemFailed(Exception):  # noqa: N818  it is the system that failed
    """It did not become ready, or did not end; the message says what was missing or is left."""


@dataclass(frozen=True)
class RemoteSystem:
    """What runs, and what an application needs to use it."""

    stack: Stack

    @property
    def url(self) -> str:
        return f"ws://{HOST}:{self.stack.layout.gateway}"

    def environment(self, **claims: Any) -> dict[str, str]:
        """What an application's environment says; `claims` of its token."""
        return {
            "MEDIASOUP_WORKER_BIN": str(WORKER),
            "MAFALDA_URL": self.url,
            "MAFALDA_TOKEN": self.token(**claims),
        }

    def token(self, **claims: Any) -> str:
        """An application's, signed by the key that the operator made."""
        kid, key = self.signing_key()
        now = int(time.time())
        told = {
            "iss": self.get("mediacluster", CLUSTER)["metadata"]["uid"],
            "sub": "application",
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "jti": secrets.token_hex(8),
        }
        return mint(WorkerClaims(**{**told, **claims}), kid, key)

    def signing_key(self) -> tuple[str, bytes]:
        """The key's id, and the key that the operator made."""
        data = self.get("secret", SECRET)["data"]
        kid = max(name for name in data if name != REVOKED)
        return kid, base64.b64decode(data[kid])

    def workers(self) -> list[dict[str, Any]]:
        """Those that run for applications, as `mafalda workers` lists them. Raises SystemFailed."""
        text = self.mafalda("workers", f"--cluster-key-file={self.stack.key_file}", "--output=json")
        listed: list[dict[str, Any]] = json.loads(text)["workers"]
        return listed

    def mafalda(self, command: str, *arguments: str) -> str:
        """What the command prints. Raises SystemFailed."""
        done = subprocess.run(
            [str(MAFALDA), command, f"--kubeconfig={self.stack.cluster.kubeconfig}", *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise SystemFailed(f"mafalda {command} failed: {done.stderr.strip()}")
        return done.stdout

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """The object; an empty one where there is none yet."""
        try:
            found: dict[str, Any] = self.stack.kubectl_json("-n", NAMESPACE, "get", kind, name)
        except KubectlFailedError as error:
            if "NotFound" not in error.stderr:
                raise
            return {}
        return found

    def await_ready(self) -> None:
        """Until every server is, and the tokens' key is there. Raises SystemFailed."""
        for server in self.stack.layout.servers:
            _until(f"MediaServer {server.name} is Ready", lambda name=server.name: self._is_ready(name))
        _until(
            "the Secret with the tokens' key is there", lambda: bool(self.get("secret", SECRET).get("data"))
        )

    def _is_ready(self, server: str) -> bool:
        conditions = self.get("mediaserver", server).get("status", {}).get("conditions", ())
        return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


def server_layout(
    name: str,
    picker: PortPicker,
    *,
    tenants: tuple[int, int],
    pipes: tuple[int, int],
    flags: Sequence[str] = (),
    host: str = HOST,
    network: str | None = None,
) -> ServerLayout:
    """A media server for applications' workers. Not all ports of the two ranges need be free."""
    return ServerLayout(
        name=name,
        internal=picker.port(),
        participants=picker.port(),
        health=picker.port(),
        client=picker.range(WORKERS).start,
        pipe=pipes[0],
        pipes=pipes[1] - pipes[0] + 1,
        host=host,
        tenants=tenants,
        flags=tuple(flags),
        network=network,
    )


@contextmanager
def remote_system(
    servers: Callable[[PortPicker], Sequence[ServerLayout]],
    *,
    avoid: Sequence[int] = (),
    say: Callable[[str], None] = print,
) -> Iterator[RemoteSystem]:
    """Everything runs, and a worker may be started. Raises what Stack.start does, and SystemFailed.

    All of it ends with this process, however that ends.
    """
    directory = Path(tempfile.mkdtemp(prefix="mafalda-remote-"))
    try:
        stack = _start(directory / "run", servers, avoid, say)
        try:
            system = RemoteSystem(stack)
            say("waiting for the media servers")
            stack.cluster.kubectl("apply", "-f", "-", stdin=_manifest(stack.layout))
            system.await_ready()
            yield system
        finally:
            stack.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _start(
    directory: Path,
    servers: Callable[[PortPicker], Sequence[ServerLayout]],
    avoid: Sequence[int],
    say: Callable[[str], None],
) -> Stack:
    """Finding ports and binding them are two steps: when somebody came in between, others are tried."""
    for _ in range(PORT_ATTEMPTS - 1):
        layout = _layout(servers, avoid)
        try:
            return Stack.start(directory, layout, crds=ROOT / "crds", say=say)
        except StartFailedError:
            if layout.is_free():
                raise
            say("a port was taken in between; others are tried")
    return Stack.start(directory, _layout(servers, avoid), crds=ROOT / "crds", say=say)


def _layout(servers: Callable[[PortPicker], Sequence[ServerLayout]], avoid: Sequence[int]) -> Layout:
    picker = PortPicker(host=HOST, avoid=list(avoid))
    made = tuple(servers(picker))
    return Layout(picker.port(), picker.port(), picker.port(), servers=made)


def _manifest(layout: Layout) -> str:
    metadata = {"namespace": NAMESPACE}
    key_set = {
        "name": "workers",
        "secretRef": {"name": SECRET},
        "namespaces": {"from": "Same"},
        "workers": True,
    }
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "mafalda.io/v1alpha1",
            "kind": "MediaCluster",
            "metadata": {"name": CLUSTER, **metadata},
            "spec": {"publicURL": f"ws://{HOST}:{layout.gateway}", "tokens": {"keySets": [key_set]}},
        },
        *(
            {
                "apiVersion": "mafalda.io/v1alpha1",
                "kind": "MediaServer",
                "metadata": {"name": server.name, **metadata},
                "spec": {"clusterRef": {"name": CLUSTER}, "endpoint": {"address": server.endpoint}},
            }
            for server in layout.servers
        ),
    ]
    return "\n---\n".join(json.dumps(found) for found in objects)


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
