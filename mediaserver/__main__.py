"""The command `mafalda-mediaserver`: one media server process, until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 a fault, 2 settings that can't be used. Logs go to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import click
import structlog
import uvloop

from mediaserver.addresses import AnnounceType
from mediaserver.config import (
    ConfigError,
    ServerConfig,
    default_workers,
    parse_duration,
    parse_ip,
    parse_listen,
    parse_ports,
)
from mediaserver.network_options import (
    NetworkCommand,
    address_query,
    announces,
    client_hosts,
    network_options,
)
from mediaserver.pool import PoolConfig
from mediaserver.server import StartError, serve
from mediaserver.tenant_options import TenantOptions, tenant_options, tenant_settings
from mediaserver.wire import logs

log = structlog.get_logger(__name__)

FILE = click.Path(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(
    cls=NetworkCommand,
    context_settings={
        "auto_envvar_prefix": "MAFALDA_MEDIASERVER",
        "show_default": True,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.option(
    "--listen-address",
    metavar="IP",
    help="What the three listen flags mean where they have no host: in :4000, say.",
)
@click.option(
    "--internal-listen",
    default="127.0.0.1:4000",
    metavar="[HOST]:PORT",
    help="Where the operator, gateways and other media servers come in; not for the world.",
)
@click.option(
    "--participants-listen",
    default="127.0.0.1:4001",
    metavar="[HOST]:PORT",
    help="Where participants' signalling comes in, by way of the gateway.",
)
@click.option(
    "--health-listen",
    default="127.0.0.1:4002",
    metavar="[HOST]:PORT",
    help="Where /healthz, /readyz and /metrics answer.",
)
@click.option(
    "--client-address",
    "client_addresses",
    default=("127.0.0.1",),
    multiple=True,
    metavar="IP",
    help="Where workers listen for participants' media; repeated, or with commas: on all, at the same ports.",
)
@network_options
@click.option(
    "--client-port",
    default=10000,
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Worker slot n listens for participants' media on UDP and TCP port PORT + n.",
)
@click.option(
    "--pipe-address",
    default="127.0.0.1",
    metavar="IP",
    help="Where pipes from other media servers end: an internal address that they reach without NAT.",
)
@click.option(
    "--pipe-ports",
    default="20000-20099",
    metavar="FIRST-LAST",
    help="UDP ports of the pipes; each end of a link takes one.",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    show_default="one a core, of those within the container's CPU quota",
    help="How many mediasoup workers to run.",
)
@click.option(
    "--zone", default="", help="The failure zone that this server is in, as the operator spreads over."
)
@click.option(
    "--cluster-key-file",
    type=FILE,
    envvar="MAFALDA_CLUSTER_KEY_FILE",
    help="The secret shared by the members of the MediaCluster: 32 bytes or more, raw or base64. "
    "Or --tls-dir.",
)
@click.option(
    "--tls-dir",
    type=DIRECTORY,
    envvar="MAFALDA_TLS_DIR",
    help="TLS both ways with the tls.crt, tls.key and ca.crt in it, read again when they change; gateways "
    "then dial --participants-listen by TLS, too.",
)
@click.option(
    "--state-dir",
    type=DIRECTORY,
    help="Where to remember the MediaCluster that this server belongs to. Absent: until the process ends.",
)
@click.option("--forget", is_flag=True, help="Forget the MediaCluster of earlier runs, to join another one.")
@click.option(
    "--drain-timeout",
    default="0",
    metavar="DURATION",
    help="How long SIGTERM lets participants leave by themselves, such as 15m; a second one ends at once.",
)
@click.option(
    "--worker-bin",
    envvar="MAFALDA_WORKER_BIN",
    metavar="FILE",
    help="The mediasoup worker to run. Absent: the one that tools/build-worker built.",
)
@tenant_options
@click.option(
    "--log-level",
    default="info",
    type=click.Choice(logs.LEVELS),
    envvar="MAFALDA_LOG_LEVEL",
    help="How much to log.",
)
@click.option(
    "--log-format",
    default="json",
    type=click.Choice(["json", "text"]),
    envvar="MAFALDA_LOG_FORMAT",
    help="How to log.",
)
def main(log_level: str, log_format: Literal["json", "text"], **options: Any) -> None:
    """Run a media server: mediasoup workers, the control link, peers and participants' signalling.

    Each option may also be given as an environment variable, such as MAFALDA_MEDIASERVER_CLIENT_PORT.
    """
    logs.configure(log_level, log_format)
    try:
        config = build_config(**options)
        warnings = config.check()
    except ConfigError as error:
        raise click.BadParameter(error.message, param_hint=error.flag) from error
    for warning in warnings:
        log.warning("a setting may work badly", reason=warning)
    try:
        uvloop.run(serve(config))
    except StartError as error:
        log.error("cannot start", reason=str(error))
        sys.exit(1)


def build_config(
    *,
    listen_address: str | None,
    internal_listen: str,
    participants_listen: str,
    health_listen: str,
    client_addresses: Sequence[str],
    ip_families: Sequence[Literal["IPv4", "IPv6"]],
    announce: Sequence[str],
    announce_from: Sequence[AnnounceType],
    addresses_dir: Path | None,
    node: str,
    server_name: str,
    client_port: int,
    pipe_address: str,
    pipe_ports: str,
    workers: int | None,
    zone: str,
    cluster_key_file: Path | None,
    tls_dir: Path | None,
    state_dir: Path | None,
    forget: bool,
    drain_timeout: str,
    worker_bin: str | None,
    announce_order: Sequence[str] = (),
    **tenants: Unpack[TenantOptions],
) -> ServerConfig:
    """The settings from the options' texts; raises ConfigError."""
    first, last = parse_ports("--pipe-ports", pipe_ports)
    hosts = client_hosts(client_addresses, ip_families)
    query = address_query(
        announces(announce, announce_from, announce_order),
        hosts=hosts,
        directory=addresses_dir,
        node=node,
        server=server_name,
    )
    pool = PoolConfig(
        workers=default_workers() if workers is None else workers,
        client_host=hosts[0],
        more_client_hosts=hosts[1:],
        client_port=client_port,
        announced=query.given,
        pipe_host=pipe_address,
        pipe_port=first,
        pipe_end_port=last,
        worker_bin=os.fspath(worker_bin) if worker_bin else None,
    )
    host = None if listen_address is None else parse_ip("--listen-address", listen_address)
    return ServerConfig(
        internal=parse_listen("--internal-listen", internal_listen, host),
        participants=parse_listen("--participants-listen", participants_listen, host),
        health=parse_listen("--health-listen", health_listen, host),
        pool=pool,
        addresses=query if query.files else None,
        cluster_key_file=cluster_key_file,
        tls_dir=tls_dir,
        zone=zone,
        state_dir=state_dir,
        forget=forget,
        drain_timeout=parse_duration("--drain-timeout", drain_timeout),
        tenants=tenant_settings(tenants, pool),
    )


if __name__ == "__main__":
    main()
