"""The flags of `mafalda-mediaserver` for workers that run for applications, and what they make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, TypeVar

import click

from mediaserver.config import (
    ConfigError,
    default_workers,
    parse_duration,
    parse_ports,
    parse_size,
    parse_workers,
)
from mediaserver.mediasoup import WORKER_VERSION, WorkerStartError, find_worker_bin
from mediaserver.pool import PoolConfig
from mediaserver.remote.policy import TenantPolicy
from mediaserver.remote.settings import TenantSettings

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

WORKERS_PER_CORE = 8
"""How many workers tenants may have for each core that they may use, unless --tenant-workers says it."""

_OPTIONS = (
    click.option(
        "--tenant-ports",
        metavar="FIRST-LAST",
        show_default="no applications' workers",
        help="UDP and TCP ports of applications' workers (docs/remote.md), on --client-address.",
    ),
    click.option(
        "--tenant-cores",
        type=click.FloatRange(min=0, min_open=True),
        metavar="CORES",
        show_default="half of them",
        help="While applications' workers use so many cores, no further one is taken.",
    ),
    click.option(
        "--tenant-workers",
        type=click.IntRange(1, 4096),
        metavar="N",
        show_default=f"{WORKERS_PER_CORE} for each of --tenant-cores",
        help="How many workers applications may have here.",
    ),
    click.option(
        "--tenant-addresses",
        type=click.Choice(["Rewrite", "RewritePipes", "Keep"]),
        default="Rewrite",
        help="Whether the addresses and ports that an application asks for are replaced by this server's: "
        "all, those of pipes only, or none (for applications on this host).",
    ),
    click.option(
        "--tenant-pipe-srtp",
        type=click.Choice(["Auto", "Never"]),
        default="Never",
        help="Auto: SRTP for each pipe that an application opens on 127.0.0.1, as pipeToRouter() does.",
    ),
    click.option(
        "--tenant-resume-timeout",
        default="30s",
        metavar="DURATION",
        help="How long an application's worker waits for a lost connection to come back.",
    ),
    click.option(
        "--tenant-buffer",
        default="16MiB",
        metavar="SIZE",
        help="How much may wait for a lost connection; with more the worker ends.",
    ),
    click.option(
        "--worker",
        "tenant_worker_bins",
        multiple=True,
        metavar="VERSION=PATH",
        help="A worker of another mediasoup version for applications; may be repeated.",
    ),
)


class TenantOptions(TypedDict):
    """What the flags say, as click gives it."""

    tenant_ports: str | None
    tenant_cores: float | None
    tenant_workers: int | None
    tenant_addresses: Literal["Rewrite", "RewritePipes", "Keep"]
    tenant_pipe_srtp: Literal["Auto", "Never"]
    tenant_resume_timeout: str
    tenant_buffer: str
    tenant_worker_bins: Sequence[str]


def tenant_options(command: CommandT) -> CommandT:
    """Adds the flags to a click command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def tenant_settings(options: TenantOptions, pool: PoolConfig) -> TenantSettings | None:
    """The settings, or None without --tenant-ports. Raises ConfigError."""
    if options["tenant_ports"] is None:
        if options["tenant_worker_bins"]:
            raise ConfigError("--worker", "is for applications' workers, which need --tenant-ports")
        return None
    cores = default_workers()
    most_cores = cores / 2 if options["tenant_cores"] is None else options["tenant_cores"]
    most_workers = options["tenant_workers"]
    policy = TenantPolicy(
        addresses=options["tenant_addresses"],
        client_host=pool.client_host,
        announced_address=pool.announced_address,
        client_ports=parse_ports("--tenant-ports", options["tenant_ports"]),
        pipe_host=pool.pipe_host,
        pipe_ports=(pool.pipe_port, pool.pipe_end_port),
        pipe_srtp=options["tenant_pipe_srtp"],
    )
    try:
        binaries = {WORKER_VERSION: find_worker_bin(pool.worker_bin)}
    except WorkerStartError as error:
        raise ConfigError("--worker-bin", str(error)) from error
    return TenantSettings(
        policy=policy,
        binaries=binaries | parse_workers("--worker", options["tenant_worker_bins"]),
        cores=cores,
        most_cores=most_cores,
        most_workers=max(1, int(WORKERS_PER_CORE * most_cores)) if most_workers is None else most_workers,
        resume_timeout=parse_duration("--tenant-resume-timeout", options["tenant_resume_timeout"]),
        buffer=parse_size("--tenant-buffer", options["tenant_buffer"]),
    )
