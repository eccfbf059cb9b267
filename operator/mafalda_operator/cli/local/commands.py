"""`mafalda local up|down|status`."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from mafalda_operator.cli.local.binaries import FROM_PATH, cache_root, find_binaries
from mafalda_operator.cli.local.cluster import LocalCluster
from mafalda_operator.cli.local.directory import remove
from mafalda_operator.cli.local.errors import DirectoryInUseError, LocalClusterError, NotRunningError
from mafalda_operator.cli.local.processes import ProcessGroup, is_running

_NOT_RUNNING = 1

_directory_option = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the cluster lives; give each its own to have several side by side. "
    "If absent: local/default in the cache (~/.cache/mafalda).",
)
_output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True
)


def _chosen(directory: Path | None) -> Path:
    return (directory or cache_root() / "local" / "default").absolute()


@contextlib.contextmanager
def _errors_shown() -> Iterator[None]:
    try:
        yield
    except LocalClusterError as error:
        raise click.ClickException(str(error)) from error


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@click.group()
def local() -> None:
    """A Kubernetes control plane on loopback, without root: etcd, API server, garbage collection."""


@local.command()
@_directory_option
@click.option(
    "--binaries",
    "source",
    metavar=f"DIR|{FROM_PATH}",
    envvar="MAFALDA_KUBERNETES_BIN",
    show_envvar=True,
    help="Folder with etcd, kube-apiserver, kube-controller-manager and kubectl, or the word "
    f"'{FROM_PATH}' for those on PATH. If absent: $KUBEBUILDER_ASSETS, then what `make kubernetes` built.",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Use this kubeconfig's API server instead; nothing is started.",
)
@click.option(
    "--apply",
    "manifests",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    help="File or folder of manifests to apply first, such as crds/; may be repeated.",
)
@_output_option
def up(
    directory: Path | None,
    source: str | None,
    kubeconfig: Path | None,
    manifests: tuple[Path, ...],
    output: str,
) -> None:
    """Start it, and say how to reach it. One that runs already is left alone."""
    place = _chosen(directory)
    signal.signal(signal.SIGTERM, _interrupt)  # so that an `up` that is ended leaves nothing either
    with _errors_shown():
        cluster = _running(place)
        if cluster is None and kubeconfig is not None:
            cluster = LocalCluster.adopt(place, kubeconfig, manifests=manifests)
        elif cluster is None:
            binaries = find_binaries(source)
            cluster = LocalCluster.start(place, binaries=binaries, manifests=manifests, tied=False)
        elif kubeconfig is not None and kubeconfig.absolute() != cluster.kubeconfig:
            raise DirectoryInUseError(
                f"{place} holds the cluster at {cluster.url}; name another --dir or run `mafalda local down`"
            )
    _report(cluster, output)


def _running(directory: Path) -> LocalCluster | None:
    try:
        cluster = LocalCluster.attach(directory)
    except NotRunningError:
        return None
    return cluster if cluster.state() == "Running" else None


@local.command()
@_directory_option
def down(directory: Path | None) -> None:
    """End exactly what `up` started, and remove its directory."""
    place = _chosen(directory)
    if not ProcessGroup(place).prepared:
        click.echo(f"no cluster in {place}")
        return
    with _errors_shown():
        remove(place)
    click.echo(f"the cluster in {place} is gone")


@local.command()
@_directory_option
@_output_option
def status(directory: Path | None, output: str) -> None:
    """Say what runs. Exit code 0 only if all of it does."""
    place = _chosen(directory)
    try:
        cluster = LocalCluster.attach(place)
    except NotRunningError as error:
        if output == "json":
            click.echo(json.dumps({"directory": str(place), "state": "Absent"}))
        else:
            click.echo(str(error))
        sys.exit(_NOT_RUNNING)
    if _report(cluster, output)["state"] != "Running":
        sys.exit(_NOT_RUNNING)


def _report(cluster: LocalCluster, output: str) -> dict[str, Any]:
    about = cluster.description
    found: dict[str, Any] = {
        "state": cluster.state(),
        "url": cluster.url,
        "directory": str(cluster.directory),
        "kubeconfig": str(cluster.kubeconfig),
        "kubectl": about.kubectl,
        "owned": cluster.owned,
        "readyMs": about.ready_ms,
        "processes": {
            name: {"pid": record.pid, "running": is_running(record)}
            for name, record in cluster.processes.records().items()
        },
    }
    if output == "json":
        click.echo(json.dumps(found, indent=2))
        return found
    ready = f", ready in {about.ready_ms / 1000:.1f} s" if about.ready_ms is not None else ""
    click.echo(f"{found['state']} at {found['url']}{ready}")
    for name, process in found["processes"].items():
        click.echo(f"  {name:<24} pid {process['pid']}{'' if process['running'] else ' has ended'}")
    click.echo(f"  export KUBECONFIG={found['kubeconfig']}")
    click.echo(f"  {found['kubectl']} get namespaces")
    return found
