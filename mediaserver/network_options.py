"""The flags of `mafalda-mediaserver` for what participants are told to send their media to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from mediaserver.addresses import ANNOUNCE_TYPES, AddressQuery, Announce, AnnounceType, family, is_wildcard
from mediaserver.config import ConfigError, parse_ip, split_commas

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--ip-family",
        "ip_families",
        type=click.Choice(["IPv4", "IPv6"]),
        multiple=True,
        help="Of --client-address take only those of this family. May be repeated: both, in that order.",
    ),
    click.option(
        "--announce",
        multiple=True,
        metavar="ADDRESS",
        help="What participants are told instead of --client-address, such as the address outside a NAT. May "
        "be repeated: they try all, best the first.",
    ),
    click.option(
        "--announce-from",
        type=click.Choice(ANNOUNCE_TYPES),
        multiple=True,
        help="Announce the addresses of the Kubernetes node, of the pod's load balancer, or --client-address "
        "(PodIP). May be repeated, and mixed with --announce. The server waits until each type is there.",
    ),
    click.option(
        "--addresses-dir",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where the operator's ConfigMap with the addresses of nodes and load balancers is mounted.",
    ),
    click.option("--node", default="", metavar="NAME", help="The Kubernetes node that this server runs on."),
    click.option(
        "--server-name",
        default="",
        metavar="NAME",
        help="The server's name, by which its load balancer goes.",
    ),
)


def network_options(command: CommandT) -> CommandT:
    """Adds the flags to a click command, which has to be a NetworkCommand."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class NetworkCommand(click.Command):
    """Keeps the order in which --announce and --announce-from were given: click tells it of neither."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        left = super().parse_args(ctx, args)
        names = ("announce", "announce_from")
        ctx.params["announce_order"] = [option.name for option in order if option.name in names]
        return left


def announces(
    given: Sequence[str], types: Sequence[AnnounceType], order: Sequence[str]
) -> tuple[Announce, ...]:
    """The two flags' values in the order of the command line, each once.

    `order` has the flags' names; values beyond it come last (those of environment variables).
    """
    values: dict[str, Iterator[Announce]] = {
        "announce": (Announce("Address", _plain(address)) for address in given if address),
        "announce_from": (Announce(kind) for kind in types),
    }
    found = [announce for name in order if (announce := next(values[name], None)) is not None]
    return tuple(dict.fromkeys((*found, *values["announce"], *values["announce_from"])))


def _plain(address: str) -> str:
    """An IP address as it is usually written; a host name as it is."""
    try:
        return parse_ip("--announce", address)
    except ConfigError:
        return address


def client_hosts(texts: Sequence[str], wanted: Sequence[Literal["IPv4", "IPv6"]] = ()) -> tuple[str, ...]:
    """Of `texts` those of the families `wanted`, in that order; all if none is wanted.

    Raises ConfigError.
    """
    hosts = tuple(parse_ip("--client-address", text) for text in split_commas(texts))
    if not hosts:
        raise ConfigError("--client-address", "there is none; name the address to listen on")
    if not wanted:
        return hosts
    chosen: list[str] = []
    for version in dict.fromkeys(wanted):
        of_family = [host for host in hosts if f"IPv{family(host)}" == version]
        if not of_family:
            raise ConfigError(
                "--ip-family",
                f"there is no {version} address among {', '.join(hosts)} of --client-address; give the "
                "network that family (a dual-stack cluster), or do without it (spec.network.ipFamilies of "
                "the MediaCluster)",
            )
        chosen += of_family
    return tuple(chosen)


def address_query(
    wanted: tuple[Announce, ...], *, hosts: tuple[str, ...], directory: Path | None, node: str, server: str
) -> AddressQuery:
    """Raises ConfigError where a flag is missing that a type needs."""
    query = AddressQuery(wanted=wanted, hosts=hosts, directory=directory, node=node, server=server)
    for announce in wanted:
        if announce.type == "PodIP" and all(is_wildcard(host) for host in hosts):
            raise ConfigError(
                "--announce-from", f"PodIP: --client-address is {hosts[0]}; name the pod's address"
            )
        name = query.file_of(announce)
        if name is None:
            continue
        flag, value = ("--server-name", server) if announce.type == "LoadBalancer" else ("--node", node)
        if not value:
            raise ConfigError(
                "--announce-from", f"{announce.type} needs {flag} NAME, to know whose address it is"
            )
        if directory is None:
            raise ConfigError(
                "--announce-from", f"{announce.type} needs --addresses-dir DIR, to find the address in"
            )
    return query
