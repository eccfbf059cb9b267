"""Where the control plane's programs are, and where this project caches what it builds."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mafalda_operator.cli.local.errors import BinariesMissingError

NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
FROM_PATH = "path"


def cache_root(environment: Mapping[str, str] = os.environ) -> Path:
    """$MAFALDA_CACHE, or mafalda in $XDG_CACHE_HOME, or ~/.cache/mafalda; the same rule as in
    tools/lib/cache.sh.
    """
    if chosen := environment.get("MAFALDA_CACHE"):
        return Path(chosen).absolute()
    if base := environment.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "mafalda"
    return Path.home() / ".cache" / "mafalda"


@dataclass(frozen=True)
class Binaries:
    etcd: str
    kube_apiserver: str
    kube_controller_manager: str
    kubectl: str


def find_binaries(source: str | None = None, environment: Mapping[str, str] = os.environ) -> Binaries:
    """The four programs. Raises BinariesMissingError, naming those that are not there.

    `source`, or $MAFALDA_KUBERNETES_BIN, is a folder that must hold all of them, or the word "path" for those
    on PATH. Without either: those that $KUBEBUILDER_ASSETS has (it usually lacks kube-controller-manager),
    the rest from what `make kubernetes` built.
    """
    told = source or environment.get("MAFALDA_KUBERNETES_BIN")
    if told == FROM_PATH:
        folders = [Path(folder) for folder in environment.get("PATH", os.defpath).split(os.pathsep) if folder]
        remedy = (
            "they were asked for on PATH; install them, or leave out the choice and run `make kubernetes`"
        )
    elif told:
        folders = [Path(told).absolute()]
        remedy = f"they were asked for in {told}; leave that out to use what `make kubernetes` builds"
    else:
        assets = environment.get("KUBEBUILDER_ASSETS")
        folders = [Path(assets).absolute()] if assets else []
        folders.append(cache_root(environment) / "kubernetes" / "current" / "bin")
        remedy = "run `make kubernetes` to build them once"
    search = os.pathsep.join(map(str, folders))
    found = {name: shutil.which(name, path=search) for name in NAMES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise BinariesMissingError(f"{', '.join(missing)} not found: {remedy}")
    return Binaries(**{name.replace("-", "_"): path for name, path in found.items() if path is not None})


def find_kubectl(source: str | None = None, environment: Mapping[str, str] = os.environ) -> str:
    """kubectl alone, for an API server of the user's own: as find_binaries finds it, else the one on PATH."""
    try:
        return find_binaries(source, environment).kubectl
    except BinariesMissingError:
        found = shutil.which("kubectl", path=environment.get("PATH"))
        if found is None:
            raise
        return found
