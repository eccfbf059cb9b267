"""The command `mafalda-operator`: one operator process, until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 a fault, 2 settings that cannot be used. Logs go to stderr.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Literal

import click
import structlog
import uvloop

from mafalda_operator.app import LeadershipLostError, LeaseUnusableError, Operator, Settings, StartError
from mediaserver.wire import logs
from mediaserver.wire.errors import ListenError, MembershipError
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.membership import Credential
from mediaserver.wire.tls import Certificates, load_credential

log = structlog.get_logger(__name__)

_FILE = click.Path(dir_okay=False, path_type=Path)


class _Listen(click.ParamType[ListenAddress]):
    name = "HOST:PORT"

    def convert(
        self, value: str | ListenAddress, param: click.Parameter | None, ctx: click.Context | None
    ) -> ListenAddress:
        if isinstance(value, ListenAddress):
            return value
        try:
            return ListenAddress.parse(value)
        except ListenError as error:
            self.fail(str(error), param, ctx)


@click.command(
    context_settings={
        "auto_envvar_prefix": "MAFALDA_OPERATOR",
        "show_default": True,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    }
)
@click.option(
    "--kubeconfig",
    type=_FILE,
    help="How to reach the API server. Absent: $KUBECONFIG, the pod's service account, ~/.kube/config.",
)
@click.option(
    "--cluster-key-file",
    type=_FILE,
    envvar="MAFALDA_CLUSTER_KEY_FILE",
    help="The secret shared with media servers and gateways: 32 bytes or more, raw or base64. Or one of the "
    "next two.",
)
@click.option(
    "--tls-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="MAFALDA_TLS_DIR",
    help="TLS both ways with the tls.crt, tls.key and ca.crt in it, read again when they change.",
)
@click.option(
    "--tls-issue",
    is_flag=True,
    help="TLS both ways with a CA of the operator's own, which makes and renews every certificate.",
)
@click.option(
    "--tls-ca-secret",
    default="mafalda-ca",
    metavar="NAME",
    help="The Secret of that CA, in --lease-namespace; made if there is none.",
)
@click.option(
    "--tls-gateway-secret",
    default="mafalda-gateway-tls",
    metavar="NAME",
    help="The Secret of the gateways' certificate, in --lease-namespace.",
)
@click.option(
    "--metrics-listen",
    type=_Listen(),
    default="127.0.0.1:8081",
    help="Where /healthz, /readyz and /metrics answer.",
)
@click.option("--lease-namespace", default="mafalda-system", help="Namespace of the leadership Lease.")
@click.option("--lease-name", default="mafalda-operator", help="Name of the leadership Lease.")
@click.option(
    "--identity",
    show_default="host name, process id and a random word",
    help="This process in the Lease. One that restarts with the same identity leads again at once.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    show_default="all",
    help="Serve this namespace only; may be repeated.",
)
@click.option(
    "--default-image",
    default="",
    metavar="IMAGE",
    show_default="none",
    envvar="MAFALDA_DEFAULT_IMAGE",
    help="The container image of media server pods whose MediaCluster has no spec.image.",
)
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS),
    default="info",
    envvar="MAFALDA_LOG_LEVEL",
    help="How much to log.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    envvar="MAFALDA_LOG_FORMAT",
    help="How to log.",
)
def main(
    kubeconfig: Path | None,
    cluster_key_file: Path | None,
    tls_dir: Path | None,
    tls_issue: bool,
    tls_ca_secret: str,
    tls_gateway_secret: str,
    metrics_listen: ListenAddress,
    lease_namespace: str,
    lease_name: str,
    identity: str | None,
    namespaces: tuple[str, ...],
    default_image: str,
    log_level: str,
    log_format: Literal["json", "text"],
) -> None:
    """Run the operator: place sessions on media servers, and tell the servers what to open and link.

    Each option may also be given as an environment variable, such as MAFALDA_OPERATOR_LEASE_NAME.
    """
    logs.configure(log_level, log_format)
    try:
        credential = _credential(cluster_key_file, tls_dir, issue=tls_issue)
    except MembershipError as error:
        hint = "--cluster-key-file" if tls_dir is None else "--tls-dir"
        raise click.BadParameter(str(error), param_hint=hint) from error
    settings = Settings(
        kubeconfig=kubeconfig,
        metrics_listen=metrics_listen,
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        identity=identity or f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(3)}",
        namespaces=namespaces,
        default_image=default_image,
        tls_ca_secret=tls_ca_secret if tls_issue else None,
        tls_gateway_secret=tls_gateway_secret,
    )
    sys.exit(run(settings, credential))


def _credential(key_file: Path | None, tls_dir: Path | None, *, issue: bool) -> Credential:
    """Raises MembershipError."""
    if not issue:
        if key_file is None and tls_dir is None:
            raise MembershipError("give one of --tls-issue, --tls-dir DIR and --cluster-key-file FILE")
        return load_credential(key_file, tls_dir, "operator")
    if key_file is not None or tls_dir is not None:
        raise MembershipError("--tls-issue excludes --tls-dir and --cluster-key-file: give one of the three")
    return Certificates(lacking="the operator has no certificate yet: it has not read or made its CA")


def run(settings: Settings, credential: Credential) -> int:
    """The process's exit code."""

    async def serve() -> None:
        await Operator(settings, credential).run()

    try:
        uvloop.run(serve())
    except (StartError, ListenError, LeadershipLostError, LeaseUnusableError) as error:
        log.error(str(error))
        return 1
    except TimeoutError:
        log.error("could not end in order in time")
        return 1
    return 0


if __name__ == "__main__":
    main()
