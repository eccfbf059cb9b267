"""A media server's settings, checked before anything starts: addresses, ports, workers, files."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mediaserver.pool import PoolConfig
from mediaserver.wire.errors import ListenError
from mediaserver.wire.listen import ListenAddress

EPHEMERAL_PORTS = range(32768, 61000)
"""Linux's default range for outgoing connections, which may take any port of it at any time."""
MAX_WORKERS = 256

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|m|h|)")
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


class ConfigError(Exception):
    """A setting that can't be used: `flag` names it, the message says why and what to do."""

    def __init__(self, flag: str, message: str) -> None:
        super().__init__(f"{flag}: {message}")
        self.flag = flag
        self.message = message


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Everything a media server is started with."""

    internal: ListenAddress
    participants: ListenAddress
    health: ListenAddress
    pool: PoolConfig
    cluster_key_file: Path
    zone: str = ""
    state_dir: Path | None = None
    forget: bool = False
    drain_timeout: float = 0.0
    """Seconds that a stopping server waits for its participants to leave."""

    def check(self) -> list[str]:
        """Raises ConfigError for what can't work; returns warnings about what may work badly."""
        _check_pool(self.pool)
        _check_overlaps(self)
        return _ephemeral_warnings(self.pool)


def default_workers() -> int:
    """One worker for each core that this process may run on."""
    return len(os.sched_getaffinity(0))


def parse_listen(flag: str, text: str) -> ListenAddress:
    """`HOST:PORT`; raises ConfigError."""
    try:
        return ListenAddress.parse(text)
    except ListenError as error:
        raise ConfigError(flag, str(error)) from error


def parse_ports(flag: str, text: str) -> tuple[int, int]:
    """`FIRST-LAST`, both included; raises ConfigError."""
    first, dash, last = text.partition("-")
    if not (dash and first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
        raise ConfigError(flag, f"{text!r} is not FIRST-LAST, such as 20000-20099")
    low, high = int(first), int(last)
    if not 1 <= low <= high <= 65535:
        raise ConfigError(flag, f"{text!r}: ports go from 1 to 65535, the first not above the last")
    return low, high


def parse_duration(flag: str, text: str) -> float:
    """Seconds from `90`, `90s`, `15m`, `1h` or `500ms`; raises ConfigError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(flag, f"{text!r} is no duration; write 0, 30s, 15m or 1h")
    return float(match["number"]) * _SECONDS[match["unit"]]


def _check_pool(pool: PoolConfig) -> None:
    if not 1 <= pool.workers <= MAX_WORKERS:
        raise ConfigError("--workers", f"{pool.workers} is not from 1 to {MAX_WORKERS}")
    _check_ip("--client-address", pool.client_host)
    _check_ip("--pipe-address", pool.pipe_host)
    if _is_wildcard(pool.client_host) and not pool.announced_address:
        raise ConfigError(
            "--client-address",
            f"{pool.client_host} is no address that participants can send to; "
            "add --announce ADDRESS, or name the address to listen on",
        )
    if _is_wildcard(pool.pipe_host):
        raise ConfigError(
            "--pipe-address",
            f"{pool.pipe_host} is no address that other media servers can send to; name the internal one",
        )
    last = pool.client_port + pool.workers - 1
    if pool.client_port < 1 or last > 65535:
        raise ConfigError(
            "--client-port", f"{pool.workers} workers need ports {pool.client_port} to {last}, at most 65535"
        )


def _check_ip(flag: str, host: str) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise ConfigError(flag, f"{host!r} is not an IP address, which mediasoup listens on") from error


def _is_wildcard(host: str) -> bool:
    return ipaddress.ip_address(host).is_unspecified


def _check_overlaps(config: ServerConfig) -> None:
    pool = config.pool
    client = range(pool.client_port, pool.client_port + pool.workers)
    pipe = range(pool.pipe_port, pool.pipe_end_port + 1)
    if client.start < pipe.stop and pipe.start < client.stop:
        raise ConfigError(
            "--pipe-ports",
            f"{pipe.start}-{pipe.stop - 1} overlaps with the workers' client ports "
            f"{client.start}-{client.stop - 1} (--client-port and --workers); move one of them",
        )
    seen: dict[ListenAddress, str] = {}
    for flag, address in listen_flags(config).items():
        if address.port == 0 and flag != "--health-listen":
            raise ConfigError(flag, "port 0: name a port, since others are told to dial it")
        if address.port in client:
            raise ConfigError(
                flag,
                f"port {address.port} is among the workers' client ports {client.start}-{client.stop - 1} "
                "(--client-port and --workers); move one of them",
            )
        if address.port and address in seen:
            raise ConfigError(flag, f"{address} is taken by {seen[address]}; each needs a port of its own")
        seen[address] = flag


def listen_flags(config: ServerConfig) -> dict[str, ListenAddress]:
    """The three listeners by flag."""
    return {
        "--internal-listen": config.internal,
        "--participants-listen": config.participants,
        "--health-listen": config.health,
    }


def _ephemeral_warnings(pool: PoolConfig) -> list[str]:
    ranges = {
        "--client-port": range(pool.client_port, pool.client_port + pool.workers),
        "--pipe-ports": range(pool.pipe_port, pool.pipe_end_port + 1),
    }
    return [
        f"{flag}: ports {ports.start}-{ports.stop - 1} reach into Linux's ephemeral range "
        f"{EPHEMERAL_PORTS.start}-{EPHEMERAL_PORTS.stop - 1}, where outgoing connections may take them; "
        f"choose ports below {EPHEMERAL_PORTS.start}"
        for flag, ports in ranges.items()
        if ports.start < EPHEMERAL_PORTS.stop and EPHEMERAL_PORTS.start < ports.stop
    ]
