"""A media server's settings, checked before anything starts: addresses, ports, workers, files."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mediaserver.addresses import MOST_ADDRESSES, AddressQuery, families, family, is_wildcard
from mediaserver.cores import QuotaError, usable_cores
from mediaserver.pool import PoolConfig
from mediaserver.remote.settings import TenantSettings
from mediaserver.wire.errors import ListenError
from mediaserver.wire.listen import ListenAddress
from mediaserver.wire.worker_versions import SERVES

EPHEMERAL_PORTS = range(32768, 61000)
"""Linux's default range for outgoing connections, which may take any port of it at any time."""
MAX_WORKERS = 256

_DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|m|h|)")
_SIZE = re.compile(r"(?P<number>\d+)(?P<unit>KiB|MiB|GiB|)")
_BYTES = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
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
    cluster_key_file: Path | None = None
    tls_dir: Path | None = None
    """Of the two exactly one (wire.tls.load_credential)."""
    zone: str = ""
    state_dir: Path | None = None
    forget: bool = False
    drain_timeout: float = 0.0
    """Seconds that a stopping server waits for its participants to leave."""
    addresses: AddressQuery | None = None
    """What is still to be found out before the server can start; None: `pool.announced` is complete."""
    tenants: TenantSettings | None = None
    """None: no workers for applications."""

    def check(self) -> list[str]:
        """Raises ConfigError for what can't work; returns warnings about what may work badly."""
        if (self.cluster_key_file is None) == (self.tls_dir is None):
            raise ConfigError(
                "--cluster-key-file",
                "give either this (a shared secret) or --tls-dir DIR (tls.crt, tls.key and ca.crt)",
            )
        _check_addresses(self)
        _check_pool(self.pool)
        _check_overlaps(self)
        return _ephemeral_warnings(port_flags(self))


def default_workers() -> int:
    """One worker for each core that this process may run on and whose time it gets. Raises ConfigError."""
    try:
        return usable_cores()
    except QuotaError as error:
        raise ConfigError("--workers", f"{error}; say how many workers to run") from error


def parse_listen(flag: str, text: str, host: str | None = None) -> ListenAddress:
    """`HOST:PORT`, or `:PORT` on the address `host`; raises ConfigError."""
    if text.startswith(":"):
        if host is None:
            raise ConfigError(flag, f"{text!r} has no host; write HOST:PORT, or add --listen-address IP")
        text = f"[{host}]{text}" if ":" in host else host + text
    try:
        return ListenAddress.parse(text)
    except ListenError as error:
        raise ConfigError(flag, str(error)) from error


def parse_ip(flag: str, text: str) -> str:
    """An IP address as it is usually written, IPv6 in brackets or not; raises ConfigError."""
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError as error:
        raise ConfigError(flag, f"{text!r} is not an IP address") from error


def split_commas(texts: Iterable[str]) -> list[str]:
    """The parts of a flag that may be repeated or list several with commas, as Kubernetes' status.podIPs."""
    return [part for text in texts for part in text.split(",") if part]


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


def parse_size(flag: str, text: str) -> int:
    """Bytes from `65536`, `512KiB` or `16MiB`; raises ConfigError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(flag, f"{text!r} is no size; write 16MiB or 512KiB")
    return int(match["number"]) * _BYTES[match["unit"]]


def parse_workers(flag: str, texts: Iterable[str]) -> dict[str, Path]:
    """Worker binaries by version from `VERSION=PATH`; raises ConfigError."""
    found: dict[str, Path] = {}
    for text in texts:
        version, equals, path = text.partition("=")
        if not equals or not version or not path:
            raise ConfigError(flag, f"{text!r} is not VERSION=PATH, such as 3.27.1=/opt/mediasoup-worker")
        if version not in SERVES:
            known = ", ".join(sorted(SERVES))
            raise ConfigError(flag, f"{text!r}: the channel of {version} is not known here; known: {known}")
        if version in found:
            raise ConfigError(flag, f"{version} is given twice")
        if not (Path(path).is_file() and os.access(path, os.X_OK)):
            raise ConfigError(flag, f"{path} is no program that can be executed")
        found[version] = Path(path)
    return found


def _check_pool(pool: PoolConfig) -> None:
    if not 1 <= pool.workers <= MAX_WORKERS:
        raise ConfigError("--workers", f"{pool.workers} is not from 1 to {MAX_WORKERS}")
    _check_ip("--pipe-address", pool.pipe_host)
    if is_wildcard(pool.pipe_host):
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


def _check_addresses(config: ServerConfig) -> None:
    hosts = config.pool.client_hosts
    for host in hosts:
        _check_ip("--client-address", host)
        if is_wildcard(host):
            _check_wildcard(host, config)
    if len(set(hosts)) < len(hosts):
        raise ConfigError("--client-address", f"one address is given twice in {', '.join(hosts)}")
    wanted = config.pool.announced
    if config.addresses is not None:
        wanted = tuple(announce.address for announce in config.addresses.wanted if announce.address)
    if len(wanted) > MOST_ADDRESSES:
        raise ConfigError(
            "--announce", f"{len(wanted)} addresses, of which at most {MOST_ADDRESSES} can be told"
        )
    for address in wanted:
        if (version := family(address)) not in {None, *families(hosts)}:
            raise ConfigError(
                "--announce",
                f"{address} leads to no worker: they listen on {', '.join(hosts)}; "
                f"add a --client-address of IPv{version}",
            )


def _check_wildcard(host: str, config: ServerConfig) -> None:
    if not (config.pool.announced or config.addresses):
        raise ConfigError(
            "--client-address",
            f"{host} is no address that participants can send to; "
            "add --announce ADDRESS, or name the address to listen on",
        )
    for other in config.pool.client_hosts:
        if other != host and family(other) == family(host):
            raise ConfigError("--client-address", f"{host} includes {other}; give one of them")


def port_flags(config: ServerConfig) -> dict[str, range]:
    """The ranges of media ports by flag."""
    pool = config.pool
    ranges = {
        "--client-port": range(pool.client_port, pool.client_port + pool.workers),
        "--pipe-ports": range(pool.pipe_port, pool.pipe_end_port + 1),
    }
    if config.tenants is not None:
        first, last = config.tenants.policy.client_ports
        ranges["--tenant-ports"] = range(first, last + 1)
    return ranges


def _check_overlaps(config: ServerConfig) -> None:
    ranges = port_flags(config)
    for (flag, ports), (other, taken) in itertools.combinations(ranges.items(), 2):
        if ports.start < taken.stop and taken.start < ports.stop:
            raise ConfigError(
                other,
                f"{taken.start}-{taken.stop - 1} overlaps with {ports.start}-{ports.stop - 1} of {flag}"
                f"{' (and --workers)' if flag == '--client-port' else ''}; move one of them",
            )
    seen: dict[ListenAddress, str] = {}
    for flag, address in listen_flags(config).items():
        if address.port == 0 and flag != "--health-listen":
            raise ConfigError(flag, "port 0: name a port, since others are told to dial it")
        for other, ports in ranges.items():
            if address.port in ports and other != "--pipe-ports":
                raise ConfigError(
                    flag,
                    f"port {address.port} is among {ports.start}-{ports.stop - 1} of {other}, which is for "
                    "media; move one of them",
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


def _ephemeral_warnings(ranges: Mapping[str, range]) -> list[str]:
    return [
        f"{flag}: ports {ports.start}-{ports.stop - 1} reach into Linux's ephemeral range "
        f"{EPHEMERAL_PORTS.start}-{EPHEMERAL_PORTS.stop - 1}, where outgoing connections may take them; "
        f"choose ports below {EPHEMERAL_PORTS.start}"
        for flag, ports in ranges.items()
        if ports.start < EPHEMERAL_PORTS.stop and EPHEMERAL_PORTS.start < ports.stop
    ]
