"""Options of the commands that sign tokens: with a key of the cluster, or with one of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from mafalda_operator.cli.token_keys import NoTokenKey, SigningKey
from mafalda_operator.effects.errors import KubeError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_OPTIONS = (
    click.option(
        "--kubeconfig", type=_FILE, help="Of the cluster whose key signs it. If absent: as kubectl finds it."
    ),
    click.option(
        "--key-file",
        type=_FILE,
        help="Sign with the key in this file (its bytes as they are) and ask no cluster; needs --kid and "
        "--issuer.",
    ),
    click.option("--kid", help="The key's id: its name in the Secret's data."),
    click.option("--issuer", help="UID or name of the MediaCluster, with --key-file."),
)


def signing_options(command: CommandT) -> CommandT:
    """Add --kubeconfig, --key-file, --kid and --issuer, which ``choose_key`` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def choose_key(
    of_cluster: Callable[[Path | None], Coroutine[Any, Any, SigningKey]],
    kubeconfig: Path | None,
    key_file: Path | None,
    kid: str | None,
    issuer: str | None,
) -> SigningKey:
    """The key in the file, else what ``of_cluster`` finds by the kubeconfig. Raises ClickException."""
    if key_file is None:
        if kid or issuer:
            raise click.UsageError("--kid and --issuer go with --key-file")
        try:
            return asyncio.run(of_cluster(kubeconfig))
        except (NoTokenKey, KubeError) as error:
            raise click.ClickException(str(error)) from error
    if not kid or not issuer:
        raise click.UsageError("--key-file needs --kid and --issuer")
    return SigningKey(issuer, kid, key_file.read_bytes())
