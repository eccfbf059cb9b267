"""`mafalda demo`: the main job on an embedded local cluster, with real media."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from mafalda_operator.cli.demo.errors import DemoError
from mafalda_operator.cli.demo.report import Report
from mafalda_operator.cli.demo.run import run, run_and_keep
from mafalda_operator.cli.local.binaries import cache_root
from mafalda_operator.cli.local.directory import remove
from mafalda_operator.cli.local.errors import LocalClusterError
from mafalda_operator.effects.errors import KubeError
from mediaserver.wire import logs
from mediaserver.wire.errors import WireError

_ROOT = Path(__file__).parents[4]
_PLAIN_WIDTH = 150
"""Columns where the output is no terminal; `kubectl get -o wide` needs about as many."""


@click.command()
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what was measured to this file, as JSON.",
)
@click.option("--keep", is_flag=True, help="Leave it running, session and all; --down ends it.")
@click.option("--down", is_flag=True, help="End what --keep left running.")
@click.option(
    "-f",
    "--file",
    "example",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=_ROOT / "examples" / "demo.yaml",
    help="The manifest to apply. If absent: examples/demo.yaml.",
)
def demo(report: Path | None, keep: bool, down: bool, example: Path) -> None:
    """Show the main job: a session over three media servers, real media across them, one server lost.

    Exit code 0 only if every step held; 1 if one did not; 130 on Ctrl-C, with everything ended.
    """
    kept = cache_root() / "demo"
    if down:
        _take_down(kept)
        return
    signal.signal(signal.SIGTERM, _interrupt)
    logs.configure("error", "text")
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    measured = Report()
    started = time.monotonic()
    try:
        if keep:
            run_and_keep(console, measured, example, _ROOT / "crds", kept)
        else:
            run(console, measured, example, _ROOT / "crds")
        measured.passed = True
    except (DemoError, LocalClusterError, KubeError, WireError) as error:
        console.print(f"demo failed: {error}", style="bold red", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("interrupted; everything is ended", style="bold")
        sys.exit(130)
    measured.total_s = round(time.monotonic() - started, 1)
    if report is not None:
        measured.write(report)
    if not measured.passed:
        sys.exit(1)
    console.print(f"every step held; {measured.total_s:.0f} s in all", style="bold green", highlight=False)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _take_down(kept: Path) -> None:
    if not kept.exists():
        click.echo("no demo is kept")
        return
    remove(kept)
    click.echo("the demo is ended")
