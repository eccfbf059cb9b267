"""One demo from its processes' start to their end; what is left behind is told."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from mafalda_operator.cli.demo import layout as layouts
from mafalda_operator.cli.demo.call import Call
from mafalda_operator.cli.demo.errors import DemoError
from mafalda_operator.cli.demo.report import Report
from mafalda_operator.cli.demo.stack import Stack
from mafalda_operator.cli.demo.steps import Demo
from mafalda_operator.cli.local.binaries import cache_root
from mafalda_operator.effects.api import KubeApi
from mafalda_operator.effects.credentials import Credentials


def run(console: Console, report: Report, example: Path, crds: Path) -> None:
    """All four steps in a directory that is gone afterwards.

    Blocks. Raises DemoError when a step does not hold or something is left, and what Stack.start raises.
    """
    directory = Path(tempfile.mkdtemp(prefix="mafalda-demo-"))
    try:
        with _stack(console, directory, example, crds, tied=True) as (stack, manifest, objects):
            asyncio.run(_steps(stack, manifest, objects, console, report))
            report.leftovers += stack.stop_processes()
            _check_nothing_left(report)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        report.leftovers.append(str(directory))
    _check_nothing_left(report)


def _check_nothing_left(report: Report) -> None:
    if report.leftovers:
        raise DemoError(f"left behind: {', '.join(report.leftovers)}")


def run_and_keep(console: Console, report: Report, example: Path, crds: Path, kept: Path) -> None:
    """The first three steps; then everything runs on, the killed server too.

    Raises as `run` does, and leaves nothing running then.
    """
    if kept.exists():
        raise DemoError(f"a demo is kept in {kept} already: `make down` ends it")
    with _stack(console, kept, example, crds, tied=False) as (stack, manifest, objects):
        asyncio.run(_steps(stack, manifest, objects, console, report, delete=False))
        for server in stack.layout.servers:
            if not stack.cluster.processes.running(server.name):
                stack.start_server(server)
                stack.await_healthy(server.name)
        _tell(console, stack, objects)
        stack.keep = True


@contextmanager
def _stack(
    console: Console, directory: Path, example: Path, crds: Path, *, tied: bool
) -> Iterator[tuple[Stack, Path, list[layouts.Document]]]:
    """The running processes, the manifest that fits their ports, and its objects; ended unless kept."""
    objects = layouts.parse_documents(example.read_text())
    default = layouts.default_layout(objects)
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(text, style="dim", highlight=False, soft_wrap=True)

    stack = Stack.start_on_free_ports(directory, default, crds=crds, tied=tied, say=say)
    try:
        say(f"all healthy after {time.monotonic() - began:.1f} s")
        manifest = example
        if stack.layout != default:
            manifest = directory / "demo.yaml"
            manifest.write_text(layouts.rewrite(objects, stack.layout))
            say(f"a default port is taken; a copy with free ones is {manifest}")
        yield stack, manifest, objects
    except Exception:
        kept = cache_root() / "demo-failed"
        stack.cluster.processes.copy_logs(kept)
        say(f"the processes' logs are kept in {kept}")
        raise
    finally:
        if not stack.keep:
            stack.stop()


async def _steps(
    stack: Stack,
    manifest: Path,
    objects: list[layouts.Document],
    console: Console,
    report: Report,
    *,
    delete: bool = True,
) -> None:
    api = KubeApi(Credentials(stack.cluster.kubeconfig))
    try:
        demo = Demo(stack, manifest, objects, console, report, api)
        await demo.session_ready()
        async with Call() as call:
            await demo.everybody_receives(call)
            await demo.lose_a_server(call)
            if delete:
                await demo.delete(call)
            else:
                report.frames = call.frames()
    finally:
        await api.close()


def _tell(console: Console, stack: Stack, objects: list[layouts.Document]) -> None:
    session = next(found["metadata"] for found in objects if found["kind"] == "MediaSession")
    name = f"{session['namespace']}/{session['name']}"
    found = next(found["metadata"] for found in objects if found["kind"] == "MediaCluster")
    cluster = f"{found['namespace']}/{found['name']}"
    console.print(
        f"""
Everything runs on, the killed server too. In another shell:

  export KUBECONFIG={stack.cluster.kubeconfig}
  {stack.cluster.description.kubectl} get mafalda -A -o wide
  .venv/bin/mafalda join 'ws://127.0.0.1:{stack.layout.gateway}/?roomId={name}' \\
      --token "$(.venv/bin/mafalda token --session {name} --sub dora)" --publish video

  MEDIASOUP_WORKER_BIN=$PWD/.venv/bin/mafalda-worker MAFALDA_URL=ws://127.0.0.1:{stack.layout.gateway} \\
      MAFALDA_TOKEN=$(.venv/bin/mafalda worker-token --cluster {cluster} --sub app) \\
      NODE_PATH=tests/node/node_modules node examples/remote/app.js
  .venv/bin/mafalda workers --cluster-key-file {stack.key_file}

`make down` ends it.""",
        highlight=False,
        soft_wrap=True,
    )
