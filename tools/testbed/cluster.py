"""The testbed as it stands in its directory: who runs, kubectl, and what tests do to it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from mafalda_operator.cli.local.processes import ProcessGroup

from testbed import control_plane, network
from testbed.errors import CommandError, NotReadyError, NotRunningError
from testbed.layout import NAME, Node, Paths, nodes
from testbed.layout import control_plane as control_plane_of
from testbed.programs import Programs
from testbed.running import entered, run, wait_until

DAEMONS = ("anchor", "containerd", "kubelet", "kube-proxy", "kube-router")
"""A node's processes, in the order in which they are started."""

_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Description:
    """What a testbed was made of. Another one takes its place only after `down`."""

    nodes: int
    embedded: str
    testbed: str
    name: str = NAME


class Testbed:
    """What it knows is in files, so any process may make one for the same directory."""

    __test__ = False

    def __init__(self, directory: Path, description: Description) -> None:
        self.paths = Paths(directory)
        self.description = description
        self.programs = Programs(Path(description.embedded), Path(description.testbed))
        self.nodes = nodes(description.nodes, description.name)
        self.namespace = control_plane_of(description.name)
        """Network namespace of the control plane."""
        self.processes = ProcessGroup(directory)

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The testbed of this directory, running or not. Raises NotRunningError if there is none."""
        try:
            description = Description(**json.loads(Paths(directory).state.read_text()))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotRunningError(f"no testbed in {directory}; `tools/cluster up` starts one") from error
        return cls(directory, description)

    def save(self) -> None:
        temporary = self.paths.state.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self.description), indent=2))
        temporary.rename(self.paths.state)

    def node(self, name: str) -> Node:
        """By name, or by number. Raises NotRunningError."""
        for node in self.nodes:
            if name in (node.name, str(node.number)):
                return node
        known = ", ".join(node.name for node in self.nodes)
        raise NotRunningError(f"there is no node {name}; there are {known}")

    # -- Kubernetes -----------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """For programs in the control plane's namespace: kubectl and helm talk to this cluster, and keep what
        they keep here.
        """
        path = os.environ.get("PATH", os.defpath)
        helm = self.paths.directory / "helm"
        return {
            "KUBECONFIG": str(self.paths.kubeconfig),
            "KUBECACHEDIR": str(self.paths.directory / "kubectl-cache"),
            "KUBERC": "off",
            "HELM_CACHE_HOME": str(helm / "cache"),
            "HELM_CONFIG_HOME": str(helm / "config"),
            "HELM_DATA_HOME": str(helm / "data"),
            "PATH": f"{self.programs.path}:{path}:/usr/sbin:/sbin",
            "MAFALDA_CLUSTER": str(self.paths.directory),
            "MAFALDA_CLUSTER_NAME": self.description.name,
        }

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 30.0) -> str:
        """What kubectl prints. Raises CommandError."""
        command = [*entered(self.namespace), self.programs["kubectl"], *arguments]
        return run(*command, stdin=stdin, timeout=timeout, environment={**os.environ, **self.environment()})

    def kubectl_json(self, *arguments: str) -> Any:
        return json.loads(self.kubectl(*arguments, "-o", "json"))

    def answers(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            self.kubectl("get", "--raw", "/readyz", timeout=5)
        except CommandError:
            return False
        return True

    # -- processes ------------------------------------------------------------------------------------

    def process_name(self, node: Node, daemon: str) -> str:
        return f"{node.name}.{daemon}"

    def control_plane_state(self) -> dict[str, bool]:
        return {name: self.processes.running(name) for name in control_plane.ORDER}

    def node_state(self, node: Node) -> dict[str, bool]:
        return {daemon: self.processes.running(self.process_name(node, daemon)) for daemon in DAEMONS}

    def ended(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if not self.processes.running(name)]

    def spawn_control_plane(self, name: str) -> None:
        """Starts that process unless it runs."""
        if not self.processes.running(name):
            self.processes.spawn(name, [*entered(self.namespace), *self._command(name)])

    def _command(self, name: str) -> list[str]:
        commands = {
            "etcd": control_plane.etcd_command,
            "kube-apiserver": control_plane.apiserver_command,
            "kube-controller-manager": control_plane.controller_manager_command,
            "kube-scheduler": control_plane.scheduler_command,
            "coredns": control_plane.coredns_command,
        }
        if name == "kube-proxy":
            # It waits until its node exists; that of another serves as well, since no service is local here.
            return control_plane.proxy_command(self.programs, self.paths, self.nodes[0].name)
        return commands[name](self.programs, self.paths)

    def await_answer(self) -> None:
        """Returns when the API server is ready. Raises NotReadyError with the end of its log."""
        watched = ("etcd", "kube-apiserver")
        wait_until(
            "the API server is ready",
            self.answers,
            seconds=_READY_SECONDS,
            ended=lambda: self.ended(watched),
            why_not=lambda: "\n".join(self.processes.log_tail(name, 6) for name in watched),
        )

    # -- what tests do to it --------------------------------------------------------------------------

    def stop(self, component: str, *, grace: float = 5.0) -> None:
        """Ends etcd or the API server; what it kept stays."""
        self.processes.stop([control_plane.RESTARTABLE[component]], grace=grace)

    def start(self, component: str) -> None:
        """Starts it again and returns when the API server answers.

        What is left of the connections of one that was killed may hold its port for a moment, and it ends at
        once then: so it is started as often as need be.
        """
        name = control_plane.RESTARTABLE[component]

        def answers() -> bool:
            self.spawn_control_plane(name)
            return self.answers() and self.processes.running(name)

        wait_until(
            f"{name} runs and the API server answers",
            answers,
            seconds=_READY_SECONDS,
            why_not=lambda: self.processes.log_tail(name),
        )

    def cut(self, node: Node) -> None:
        network.cut(node)

    def join(self, node: Node) -> None:
        """The routes of all are restored, but for other nodes that are still cut off."""
        network.join(node, self.nodes)

    # -- status ---------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """As `tools/cluster status -o json` prints it."""
        answers = self.answers()
        ready = self._ready_nodes() if answers else {}
        plane = self.control_plane_state()
        return {
            "running": answers
            and all(plane.values())
            and all(all(self.node_state(node).values()) for node in self.nodes),
            "directory": str(self.paths.directory),
            "kubeconfig": str(self.paths.kubeconfig),
            "auditLog": str(self.paths.audit_log),
            "apiServerReady": answers,
            "controlPlane": plane,
            "nodes": [
                {
                    "name": node.name,
                    "address": node.address,
                    "pods": node.pods,
                    "zone": node.zone,
                    "ready": ready.get(node.name, False),
                    "cut": network.is_cut(node),
                    "processes": self.node_state(node),
                }
                for node in self.nodes
            ],
            "images": self.loaded_images(),
        }

    def _ready_nodes(self) -> dict[str, bool]:
        return {
            item["metadata"]["name"]: is_ready(item) for item in self.kubectl_json("get", "nodes")["items"]
        }

    def loaded_images(self) -> dict[str, dict[str, str]]:
        """Image id by node name, by image name."""
        try:
            found: dict[str, dict[str, str]] = json.loads(self.paths.images.read_text())
        except FileNotFoundError:
            return {}
        return found


def is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One `up`, `down` or `load` at a time. The lock is on the directory itself, which is made if need be."""
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _wait_for_lock(handle, directory)
            if _same(handle, directory):
                yield
                return
        finally:
            with contextlib.suppress(OSError):  # there is something in it now, or it is gone
                directory.rmdir()
            os.close(handle)


def _wait_for_lock(handle: int, directory: Path) -> None:
    def taken() -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    try:
        wait_until(f"another tools/cluster that works in {directory} ends", taken, seconds=300)
    except NotReadyError as error:
        raise NotReadyError(f"{error} End it, then try again.") from error


def _same(handle: int, directory: Path) -> bool:
    """Whether the directory is still the one that was opened; another `down` may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), directory.stat())
    except FileNotFoundError:
        return False
