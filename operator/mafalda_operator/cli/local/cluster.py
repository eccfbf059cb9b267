"""One embedded cluster: a directory with the files and processes of a control plane on loopback.

    with LocalCluster.start(directory, manifests=[crds]) as cluster:
        cluster.kubectl("get", "namespaces")

Everything here blocks; from asyncio call it by `asyncio.to_thread`.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import yaml

from mafalda_operator.cli.local import components
from mafalda_operator.cli.local.binaries import Binaries, find_binaries, find_kubectl
from mafalda_operator.cli.local.boot import ControlPlane, PortTakenError, boot
from mafalda_operator.cli.local.components import Ports
from mafalda_operator.cli.local.directory import CONTROL_PLANE, Paths, claimed, remove
from mafalda_operator.cli.local.errors import KubectlFailedError, NotRunningError, StartFailedError
from mafalda_operator.cli.local.keeper import Keeper
from mafalda_operator.cli.local.processes import ProcessGroup

State = Literal["Running", "Degraded", "Stopped"]
_START_TIMEOUT = 60.0
_PORT_PAUSE = 0.2


@dataclass(frozen=True)
class Description:
    """What cluster.json says. The last four are absent for an API server of the user's own."""

    url: str
    kubeconfig: str
    kubectl: str
    binaries: dict[str, str] | None = None
    ports: dict[str, int] | None = None
    etcd_prefix: str | None = None
    ready_ms: int | None = None


class LocalCluster:
    """A running control plane, or an API server of the user's own under the same interface.

    Made by `start`, `adopt` or `attach`. `kubeconfig` is a file that stands alone (mode 0600 when ours);
    `url` is the API server's; `processes` may be given more processes (an operator, media servers), which
    `down` ends first.
    """

    def __init__(self, directory: Path, description: Description, keeper: Keeper | None = None) -> None:
        self.directory = directory
        self.description = description
        self.url = description.url
        self.kubeconfig = Path(description.kubeconfig)
        self.processes = ProcessGroup(directory)
        self._keeper = keeper

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        binaries: Binaries | None = None,
        manifests: Sequence[Path] = (),
        tied: bool = True,
        timeout: float = _START_TIMEOUT,
    ) -> Self:
        """Starts a control plane in `directory`, which must be empty, absent, or that of a cluster that has
        ended.

        Returns once it answers and `manifests` (files or folders) are applied; definitions in them are
        established and known to the garbage collector. `tied`: it ends with this process, however that ends.
        Raises BinariesMissingError, NoFreePortsError, DirectoryInUseError, StartFailedError or
        KubectlFailedError, and leaves nothing then.
        """
        started = time.monotonic()
        binaries = binaries or find_binaries()
        directory = directory.absolute()
        with claimed(directory):
            keeper = Keeper(directory)
            try:
                plane = boot(Paths(directory), binaries, timeout)
                cluster = cls(directory, _describe(plane), keeper)
                cluster._apply(manifests)
                # The garbage collector looks for new kinds every 30 s: it starts when they are there.
                command = components.controller_manager_command(binaries, plane.paths)
                cluster.processes.spawn("kube-controller-manager", command)
                cluster._save(ready_ms=round((time.monotonic() - started) * 1000))
            except BaseException:
                remove(directory)
                keeper.close()
                raise
        if not tied:
            keeper.release()
        return cluster

    @classmethod
    def adopt(cls, directory: Path, kubeconfig: Path, *, manifests: Sequence[Path] = ()) -> Self:
        """Uses the API server that `kubeconfig` names; `directory` keeps our files. Raises as `start`
        does.
        """
        directory, kubectl = directory.absolute(), find_kubectl()
        description = Description(_server_of(kubeconfig), str(kubeconfig.absolute()), kubectl)
        with claimed(directory):
            cluster = cls(directory, description)
            try:
                cluster.kubectl("get", "--raw", "/readyz", timeout=15)
                cluster._apply(manifests)
                cluster._save(ready_ms=None)
            except BaseException:
                remove(directory)
                raise
        return cluster

    @classmethod
    def attach(cls, directory: Path) -> Self:
        """The cluster that lives in `directory`, whoever started it. Raises NotRunningError if there is
        none.
        """
        directory = directory.absolute()
        try:
            description = Description(**json.loads(Paths(directory).state.read_text()))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotRunningError(f"no cluster in {directory}; `mafalda local up` starts one") from error
        return cls(directory, description)

    @property
    def owned(self) -> bool:
        """Whether the control plane is ours, and not an API server of the user's."""
        return self.description.binaries is not None

    def state(self) -> State:
        """Running: every process is there and the API server answers. Stopped: nothing of it is there."""
        if not self.owned:
            return "Running" if self._ready() else "Stopped"
        alive = [name for name in CONTROL_PLANE if self.processes.running(name)]
        if not alive:
            return "Stopped"
        return "Running" if len(alive) == len(CONTROL_PLANE) and self._ready() else "Degraded"

    def environment(self) -> dict[str, str]:
        """For a kubectl that talks to this cluster, keeps its cache here and ignores the user's
        preferences.
        """
        return {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(Paths(self.directory).kubectl_cache),
            "KUBERC": "off",
        }

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 30.0) -> str:
        """What kubectl prints for these arguments. Raises KubectlFailedError."""
        try:
            done = subprocess.run(
                [self.description.kubectl, *arguments],
                input=stdin or "",
                env={**os.environ, **self.environment()},
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlFailedError(arguments, None, f"no answer in {timeout:g} s") from error
        if done.returncode != 0:
            raise KubectlFailedError(arguments, done.returncode, done.stderr)
        return done.stdout

    def stop_apiserver(self, *, grace: float = 5.0) -> None:
        """Ends the API server, as a crash would with `grace=0`; etcd keeps its data. It may be started
        again.
        """
        self._plane()
        self.processes.stop(["kube-apiserver"], grace=grace)

    def start_apiserver(self, *, timeout: float = _START_TIMEOUT) -> None:
        """Starts the API server again, on its old port, and returns when it answers. Raises
        StartFailedError.
        """
        plane = self._plane()
        self._start(plane, plane.spawn_apiserver, timeout)

    def stop_etcd(self, *, grace: float = 5.0) -> None:
        """Ends etcd, as a crash would with `grace=0`; the API server runs on without it. It may be started
        again.
        """
        self._plane()
        self.processes.stop(["etcd"], grace=grace)

    def start_etcd(self, *, timeout: float = _START_TIMEOUT) -> None:
        """Starts etcd again with its data, and returns when the API server serves. Raises
        StartFailedError.
        """
        plane = self._plane()
        self._start(plane, plane.spawn_etcd, timeout)

    def _start(self, plane: ControlPlane, spawn: Callable[[], None], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            spawn()
            try:
                plane.await_ready(deadline)
            except PortTakenError:  # connections of one that was killed may hold its port for a moment
                if time.monotonic() + _PORT_PAUSE > deadline:
                    raise
                time.sleep(_PORT_PAUSE)
            else:
                return

    def pause_apiserver(self) -> None:
        """SIGSTOP: connections stay open and nothing answers. Raises NotRunningError if it does not run."""
        self._signal_apiserver(signal.SIGSTOP)

    def resume_apiserver(self) -> None:
        """SIGCONT. Raises NotRunningError if it does not run."""
        self._signal_apiserver(signal.SIGCONT)

    def down(self) -> None:
        """Ends every process of the directory and removes it. An API server of the user's stays as it is."""
        remove(self.directory)
        if self._keeper is not None:
            self._keeper.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def _plane(self) -> ControlPlane:
        about = self.description
        if about.binaries is None or about.ports is None or about.etcd_prefix is None:
            raise NotRunningError(
                f"the API server at {self.url} is the user's own: it is not ours to stop or start"
            )
        return ControlPlane(
            Binaries(**about.binaries), Paths(self.directory), Ports(**about.ports), about.etcd_prefix
        )

    def _signal_apiserver(self, number: signal.Signals) -> None:
        self._plane()
        if not self.processes.send("kube-apiserver", number):
            raise NotRunningError(
                f"kube-apiserver of {self.directory} does not run; start_apiserver() starts it"
            )

    def _apply(self, manifests: Sequence[Path]) -> None:
        if not manifests:
            return
        files = [argument for manifest in manifests for argument in ("-f", str(manifest))]
        self.kubectl("apply", "--server-side", *files)
        if self.kubectl("get", "crd", "-o", "name"):
            self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")

    def _ready(self) -> bool:
        try:
            self.kubectl("get", "--raw", "/readyz", timeout=5)
        except KubectlFailedError:
            return False
        return True

    def _save(self, *, ready_ms: int | None) -> None:
        self.description = Description(**{**asdict(self.description), "ready_ms": ready_ms})
        state = Paths(self.directory).state
        temporary = state.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self.description), indent=2))
        temporary.rename(state)


def _describe(plane: ControlPlane) -> Description:
    return Description(
        url=plane.url,
        kubeconfig=str(plane.paths.kubeconfig),
        kubectl=plane.binaries.kubectl,
        binaries=asdict(plane.binaries),
        ports=asdict(plane.ports),
        etcd_prefix=plane.etcd_prefix,
    )


def _server_of(kubeconfig: Path) -> str:
    """The URL that the current context of a kubeconfig names. Raises StartFailedError if it names none."""
    try:
        config = yaml.safe_load(kubeconfig.read_text())
        contexts = {entry["name"]: entry["context"] for entry in config["contexts"]}
        clusters = {entry["name"]: entry["cluster"] for entry in config["clusters"]}
        return str(clusters[contexts[config["current-context"]]["cluster"]]["server"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StartFailedError(f"{kubeconfig} is no kubeconfig with a current context: {error!r}") from error
