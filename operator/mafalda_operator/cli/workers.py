"""`mafalda workers`: which workers run for applications, on which server, and what they use."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal, NamedTuple

import click
from aiohttp import ClientSession, TCPConnector

from mafalda_operator.cli.names import NAME
from mafalda_operator.cli.observing import observing
from mafalda_operator.cli.workers_output import as_json, as_table
from mafalda_operator.effects.api import CLUSTERS, SERVERS, KubeApi
from mafalda_operator.effects.credentials import Credentials
from mafalda_operator.effects.errors import KubeError, NotFound
from mafalda_operator.model import MediaCluster, MediaServer, ObjectKey
from mediaserver.control.contract import Empty, TenantWorker, TenantWorkers
from mediaserver.wire.errors import MembershipError, WireError
from mediaserver.wire.membership import Credential
from mediaserver.wire.tls import load_credential

ANSWER_SECONDS = 5.0
AT_ONCE = 64
"""Servers that are asked at the same time."""


class Found(NamedTuple):
    """What there is to ask: MediaServers, and the MediaClusters by their names."""

    servers: list[MediaServer]
    clusters: dict[ObjectKey, MediaCluster]


class Answer(NamedTuple):
    """What one server said, or in ``problem`` why it said nothing."""

    server: ObjectKey
    workers: list[TenantWorker]
    problem: str = ""


@click.command()
@click.option("--cluster", type=NAME, help="Only this MediaCluster's. If absent: those of all.")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Where the MediaServers stand. If absent: as kubectl finds it.",
)
@click.option(
    "--cluster-key-file",
    "key_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The key that the media servers were started with: they answer nobody else. Or --tls-dir.",
)
@click.option(
    "--tls-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="tls.crt, tls.key and ca.crt of an operator or a gateway, for media servers with --tls-dir.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.pass_context
def workers(
    context: click.Context,
    cluster: ObjectKey | None,
    kubeconfig: Path | None,
    key_file: Path | None,
    tls_dir: Path | None,
    output: Literal["table", "json"],
) -> None:
    """List the mediasoup workers that run for applications on the media servers.

    TOKEN is the id of the token that a worker was started with: what to add to the data key revoked of the
    token keys' Secret to end it. A Detached worker waits for its application to come back. CPU is in cores.

    Exit code 1 when a server couldn't be asked; what the others say is listed all the same.
    """
    try:
        credential = load_credential(key_file, tls_dir, "observer")
        answers = asyncio.run(_ask_all(kubeconfig, credential, cluster))
    except (MembershipError, KubeError) as error:
        raise click.ClickException(str(error)) from error
    rows = [(answer.server, worker) for answer in answers for worker in answer.workers]
    rows.sort(key=lambda row: (row[0], row[1].subject, -row[1].age, row[1].id))
    if output == "json":
        click.echo(as_json(rows))
    elif rows:
        click.echo(as_table(rows))
    problems = [f"{answer.server} can't be asked: {answer.problem}" for answer in answers if answer.problem]
    for problem in problems:
        click.echo(problem, err=True)
    if output == "table" and not rows and not problems:
        click.echo("No worker runs for an application.", err=True)
    context.exit(1 if problems else 0)


async def _ask_all(
    kubeconfig: Path | None, credential: Credential, cluster: ObjectKey | None
) -> list[Answer]:
    api = KubeApi(Credentials(kubeconfig))
    try:
        found = await find(api, cluster)
    finally:
        await api.close()
    return await ask(found, credential)


async def find(api: KubeApi, cluster: ObjectKey | None) -> Found:
    """The servers of a MediaCluster, or of all. Raises KubeError, ClickException (no such MediaCluster)."""
    if cluster is None:
        listed = (await api.list(CLUSTERS)).items
    else:
        try:
            listed = [await api.get(CLUSTERS, *cluster)]
        except NotFound as error:
            raise click.ClickException(f"there is no MediaCluster {cluster}") from error
    namespace = None if cluster is None else cluster.namespace
    servers = [MediaServer.parse(item) for item in (await api.list(SERVERS, namespace)).items]
    clusters = {found.key: found for found in map(MediaCluster.parse, listed)}
    return Found([one for one in servers if one.address and cluster in (None, one.cluster)], clusters)


async def ask(found: Found, credential: Credential) -> list[Answer]:
    """What each of the servers says, ordered by name. Many are asked at a time: one that is gone is slow."""
    turn = asyncio.Semaphore(AT_ONCE)
    servers = sorted(found.servers, key=lambda server: server.key)
    async with ClientSession(connector=TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:

        async def one(server: MediaServer) -> Answer:
            async with turn:
                return await _ask(session, server, found.clusters.get(server.cluster), credential)

        asking = [group.create_task(one(server)) for server in servers]
    return [task.result() for task in asking]


async def _ask(
    session: ClientSession, server: MediaServer, cluster: MediaCluster | None, credential: Credential
) -> Answer:
    if cluster is None:
        return Answer(server.key, [], f"it names MediaCluster {server.cluster}; there is none")
    try:
        async with observing(
            session,
            server.address,
            credential,
            server=server.key,
            cluster=cluster.key,
            cluster_uid=cluster.uid,
            server_name=server.tls_name,
        ) as connection:
            told = await connection.call("tenants", Empty(), TenantWorkers, timeout=ANSWER_SECONDS)
    except WireError as error:
        return Answer(server.key, [], str(error))
    return Answer(server.key, told.workers)
