"""`mafalda token`: signs a participant's token and prints it, nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from mafalda_operator.cli.durations import DURATION
from mafalda_operator.cli.token_keys import NoTokenKey, SigningKey, key_of_session
from mafalda_operator.effects.errors import KubeError
from mafalda_operator.model import ObjectKey
from mediaserver.wire.errors import TokenError


@click.command()
@click.option("--session", required=True, metavar="NAMESPACE/NAME", help="The MediaSession that it is for.")
@click.option("--sub", required=True, metavar="PARTICIPANT", help="Who it is for: the participant's id.")
@click.option("--publish/--no-publish", default=True, show_default=True, help="May send media.")
@click.option("--subscribe/--no-subscribe", default=True, show_default=True, help="May receive media.")
@click.option(
    "--ttl", type=DURATION, default="1h", show_default=True, help="How long a dial with it is accepted."
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of the cluster whose key signs it. If absent: as kubectl finds it.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Sign with the key in this file (its bytes as they are) and ask no cluster; needs --kid, --issuer.",
)
@click.option("--kid", help="The key's id: its name in the Secret's data.")
@click.option("--issuer", help="UID or name of the MediaCluster, with --key-file.")
def token(
    session: str,
    sub: str,
    publish: bool,
    subscribe: bool,
    ttl: float,
    kubeconfig: Path | None,
    key_file: Path | None,
    kid: str | None,
    issuer: str | None,
) -> None:
    """Print a token with which a participant may join a session.

    The key is one of the session's MediaCluster (spec.tokens.keySets), read from its Secret, or the one in
    --key-file.
    """
    namespace, _, name = session.partition("/")
    if not namespace or not name or "/" in name:
        raise click.BadParameter("must be NAMESPACE/NAME", param_hint="--session")
    key = ObjectKey(namespace, name)
    signing = _signing_key(key, kubeconfig, key_file, kid, issuer)
    try:
        click.echo(signing.sign(key, sub, seconds=ttl, publish=publish, subscribe=subscribe))
    except TokenError as error:
        raise click.ClickException(str(error)) from error


def _signing_key(
    session: ObjectKey, kubeconfig: Path | None, key_file: Path | None, kid: str | None, issuer: str | None
) -> SigningKey:
    if key_file is None:
        if kid or issuer:
            raise click.UsageError("--kid and --issuer go with --key-file")
        try:
            return asyncio.run(key_of_session(session, kubeconfig))
        except (NoTokenKey, KubeError) as error:
            raise click.ClickException(str(error)) from error
    if not kid or not issuer:
        raise click.UsageError("--key-file needs --kid and --issuer")
    return SigningKey(issuer, kid, key_file.read_bytes())
