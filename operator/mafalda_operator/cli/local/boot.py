"""Starting etcd and kube-apiserver and waiting until they serve."""

import os
import secrets
import shutil
import time
from dataclasses import dataclass

from mafalda_operator.cli.local import components
from mafalda_operator.cli.local.binaries import Binaries
from mafalda_operator.cli.local.components import HOST, Ports
from mafalda_operator.cli.local.directory import Paths
from mafalda_operator.cli.local.errors import StartFailedError
from mafalda_operator.cli.local.ports import PortPicker, is_free
from mafalda_operator.cli.local.processes import ProcessGroup
from mafalda_operator.cli.local.readiness import Probe

_POLL = 0.05
_PORT_ATTEMPTS = 5


class PortTakenError(StartFailedError):
    """A program ended because another process has one of its ports."""


@dataclass(frozen=True)
class ControlPlane:
    """What is needed to start its processes again."""

    binaries: Binaries
    paths: Paths
    ports: Ports
    etcd_prefix: str

    @property
    def url(self) -> str:
        return f"https://{HOST}:{self.ports.apiserver}"

    def spawn_etcd(self) -> None:
        command = components.etcd_command(self.binaries, self.paths, self.ports)
        ProcessGroup(self.paths.directory).spawn("etcd", command)

    def spawn_apiserver(self) -> None:
        command = components.apiserver_command(self.binaries, self.paths, self.ports, self.etcd_prefix)
        environment = {
            name: value for name, value in components.APISERVER_ENVIRONMENT.items() if name not in os.environ
        }
        ProcessGroup(self.paths.directory).spawn("kube-apiserver", command, environment=environment)

    def await_ready(self, deadline: float) -> None:
        """Returns when the API server serves; `deadline` is on the monotonic clock. Raises
        StartFailedError.
        """
        processes = ProcessGroup(self.paths.directory)
        probe = Probe(self.url, self.paths.certificate, self._token())
        ports = {"etcd": (self.ports.etcd, self.ports.etcd_peer), "kube-apiserver": (self.ports.apiserver,)}
        while not probe.ready():
            for name, own_ports in ports.items():
                if not processes.running(name):
                    free = all(is_free(port, host=HOST) for port in own_ports)
                    kind = StartFailedError if free else PortTakenError
                    raise kind(f"{name} ended while starting; its last lines:\n{processes.log_tail(name)}")
            if time.monotonic() > deadline:
                tail = processes.log_tail("kube-apiserver")
                raise StartFailedError(f"kube-apiserver was not ready in time; its last lines:\n{tail}")
            time.sleep(_POLL)

    def write_kubeconfig(self) -> None:
        text = components.kubeconfig(self.url, self.paths.certificate.read_bytes(), self._token())
        self.paths.kubeconfig.touch(mode=0o600)
        self.paths.kubeconfig.write_text(text)

    def _token(self) -> str:
        return self.paths.tokens.read_text().partition(",")[0]


def boot(paths: Paths, binaries: Binaries, timeout: float) -> ControlPlane:
    """Starts both on free ports, and on others when somebody was quicker. Raises StartFailedError or
    NoFreePortsError.
    """
    deadline = time.monotonic() + timeout
    processes, picker = ProcessGroup(paths.directory), PortPicker(host=HOST)
    paths.tokens.touch(mode=0o600)
    paths.tokens.write_text(components.tokens_csv(secrets.token_urlsafe(32)))
    for attempt in range(1, _PORT_ATTEMPTS + 1):
        ports = Ports(picker.port(), picker.port(), picker.port())
        plane = ControlPlane(binaries, paths, ports, etcd_prefix=f"/mafalda-{secrets.token_hex(4)}")
        plane.spawn_etcd()
        plane.spawn_apiserver()
        try:
            plane.await_ready(deadline)
        except PortTakenError:
            processes.stop(grace=0)
            shutil.rmtree(paths.etcd_data, ignore_errors=True)
            if attempt == _PORT_ATTEMPTS:
                raise
        else:
            plane.write_kubeconfig()
            return plane
    raise AssertionError("unreachable: the last attempt returns or raises")
