"""tools/remote-suite: mediasoup's own suite through the tunnel, held against what is expected of it."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from mafalda_operator.cli.local.binaries import cache_root
from mafalda_operator.cli.local.errors import LocalClusterError
from remote_suite.jest import JestError, run_suite
from remote_suite.modes import ADDRESSES, MODES, Mode
from remote_suite.network import NetworkError
from remote_suite.results import Results, ResultsError, Verdict, read_expectations
from remote_suite.system import Running, plain, system

from benchmarks.remote_system import SystemFailed, comes
from mediaserver.wire import logs

EXPECTED = Path(__file__).with_name("expected.toml")
_END_SECONDS = 40.0
"""In which all workers have ended: a case kills a mafalda-worker, for which the server waits 30 s."""
_FAILED = 1
_INTERRUPTED = 130


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--direct", is_flag=True, help="Run the plain worker: no media server, no tunnel.")
@click.option(
    "--netns",
    is_flag=True,
    help="Run the media server in a network namespace of its own, gateway and suite outside. Needs root.",
)
@click.option(
    "--addresses",
    type=click.Choice(ADDRESSES),
    default="Keep",
    show_default=True,
    help="What the media server does with the addresses that the suite asks for.",
)
@click.option("--only", metavar="PATTERN", help="Run the test files that match, such as test-Worker.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="End the suite when it has taken so long.",
)
@click.option(
    "--worker",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=cache_root() / "worker" / "current" / "mediasoup-worker",
    help="The worker program of --direct. Absent: the one that `make worker` built.",
)
@click.option(
    "-o", "output", type=click.Choice(["text", "json"]), default="text", help="How to tell the result."
)
def main(
    *, direct: bool, netns: bool, addresses: str, only: str | None, timeout: float, worker: Path, output: str
) -> None:
    """Run mediasoup's own test suite with its workers on a media server of this project.

    Starts a control plane, the operator, the gateway and a media server as local processes, runs the suite by
    jest with mafalda-worker in the worker's place, and ends everything. Compares the failures with those that
    tests/remote_suite/expected.toml lists for the mode, each with its reason.

    Exit code 0 if exactly these failed; 1 if not, or if it could not be run; 130 on Ctrl-C.
    """
    if direct and netns:
        raise click.UsageError("--direct has no media server that could be in a namespace: leave out --netns")
    signal.signal(signal.SIGTERM, _interrupt)
    logs.configure("error", "text")
    mode = Mode() if direct else Mode(addresses, netns)
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:6.1f} s  {text}", err=True)

    try:
        expectations = read_expectations(EXPECTED.read_text(), [known.name for known in MODES])
        say(f"mode {mode.name}")
        with plain(worker) if direct else system(mode, say) as running:
            results, seconds = _run(running, only, timeout, say)
            verdict = Verdict(results, expectations.of(mode.name), expectations.total, part=only is not None)
            say("waiting for the end of every worker")
            if not comes(lambda: not running.workers(), _END_SECONDS):
                verdict = replace(verdict, left=running.workers())
            if verdict.unexpected_failures() or results.broken or verdict.left:
                say(f"the processes' logs are kept in {_keep_logs(running)}")
    except (JestError, NetworkError, SystemFailed, ResultsError, LocalClusterError) as error:
        click.echo(f"remote-suite: {error}", err=True)
        sys.exit(_FAILED)
    except KeyboardInterrupt:
        click.echo("interrupted; everything is ended", err=True)
        sys.exit(_INTERRUPTED)
    _tell(mode, verdict, seconds, output)
    sys.exit(_FAILED if list(verdict.problems()) else 0)


def _run(
    running: Running, only: str | None, timeout: float, say: Callable[[str], None]
) -> tuple[Results, float]:
    began = time.monotonic()
    try:
        results = run_suite(running.processes, running.environment, only=only, timeout=timeout, say=say)
    except JestError:
        say(f"the processes' logs are kept in {_keep_logs(running)}")
        raise
    return results, round(time.monotonic() - began, 1)


def _keep_logs(running: Running) -> Path:
    kept = cache_root() / "remote-suite-failed"
    running.processes.copy_logs(kept)
    return kept


def _tell(mode: Mode, verdict: Verdict, seconds: float, output: str) -> None:
    if output == "json":
        click.echo(json.dumps({"mode": mode.name, **verdict.document(), "seconds": seconds}, indent=2))
        return
    results = verdict.results
    for case in results.of("failed"):
        if case in verdict.expected:
            click.echo(f"failed as expected: {case}: {verdict.expected[case]}")
    for problem in verdict.problems():
        click.echo(problem)
    click.echo(
        f"{mode.name}: {len(results.of('passed'))} of {len(results.outcomes)} passed, "
        f"{len(results.of('failed'))} failed ({len(verdict.unexpected_failures())} unexpected), "
        f"{len(results.of('skipped'))} skipped; {seconds:.0f} s"
    )


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="tools/remote-suite")
