"""The command `mafalda-gateway`: one front door for participants, until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 a fault, 2 settings that can't be used. Logs go to stderr.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Literal

import click
import structlog
import uvloop

from mediaserver.gateway.errors import GatewayError
from mediaserver.gateway.frontdoor import Limits
from mediaserver.gateway.server import GatewayConfig, serve
from mediaserver.wire import logs
from mediaserver.wire.errors import ListenError, MembershipError
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.stop_signals import take_stop_signals
from mediaserver.wire.tls import load_credential

FILE = click.Path(dir_okay=False, path_type=Path)

log = structlog.get_logger()


@click.command(
    context_settings={
        "auto_envvar_prefix": "MAFALDA_GATEWAY",
        "show_default": True,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    }
)
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    metavar="HOST:PORT",
    help="Where participants come in, at / and /ws, and applications' workers, at /worker; publicURL of the "
    "MediaCluster leads here.",
)
@click.option(
    "--health-listen",
    default="127.0.0.1:8082",
    metavar="HOST:PORT",
    help="Where /healthz, /readyz and /metrics answer.",
)
@click.option(
    "--kubeconfig",
    type=FILE,
    help="How to reach the Kubernetes API. If absent: as a pod, else as kubectl does.",
)
@click.option(
    "--cluster-key-file",
    type=FILE,
    envvar="MAFALDA_CLUSTER_KEY_FILE",
    help="The key that operator, media servers and gateways of a MediaCluster share. Or --tls-dir.",
)
@click.option(
    "--tls-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="MAFALDA_TLS_DIR",
    help="Dial media servers by TLS with the tls.crt, tls.key and ca.crt in it, read again when they change.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="How long SIGTERM lets participants attach by way of another gateway before they are cut off.",
)
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    default="info",
    envvar="MAFALDA_LOG_LEVEL",
    help="Least severe level logged.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    envvar="MAFALDA_LOG_FORMAT",
    help="One event a line.",
)
def main(
    listen: str,
    health_listen: str,
    kubeconfig: Path | None,
    cluster_key_file: Path | None,
    tls_dir: Path | None,
    drain_timeout: float,
    log_level: str,
    log_format: Literal["json", "text"],
) -> None:
    """Admit participants and carry their signalling to the router that suits them best."""
    logs.configure(log_level, log_format)
    try:
        config = GatewayConfig(
            listen=ListenAddress.parse(listen),
            health=ListenAddress.parse(health_listen),
            credential=load_credential(cluster_key_file, tls_dir, "gateway"),
            kubeconfig=kubeconfig,
            limits=Limits(reattach=drain_timeout),
        )
    except (ListenError, MembershipError) as error:
        raise click.UsageError(str(error)) from error
    try:
        uvloop.run(serve(config, _stop_on_signals))
    except (GatewayError, ListenError) as error:
        log.error("gateway cannot run", reason=str(error))
        sys.exit(1)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    take_stop_signals(lambda _: stop.set())
    return stop


if __name__ == "__main__":
    main()
