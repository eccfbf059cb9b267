"""`tools/cluster`: the command line of the testbed."""

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from mafalda_operator.cli.local.binaries import cache_root
from mafalda_operator.cli.local.errors import LocalClusterError

from testbed import images, network, starting, stopping
from testbed.cluster import Testbed, locked
from testbed.control_plane import RESTARTABLE
from testbed.errors import TestbedError
from testbed.layout import MAX_NODES, NAME
from testbed.programs import require_machine
from testbed.running import entered

_NOT_RUNNING = 1
_NAME = f"{__name__}.name"
_component = click.argument("component", type=click.Choice(sorted(RESTARTABLE)))


def _say_with_time() -> Callable[[str], None]:
    started = time.monotonic()
    return lambda what: click.echo(f"cluster: [{time.monotonic() - started:3.0f}s] {what}")


@contextlib.contextmanager
def _errors_shown() -> Iterator[None]:
    try:
        yield
    except (TestbedError, LocalClusterError) as error:
        raise click.ClickException(str(error)) from error


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MAFALDA_CLUSTER",
    show_envvar=True,
    help="Where the testbed keeps its state. If absent: cluster in the cache (~/.cache/mafalda).",
)
@click.option(
    "--name",
    default=NAME,
    show_default=True,
    envvar="MAFALDA_CLUSTER_NAME",
    help="Begins the names of its nodes and network namespaces; another one stands beside, in another --dir.",
)
@click.pass_context
def cluster(context: click.Context, directory: Path | None, name: str) -> None:
    """A real Kubernetes of several nodes on this machine, in network namespaces, without Docker. Needs root.

    Exit code 0: done (for status: it runs). 1: not done (it does not run); stderr says why and what to do.
    2: wrong arguments. `exec` ends with its command's.
    """
    if context.invoked_subcommand != "exec":
        _keep_files_private()
    context.obj = (directory or cache_root() / "cluster").absolute()
    context.meta[_NAME] = name


def _name() -> str:
    found: str = click.get_current_context().meta[_NAME]
    return found


def _keep_files_private() -> None:
    """What we start lives on, and would hold the files that our caller left open to us, as its locks."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208  a Path would be opened anew
        if int(entry) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(int(entry), False)


@cluster.command()
@click.option("--nodes", default=3, show_default=True, type=click.IntRange(1, MAX_NODES))
@click.option(
    "--image",
    "wanted",
    multiple=True,
    metavar="REF",
    help="Also load this image of buildah's store; repeatable.",
)
@click.pass_obj
def up(directory: Path, nodes: int, wanted: tuple[str, ...]) -> None:
    """Start it, or complete what is there, and say how to use it."""
    signal.signal(signal.SIGTERM, _interrupt)
    say = _say_with_time()
    with _errors_shown():
        require_machine()
        with locked(directory):
            testbed = starting.up(directory, _name(), nodes, wanted, say)
    say(f"ready: {', '.join(f'{node.name} ({node.address}, zone {node.zone})' for node in testbed.nodes)}")
    click.echo("Next:")
    click.echo(
        "  tools/cluster exec -- kubectl get nodes     # or helm, pytest, bash: addresses exist only there"
    )
    click.echo(
        "  tools/cluster load IMAGE                    # bring an image of buildah's store to the nodes"
    )
    click.echo("  tools/cluster down")


@cluster.command()
@click.pass_obj
def down(directory: Path) -> None:
    """End everything that `up` started and remove its state, in whatever state that is."""
    with _errors_shown():
        require_machine()
        with locked(directory):
            found = stopping.remove(directory, _name())
    click.echo("cluster: nothing is left of it" if found else f"cluster: there is none in {directory}")


@cluster.command()
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_obj
def status(directory: Path, output: str) -> None:
    """Show what runs. Exit code 0 if all of it does, else 1."""
    try:
        told = _attached(directory).status()
    except click.ClickException as error:
        told = {"running": False, "directory": str(directory), "reason": error.message}
    if output == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        _show(told)
    sys.exit(0 if told["running"] else _NOT_RUNNING)


def _attached(directory: Path) -> Testbed:
    with _errors_shown():
        return Testbed.attach(directory)


def _show(told: dict[str, Any]) -> None:
    click.echo(f"{'running' if told['running'] else 'not running'}: {told['directory']}")
    if "reason" in told:
        click.echo(told["reason"])
        return
    missing = [name for name, runs in told["controlPlane"].items() if not runs]
    click.echo(
        f"{'control plane':13} {'ready' if told['apiServerReady'] else 'no answer':9} {_ended(missing)}"
    )
    for node in told["nodes"]:
        state = "cut off" if node["cut"] else "ready" if node["ready"] else "not ready"
        missing = [name for name, runs in node["processes"].items() if not runs]
        click.echo(
            f"{node['name']:13} {state:9} {node['address']} pods {node['pods']} zone {node['zone']} "
            f"{_ended(missing)}"
        )
    for image, having in told["images"].items():
        click.echo(f"image {image} on {', '.join(sorted(having))}")


def _ended(missing: list[str]) -> str:
    return f"ended: {', '.join(missing)}" if missing else ""


@cluster.command()
@click.argument("image", nargs=-1, required=True)
@click.pass_obj
def load(directory: Path, image: tuple[str, ...]) -> None:
    """Bring images of buildah's store to every node; those that are there already are left out."""
    testbed = _attached(directory)
    with _errors_shown(), locked(directory):
        images.load(testbed, image, _say_with_time())


@cluster.command()
@click.argument("node")
@click.pass_obj
def cut(directory: Path, node: str) -> None:
    """Cut NODE off the network; its pods run on."""
    testbed = _attached(directory)
    with _errors_shown():
        testbed.cut(testbed.node(node))


@cluster.command()
@click.argument("node")
@click.pass_obj
def join(directory: Path, node: str) -> None:
    """Connect NODE again, and restore its routes."""
    testbed = _attached(directory)
    with _errors_shown():
        testbed.join(testbed.node(node))


@cluster.command()
@_component
@click.option("--kill", is_flag=True, help="By SIGKILL, as a crash.")
@click.pass_obj
def stop(directory: Path, component: str, kill: bool) -> None:
    """End etcd or the API server; what it keeps stays."""
    testbed = _attached(directory)
    with _errors_shown():
        testbed.stop(component, grace=0 if kill else 5)


@cluster.command()
@_component
@click.pass_obj
def start(directory: Path, component: str) -> None:
    """Start etcd or the API server again, and wait until the API answers."""
    testbed = _attached(directory)
    with _errors_shown():
        testbed.start(component)


@cluster.command()
@_component
@click.option("--kill", is_flag=True, help="By SIGKILL, as a crash.")
@click.pass_obj
def restart(directory: Path, component: str, kill: bool) -> None:
    """Stop it and start it again, and wait until the API answers."""
    testbed = _attached(directory)
    with _errors_shown():
        testbed.stop(component, grace=0 if kill else 5)
        testbed.start(component)


@cluster.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(directory: Path, command: tuple[str, ...]) -> NoReturn:
    """Run COMMAND where the cluster's addresses exist, with kubectl and helm on PATH and its kubeconfig.

    It takes the place of this process, so signals reach it and its exit code is this one's. Names of services
    resolve there.
    """
    testbed = _attached(directory)
    if os.geteuid() != 0:
        raise click.ClickException("only root may enter a network namespace")
    if not network.exists(testbed.namespace):
        raise click.ClickException("the testbed does not run; `tools/cluster up` starts it")
    resolv = shlex.quote(str(testbed.paths.resolv_conf))
    script = f'mount --bind {resolv} /etc/resolv.conf && exec "$@"'
    enter = [
        *entered(testbed.namespace),
        "unshare",
        "--mount",
        "--propagation",
        "slave",
        "sh",
        "-c",
        script,
        "sh",
    ]
    arguments = [*enter, *command]
    os.execvpe(arguments[0], arguments, {**os.environ, **testbed.environment()})
