"""`mafalda token`: signs a participant's token and prints it, nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from mafalda_operator.cli.durations import DURATION
from mafalda_operator.cli.names import NAME
from mafalda_operator.cli.signing import choose_key, signing_options
from mafalda_operator.cli.token_keys import key_of_session
from mafalda_operator.model import ObjectKey
from mediaserver.wire.errors import TokenError


@click.command()
@click.option("--session", type=NAME, required=True, help="The MediaSession that it is for.")
@click.option("--sub", required=True, metavar="PARTICIPANT", help="Who it is for: the participant's id.")
@click.option("--publish/--no-publish", default=True, show_default=True, help="May send media.")
@click.option("--subscribe/--no-subscribe", default=True, show_default=True, help="May receive media.")
@click.option(
    "--ttl", type=DURATION, default="1h", show_default=True, help="How long a dial with it is accepted."
)
@signing_options
def token(
    session: ObjectKey,
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
    signing = choose_key(partial(key_of_session, session), kubeconfig, key_file, kid, issuer)
    try:
        click.echo(signing.sign(session, sub, seconds=ttl, publish=publish, subscribe=subscribe))
    except TokenError as error:
        raise click.ClickException(str(error)) from error
