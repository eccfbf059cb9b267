"""The command `mafalda-mediaserver`: one media server process, until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 a fault, 2 settings that can't be used. Logs go to stderr.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Literal, Unpack

import click
import structlog
import uvloop

from mediaserver.config import (
    ConfigError,
    ServerConfig,
    default_workers,
    parse_duration,
    parse_listen,
    parse_ports,
)
from mediaserver.pool import PoolConfig
from mediaserver.server import StartError, serve
from mediaserver.tenant_options import TenantOptions, tenant_options, tenant_settings
from mediaserver.wire import logs

log = structlog.get_logger(__name__)

FILE = click.Path(dir_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)


@click.command(
    context_settings={
        "auto_envvar_prefix": "MAFALDA_MEDIASERVER",
        "show_default": True,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    }
)
@click.option(
    "--internal-listen",
    default="127.0.0.1:4000",
    metavar="HOST:PORT",
    help="Where the operator, gateways and other media servers come in; not for the world.",
)
@click.option(
    "--participants-listen",
    default="127.0.0.1:4001",
    metavar="HOST:PORT",
    help="Where participants' signalling comes in, by way of the gateway.",
)
@click.option(
    "--health-listen",
    default="127.0.0.1:4002",
    metavar="HOST:PORT",
    help="Where /healthz, /readyz and /metrics answer.",
)
@click.option(
    "--client-address",
    default="127.0.0.1",
    metavar="IP",
    help="Where workers listen for participants' media.",
)
@click.option(
    "--announce",
    metavar="ADDRESS",
    help="What participants are told instead of --client-address, such as the address outside a NAT.",
)
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
    show_default="one a core",
    help="How many mediasoup workers to run.",
)
@click.option(
    "--zone", default="", help="The failure zone that this server is in, as the operator spreads over."
)
@click.option(
    "--cluster-key-file",
    required=True,
    type=FILE,
    envvar="MAFALDA_CLUSTER_KEY_FILE",
    help="The secret shared by the members of the MediaCluster: 32 bytes or more, raw or base64.",
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
    internal_listen: str,
    participants_listen: str,
    health_listen: str,
    client_address: str,
    announce: str | None,
    client_port: int,
    pipe_address: str,
    pipe_ports: str,
    workers: int | None,
    zone: str,
    cluster_key_file: Path,
    state_dir: Path | None,
    forget: bool,
    drain_timeout: str,
    worker_bin: str | None,
    **tenants: Unpack[TenantOptions],
) -> ServerConfig:
    """The settings from the options' texts; raises ConfigError."""
    first, last = parse_ports("--pipe-ports", pipe_ports)
    pool = PoolConfig(
        workers=default_workers() if workers is None else workers,
        client_host=client_address,
        client_port=client_port,
        announced_address=announce or None,
        pipe_host=pipe_address,
        pipe_port=first,
        pipe_end_port=last,
        worker_bin=os.fspath(worker_bin) if worker_bin else None,
    )
    return ServerConfig(
        internal=parse_listen("--internal-listen", internal_listen),
        participants=parse_listen("--participants-listen", participants_listen),
        health=parse_listen("--health-listen", health_listen),
        pool=pool,
        cluster_key_file=cluster_key_file,
        zone=zone,
        state_dir=state_dir,
        forget=forget,
        drain_timeout=parse_duration("--drain-timeout", drain_timeout),
        tenants=tenant_settings(tenants, pool),
    )


if __name__ == "__main__":
    main()
