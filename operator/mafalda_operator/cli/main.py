"""The `mafalda` command. Subcommands are imported only when called: `join` alone loads a media stack."""

from __future__ import annotations

import importlib
from importlib.metadata import version

import click

# name -> module:attribute of a click command
_COMMANDS = {
    "chart": "mafalda_operator.cli.chart:chart",
    "check": "mafalda_operator.cli.check:check",
    "demo": "mafalda_operator.cli.demo.commands:demo",
    "join": "mafalda_operator.cli.join:join",
    "local": "mafalda_operator.cli.local.commands:local",
    "token": "mafalda_operator.cli.token:token",
    "worker-token": "mafalda_operator.cli.worker_token:worker_token",
    "workers": "mafalda_operator.cli.workers:workers",
}


class _LazyGroup(click.Group):
    """A group whose commands are named here and imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("mafalda-operator"), prog_name="mafalda")
def main() -> None:
    """Media sessions over many mediasoup servers: try them locally, make tokens, take part."""


if __name__ == "__main__":
    main()
