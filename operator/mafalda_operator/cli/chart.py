"""`mafalda chart`: what the Helm chart's hooks do in the cluster, as Jobs of the image.

Helm cannot make a MediaCluster in the release that defines its kind, nor wait for the pods of one that it
deletes, nor delete what the operator made; these commands do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click
import yaml

from mafalda_operator.cli.durations import DURATION
from mafalda_operator.cli.hooks import JOBS, HookError, apply_cluster, delete_clusters, sweep
from mafalda_operator.effects.api import LEASES, PODS, SECRETS, KubeApi
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import KubeError
from mafalda_operator.model import parse_duration

_KUBECONFIG = click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of the cluster. If absent: the pod's service account, else as kubectl finds it.",
)


class _DrainTimeout(click.ParamType[str]):
    """A duration of Kubernetes' kind, 0s included, kept as it is written."""

    name = "duration"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if parse_duration(value) is None:
            self.fail(f"{value!r} is no duration; write it as 0s, 90s or 15m", param, ctx)
        return value


@click.group()
def chart() -> None:
    """What the Helm chart's hooks run; people need them seldom."""


@chart.command("apply")
@click.argument("manifest", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--deadline", type=DURATION, default="4m", show_default=True, help="To have done it in.")
@_KUBECONFIG
def apply(manifest: Path, deadline: float, kubeconfig: Path | None) -> None:
    """Apply the MediaCluster in MANIFEST, as soon as the API server knows the kind."""
    try:
        body = yaml.safe_load(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise click.UsageError(f"{manifest} can't be read: {error}") from error
    if not isinstance(body, dict) or body.get("kind") != "MediaCluster":
        raise click.UsageError(f"{manifest} is no MediaCluster")
    with_api(kubeconfig, lambda api: apply_cluster(api, body, seconds=deadline, say=click.echo))


@chart.command("delete-clusters")
@click.option("--release", required=True, help="The Helm release whose MediaClusters are deleted.")
@click.option("--namespace", "namespaces", multiple=True, required=True, help="Where they live. Repeatable.")
@click.option(
    "--others",
    type=click.Choice(["Refuse", "Delete", "Keep"]),
    default="Refuse",
    show_default=True,
    help="What to do with MediaClusters that have pods and are not the release's.",
)
@click.option("--keep", is_flag=True, help="Leave the release's own as they are.")
@click.option(
    "--drain-timeout",
    type=_DrainTimeout(),
    default="0s",
    show_default=True,
    help="How long calls may go on: spec.drain.timeout is set to it.",
)
@click.option("--deadline", type=DURATION, default="5m", show_default=True, help="To have done it in.")
@_KUBECONFIG
def delete(
    release: str,
    namespaces: tuple[str, ...],
    others: str,
    keep: bool,
    drain_timeout: str,
    deadline: float,
    kubeconfig: Path | None,
) -> None:
    """Delete a release's MediaClusters and wait until they and their pods are gone."""
    with_api(
        kubeconfig,
        lambda api: delete_clusters(
            api,
            release=release,
            namespaces=namespaces,
            others=others,
            keep=keep,
            drain_timeout=drain_timeout,
            seconds=deadline,
            say=click.echo,
        ),
    )


@chart.command("sweep")
@click.option("--namespace", required=True, help="Where the operator ran.")
@click.option("--secret", "secrets", multiple=True, help="A Secret to delete. Repeatable.")
@click.option("--lease", "leases", multiple=True, help="A Lease to delete. Repeatable.")
@click.option("--job", "jobs", multiple=True, help="A Job to delete. Repeatable.")
@click.option("--pod", "pods", multiple=True, help="A pod to delete. Repeatable.")
@_KUBECONFIG
def sweep_command(
    namespace: str,
    secrets: tuple[str, ...],
    leases: tuple[str, ...],
    jobs: tuple[str, ...],
    pods: tuple[str, ...],
    kubeconfig: Path | None,
) -> None:
    """Delete what an operator that is gone, or hooks, left in the release's namespace."""
    names = {SECRETS: secrets, LEASES: leases, JOBS: jobs, PODS: pods}
    with_api(kubeconfig, lambda api: sweep(api, namespace, names, say=click.echo))


def with_api(kubeconfig: Path | None, work: Any) -> None:
    """Run ``work(api)`` to its end. Raises ClickException for what went wrong."""

    async def run() -> None:
        api = KubeApi(Credentials(kubeconfig))
        try:
            doing: Coroutine[Any, Any, None] = work(api)
            await doing
        finally:
            await api.close()

    try:
        asyncio.run(run())
    except (HookError, KubeError) as error:
        raise click.ClickException(str(error)) from error
