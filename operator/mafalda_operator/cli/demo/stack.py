"""The demo's processes: a control plane, media servers, the gateway and the operator, all on loopback."""

from __future__ import annotations

import base64
import json
import secrets
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from mafalda_operator.cli.demo.layout import (
    HOST,
    WORKERS,
    Layout,
    ServerLayout,
    free_layout,
)
from mafalda_operator.cli.local import processes
from mafalda_operator.cli.local.cluster import LocalCluster
from mafalda_operator.cli.local.errors import StartFailedError
from mafalda_operator.cli.local.processes import identify

OPERATOR = "operator"
GATEWAY = "gateway"
LEASE_NAMESPACE = "mafalda-system"
START_SECONDS = 20.0
STOP_SECONDS = 8.0
PORT_ATTEMPTS = 4


class Stack:
    """Everything that runs. Blocks; from asyncio call it by ``asyncio.to_thread``.

    The processes are recorded in the cluster's directory, so that ``LocalCluster.attach(directory).down()``
    ends them all, whoever started them.
    """

    def __init__(self, cluster: LocalCluster, layout: Layout) -> None:
        self.cluster = cluster
        self.layout = layout
        self.keep = False
        """Whether it runs on when the demo is over."""
        self.key_file = cluster.directory / "cluster-key"

    @classmethod
    def start(
        cls, directory: Path, layout: Layout, *, crds: Path, tied: bool = True, say: Callable[[str], None]
    ) -> Self:
        """Start everything and return when every process answers its health check.

        Raises StartFailedError with the end of the log of what did not start, and leaves nothing then.
        """
        say("starting etcd, kube-apiserver and kube-controller-manager")
        cluster = LocalCluster.start(directory, manifests=[crds], tied=tied)
        stack = cls(cluster, layout)
        try:
            stack._write_key()
            cluster.kubectl("create", "namespace", LEASE_NAMESPACE)
            say(f"starting {len(layout.servers)} media servers, the gateway and the operator")
            for server in layout.servers:
                stack.start_server(server)
            stack.start_gateway()
            stack.start_operator()
            for server in layout.servers:
                stack.await_healthy(server.name)
            stack.await_healthy(GATEWAY)
            stack.await_healthy(OPERATOR)
        except BaseException:
            cluster.down()
            raise
        return stack

    @classmethod
    def start_on_free_ports(
        cls, directory: Path, wanted: Layout, *, crds: Path, tied: bool = True, say: Callable[[str], None]
    ) -> Self:
        """As ``start``, on the ports of ``wanted`` or, where one is taken, on free ones.

        Finding ports and binding them are two steps: when somebody came in between, others are tried.
        """
        layout = wanted if wanted.is_free() else free_layout(wanted)
        for _ in range(PORT_ATTEMPTS - 1):
            try:
                return cls.start(directory, layout, crds=crds, tied=tied, say=say)
            except StartFailedError:
                if layout.is_free():
                    raise
                say("a port was taken in between; others are tried")
                layout = free_layout(wanted)
        return cls.start(directory, layout, crds=crds, tied=tied, say=say)

    def _write_key(self) -> None:
        self.key_file.touch(mode=0o600)
        self.key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")

    def start_server(self, server: ServerLayout) -> None:
        state = self.cluster.directory / "state" / server.name
        state.mkdir(parents=True, exist_ok=True)
        tenants = [f"--tenant-ports={server.tenants[0]}-{server.tenants[1]}"] if server.tenants else []
        self._spawn(
            server.name,
            "mediaserver",
            f"--internal-listen={server.host}:{server.internal}",
            f"--participants-listen={server.host}:{server.participants}",
            f"--health-listen={server.host}:{server.health}",
            f"--client-address={server.host}",
            f"--client-port={server.client}",
            f"--pipe-address={server.host}",
            f"--pipe-ports={server.pipe}-{server.pipe + server.pipes - 1}",
            f"--workers={WORKERS}",
            f"--state-dir={state}",
            f"--cluster-key-file={self.key_file}",
            *tenants,
            *server.flags,
            network=server.network,
        )

    def start_gateway(self) -> None:
        self._spawn(
            GATEWAY,
            "mediaserver.gateway",
            f"--listen={HOST}:{self.layout.gateway}",
            f"--health-listen={HOST}:{self.layout.gateway_health}",
            f"--kubeconfig={self.cluster.kubeconfig}",
            f"--cluster-key-file={self.key_file}",
        )

    def start_operator(self) -> None:
        self._spawn(
            OPERATOR,
            "mafalda_operator",
            f"--metrics-listen={HOST}:{self.layout.operator_health}",
            f"--kubeconfig={self.cluster.kubeconfig}",
            f"--cluster-key-file={self.key_file}",
            f"--lease-namespace={LEASE_NAMESPACE}",
        )

    def _spawn(self, name: str, module: str, *arguments: str, network: str | None = None) -> None:
        enter = ["nsenter", f"--net={network}"] if network else []
        self.cluster.processes.spawn(name, [*enter, sys.executable, "-m", module, *arguments])

    # -- what tests and the demo do to it -------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL, as a crash of the host would look to the others. Returns when the process is gone."""
        self.cluster.processes.stop([name], grace=0)

    def send(self, name: str, number: signal.Signals) -> None:
        """A signal to the process of that name. Raises StartFailedError when it does not run."""
        if not self.cluster.processes.send(name, number):
            raise StartFailedError(f"{name} does not run")

    def pids(self) -> dict[str, int]:
        """Of every process that was started here and not stopped."""
        return {name: record.pid for name, record in self.cluster.processes.records().items()}

    def await_healthy(self, name: str, *, timeout: float = START_SECONDS) -> None:
        """Return when the process answers /healthz. Raises StartFailedError with the end of its log."""
        url = f"http://{self._health_address(name)}/healthz"
        deadline = time.monotonic() + timeout
        while not _answers(url):
            if not self.cluster.processes.running(name):
                raise StartFailedError(
                    f"{name} ended while starting:\n{self.cluster.processes.log_tail(name)}"
                )
            if time.monotonic() > deadline:
                tail = self.cluster.processes.log_tail(name)
                raise StartFailedError(f"{name} is not healthy after {timeout:g} s ({url}):\n{tail}")
            time.sleep(0.03)

    def _health_address(self, name: str) -> str:
        if name == GATEWAY:
            return f"{HOST}:{self.layout.gateway_health}"
        if name == OPERATOR:
            return f"{HOST}:{self.layout.operator_health}"
        return next(f"{found.host}:{found.health}" for found in self.layout.servers if found.name == name)

    def stop_processes(self) -> list[str]:
        """End operator, gateway and media servers by SIGTERM; what did not end in time, as leftovers."""
        names = [GATEWAY, OPERATOR, *(server.name for server in self.layout.servers)]
        records = {name: record for name, record in self.cluster.processes.records().items() if name in names}
        workers = {pid for record in records.values() for pid in _children(record.pid)}
        deadline = time.monotonic() + STOP_SECONDS
        for record in records.values():
            processes.send(record, signal.SIGTERM)
        leftovers = [
            f"{name} (process {record.pid}, not ended {STOP_SECONDS:g} s after SIGTERM)"
            for name, record in records.items()
            if not processes.wait(record, deadline - time.monotonic())
        ]
        return leftovers + [f"process {pid} (a media server's worker)" for pid in workers if identify(pid)]

    def stop(self) -> None:
        """End everything and remove the directory."""
        self.cluster.down()

    def save(self) -> None:
        """Keep the layout beside the cluster, so that another process can attach."""
        (self.cluster.directory / "layout.json").write_text(json.dumps(asdict(self.layout)))

    # -- Kubernetes -----------------------------------------------------------------------------------

    def kubectl_json(self, *arguments: str) -> Any:
        return json.loads(self.cluster.kubectl(*arguments, "-o", "json"))

    def apply(self, path: Path) -> str:
        return self.cluster.kubectl("apply", "-f", str(path))


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _children(pid: int) -> Sequence[int]:
    """Process ids of the direct children (Linux)."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]
