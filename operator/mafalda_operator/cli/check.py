"""`mafalda check`: makes a call in a session of its own and tells whether it worked. `helm test` runs it."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

import click
import msgspec

from mafalda_operator.cli.call_check import CheckError, CheckReport, Say, run_check
from mafalda_operator.cli.durations import DURATION
from mafalda_operator.cli.names import NAME
from mafalda_operator.effects.api import KubeApi
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import KubeError
from mafalda_operator.model import ObjectKey


@click.command()
@click.option("--cluster", type=NAME, required=True, help="The MediaCluster to try.")
@click.option(
    "--namespace", help="Where the session is made, for the time of the check. If absent: the cluster's."
)
@click.option(
    "--url",
    help="Where participants reach the gateway, ws:// or wss://. If absent: the session's status.url.",
)
@click.option(
    "--routers", type=click.IntRange(min=1, max=8), help="At least so many routers. If absent: one."
)
@click.option("--deadline", type=DURATION, default="2m", show_default=True, help="For all of it.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of the cluster. If absent: the pod's service account, else as kubectl finds it.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def check(
    context: click.Context,
    cluster: ObjectKey,
    namespace: str | None,
    url: str | None,
    routers: int | None,
    deadline: float,
    kubeconfig: Path | None,
    output: str,
) -> None:
    """Make a MediaSession, let two participants talk in it with real media, and delete it.

    Prints what it measured. Exit codes: 0 the call worked, 1 it did not (the reason is printed), 2 wrong use.
    """
    session = ObjectKey(namespace or cluster.namespace, f"check-{secrets.token_hex(4)}")
    report = CheckReport(cluster=str(cluster), session=str(session))
    say = click.echo if output == "text" else _silent
    try:
        asyncio.run(_run(report, cluster, session, url, routers, deadline, kubeconfig, say))
    except (CheckError, KubeError) as error:
        report.error = str(error)
    if output == "json":
        click.echo(msgspec.json.encode(report).decode())
    elif report.error is None:
        click.echo(f"passed in {report.total_s:g} s")
    if report.error is not None:
        click.echo(f"failed: {report.error}", err=True)
        context.exit(1)


def _silent(_: str) -> None:
    pass


async def _run(
    report: CheckReport,
    cluster: ObjectKey,
    session: ObjectKey,
    url: str | None,
    routers: int | None,
    deadline: float,
    kubeconfig: Path | None,
    say: Say,
) -> None:
    api = KubeApi(Credentials(kubeconfig))
    started = time.monotonic()
    try:
        await run_check(
            api,
            report,
            cluster,
            session,
            url=url,
            routers=routers,
            seconds=deadline,
            kubeconfig=kubeconfig,
            say=say,
        )
    finally:
        report.total_s = round(time.monotonic() - started, 1)
        await api.close()
