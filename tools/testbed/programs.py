"""The programs the testbed runs: those this project builds, and those of Debian packages."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mafalda_operator.cli.local.binaries import cache_root

from testbed.errors import NotPossibleError
from testbed.running import run

EMBEDDED = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
TESTBED = ("kube-scheduler", "kubelet", "kube-proxy", "helm", "coredns", "kube-router")

PACKAGES: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "buildah": "buildah",
    "ip": "iproute2",
    "iptables": "iptables",
    "ipset": "ipset",
    "conntrack": "conntrack",
    "socat": "socat",
    "nsenter": "util-linux",
    "gcc": "gcc libc6-dev",
}
"""Debian package of each program that must be on PATH."""

_PLUGIN_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
_PLUGINS = ("bridge", "host-local", "portmap", "loopback")


@dataclass(frozen=True)
class Programs:
    """Folders of what this project builds."""

    embedded: Path
    testbed: Path

    def __getitem__(self, name: str) -> str:
        return str((self.embedded if name in EMBEDDED else self.testbed) / name)

    @property
    def path(self) -> str:
        """For PATH: kubectl and helm."""
        return f"{self.embedded}:{self.testbed}"


def find_programs(environment: Mapping[str, str] = os.environ) -> Programs:
    """Raises NotPossibleError, naming what is not built."""
    told = environment.get("MAFALDA_KUBERNETES_BIN")
    embedded = Path(told) if told else cache_root(environment) / "kubernetes" / "current" / "bin"
    testbed = cache_root(environment) / "testbed" / "current" / "bin"
    # Resolved, so that another build that is selected meanwhile does not change what runs.
    programs = Programs(embedded.resolve(), testbed.resolve())
    missing = [name for name in (*EMBEDDED, *TESTBED) if not os.access(programs[name], os.X_OK)]
    if missing:
        raise NotPossibleError(f"{', '.join(missing)} not built: run `make kubernetes cluster-binaries`")
    return programs


def plugin_folder() -> Path | None:
    """Where the CNI plugins are; None if nowhere."""
    for folder in map(Path, _PLUGIN_FOLDERS):
        if all((folder / plugin).is_file() for plugin in _PLUGINS):
            return folder
    return None


def missing_packages() -> list[str]:
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    missing = [package for program, package in PACKAGES.items() if shutil.which(program, path=path) is None]
    if plugin_folder() is None:
        missing.append("containernetworking-plugins")
    return missing


def require_machine() -> None:
    """Installs the Debian packages that are missing. Raises NotPossibleError if not root or if that fails."""
    missing = missing_packages()
    line = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0:
        first = f" Once: sudo {line}" if missing else ""
        raise NotPossibleError(f"the testbed makes network namespaces and mounts: run it as root.{first}")
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise NotPossibleError(f"these Debian packages (or what they hold) are missing: {' '.join(missing)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", timeout=120, environment=environment)
    run(*line.split(), timeout=400, environment=environment)
    if still := missing_packages():
        raise NotPossibleError(f"still missing after {line}: {' '.join(still)}")
