"""`mafalda worker-token`: signs the token of an application whose mediasoup workers run on a cluster."""

from __future__ import annotations

import secrets
import time
from functools import partial
from pathlib import Path
from typing import Literal

import click

from mafalda_operator.cli.durations import DURATION
from mafalda_operator.cli.names import NAME
from mafalda_operator.cli.signing import choose_key, signing_options
from mafalda_operator.cli.token_keys import key_for_workers
from mafalda_operator.model import ObjectKey
from mediaserver.wire.errors import TokenError
from mediaserver.wire.worker_tokens import REVOKED, WorkerClaims, mint

_BOUND = click.IntRange(min=1)


@click.command()
@click.option("--cluster", type=NAME, required=True, help="The MediaCluster whose media servers it is for.")
@click.option("--sub", required=True, metavar="APP", help="The application, as `mafalda workers` names it.")
@click.option(
    "--ttl",
    type=DURATION,
    default="30d",
    show_default=True,
    help="How long workers can be started with it; those that run then go on.",
)
@click.option(
    "--workers",
    type=_BOUND,
    help="Workers at the same time, on all servers. If absent: while servers have room.",
)
@click.option(
    "--consumers", type=_BOUND, help="Consumers of its workers on one server. If absent: as many as it likes."
)
@click.option(
    "--bandwidth",
    type=_BOUND,
    metavar="BITS",
    help="Bits a second that its workers on one server send and receive; above it no producer and no "
    "consumer is added. If absent: as many as it likes.",
)
@click.option(
    "--server", metavar="NAME", help="The MediaServer that its workers must run on. If absent: least loaded."
)
@click.option(
    "--zone", help="The zone whose servers come first. If absent: the one that the application names, if any."
)
@click.option(
    "--pipe-srtp",
    type=click.Choice(["Auto", "Never"]),
    help="Whether SRTP is switched on for pipes to 127.0.0.1. If absent: as each media server is set.",
)
@signing_options
def worker_token(
    cluster: ObjectKey,
    sub: str,
    ttl: float,
    workers: int | None,
    consumers: int | None,
    bandwidth: int | None,
    server: str | None,
    zone: str | None,
    pipe_srtp: Literal["Auto", "Never"] | None,
    kubeconfig: Path | None,
    key_file: Path | None,
    kid: str | None,
    issuer: str | None,
) -> None:
    """Print a token with which an application's mediasoup workers run on a cluster's media servers.

    The application is given it as MAFALDA_TOKEN. The key is that of a key set with workers: true (of the
    MediaCluster's spec.tokens.keySets), read from its Secret, or the one in --key-file; then --issuer is
    --cluster, unless given.
    """
    if key_file is not None:
        issuer = issuer or str(cluster)
    signing = choose_key(partial(key_for_workers, cluster), kubeconfig, key_file, kid, issuer)
    now = time.time()
    claims = WorkerClaims(
        iss=signing.issuer,
        sub=sub,
        nbf=int(now),
        exp=int(now + ttl),
        jti=secrets.token_hex(16),
        workers=workers,
        consumers=consumers,
        bandwidth=bandwidth,
        server=server,
        zone=zone,
        pipe_srtp=pipe_srtp,
    )
    try:
        click.echo(mint(claims, signing.kid, signing.key))
    except TokenError as error:
        raise click.ClickException(str(error)) from error
    held = "the Secret that holds its key" if signing.secret is None else f"Secret {signing.secret}"
    click.echo(f"To revoke it, add {claims.jti} to the data key {REVOKED} of {held}.", err=True)
