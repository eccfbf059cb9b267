"""What participants are told to send their media to: given addresses, or those of the node, pod or balancer.

Kubernetes' addresses come from a ConfigMap that the operator keeps and the pod mounts, so that a media server
needs no Kubernetes token and starts while the operator is away. Each data key is a file:

    node.NODE        [{"type": "ExternalIP", "address": "203.0.113.7"}, {"type": "InternalIP", …}]
    server.SERVER    [{"type": "LoadBalancer", "address": "198.51.100.9"}]

What is asked for and not there is waited for; nothing is taken in its place.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

import msgspec

AnnounceType = Literal["NodeExternalIP", "NodeInternalIP", "PodIP", "LoadBalancer"]
"""Whose address is announced; PodIP is what the workers listen on."""

ANNOUNCE_TYPES: Final[tuple[AnnounceType, ...]] = get_args(AnnounceType)
MOST_ADDRESSES: Final = 16
_ENTRY_TYPES: Final = {
    "NodeExternalIP": "ExternalIP",
    "NodeInternalIP": "InternalIP",
    "LoadBalancer": "LoadBalancer",
}
_READINGS: Final = 5


@dataclass(frozen=True)
class Announce:
    """One wish: an address as it is (`--announce`), or the addresses of a type (`--announce-from`)."""

    type: AnnounceType | Literal["Address"]
    address: str = ""


class Entry(msgspec.Struct, frozen=True):
    """One element of a file's list, with Kubernetes' names of types."""

    type: str
    address: str


Files = Mapping[str, "Sequence[Entry] | str"]
"""What each file holds, by its name; a text says why nothing can be read there."""


@dataclass(frozen=True, kw_only=True)
class AddressQuery:
    """What is to be announced, and what there is to find it with."""

    wanted: tuple[Announce, ...]
    """In the order in which participants are to try."""
    hosts: tuple[str, ...]
    """IP addresses that workers listen on."""
    directory: Path | None = None
    node: str = ""
    server: str = ""

    def file_of(self, announce: Announce) -> str | None:
        """The file's name that has the addresses; None: no file is needed."""
        if announce.type in ("NodeExternalIP", "NodeInternalIP"):
            return f"node.{self.node}"
        return f"server.{self.server}" if announce.type == "LoadBalancer" else None

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files that are needed."""
        names = (self.file_of(announce) for announce in self.wanted)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def given(self) -> tuple[str, ...]:
        """What to announce, if no file is needed to know it; else nothing."""
        return () if self.files else resolve(self, {}, is_local=lambda _: False).addresses


@dataclass(frozen=True)
class Announced:
    """An address that participants are told, and why."""

    type: AnnounceType | Literal["Address"]
    address: str


@dataclass(frozen=True)
class Resolution:
    """The addresses in order, each once; `missing` says line by line what is not there, with the remedy."""

    announced: tuple[Announced, ...]
    missing: tuple[str, ...]
    hosts: tuple[str, ...]
    """What workers listen on: the query's, and the announced addresses of this very host."""

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(announced.address for announced in self.announced)


def family(address: str) -> Literal[4, 6] | None:
    """4 or 6, or None for a host name."""
    try:
        return 4 if ipaddress.ip_address(address).version == 4 else 6
    except ValueError:
        return None


def is_wildcard(host: str) -> bool:
    """Whether an IP address stands for all of the host."""
    return ipaddress.ip_address(host).is_unspecified


def families(hosts: Iterable[str]) -> frozenset[int]:
    """The IP families of what comes in on `hosts`: `::` alone takes IPv4 as well."""
    listened = tuple(hosts)
    found = {family(host) or 0 for host in listened}
    if not found & {4} and any(is_wildcard(host) for host in listened):
        found.add(4)
    return frozenset(found)


def resolve(query: AddressQuery, files: Files, *, is_local: Callable[[str], bool]) -> Resolution:
    """What to announce and to listen on, as far as `files` tell. Addresses of other IP families are left out.

    `is_local` says whether an address is one of this host: a node's address on HostNetwork, which packets
    reach without NAT, so that workers have to listen on it too.
    """
    listened = families(query.hosts)
    announced: dict[str, Announced] = {}
    missing: list[str] = []
    local: list[str] = []
    for announce in query.wanted:
        found = _addresses(query, announce, files, listened)
        if isinstance(found, str):
            missing.append(found)
            continue
        for address in found:
            announced.setdefault(address, Announced(announce.type, address))
            if announce.type in ("NodeExternalIP", "NodeInternalIP") and _is_apart(address, query.hosts):
                local.append(address)
    hosts = (*query.hosts, *(address for address in dict.fromkeys(local) if is_local(address)))
    return Resolution(tuple(announced.values()), tuple(missing), hosts)


def _addresses(
    query: AddressQuery, announce: Announce, files: Files, listened: frozenset[int]
) -> Sequence[str] | str:
    """The addresses of one wish, or why there are none."""
    if announce.type == "Address":
        return (announce.address,)
    name = query.file_of(announce)
    if name is None:
        return tuple(host for host in query.hosts if not is_wildcard(host))
    content = files.get(name, "it was not read")
    path = name if query.directory is None else query.directory / name
    flag = f"--announce-from {announce.type}"
    if isinstance(content, str):
        return f"{flag}: {path}: {content}"
    kind = _ENTRY_TYPES[announce.type]
    of_type = [entry.address for entry in content if entry.type == kind]
    found = [address for address in of_type if family(address) in {None, *listened}]
    if found:
        return found
    here = ", ".join(f"{entry.type} {entry.address}" for entry in content) or "no address at all"
    if of_type:
        remedy = (
            f"workers listen on IPv{' and IPv'.join(map(str, sorted(listened)))} only; give --client-address "
            "an address of that family too (spec.network.ipFamilies of the MediaCluster)"
        )
    elif announce.type == "LoadBalancer":
        remedy = (
            f"see what keeps the Service {query.server} from getting one (kubectl describe service), or "
            "change spec.network.announce of the MediaCluster"
        )
    else:
        remedy = (
            f"give the node such an address (kubectl get node {query.node} -o wide shows what it has), or "
            "change spec.network.announce of the MediaCluster"
        )
    of = f"server {query.server}" if announce.type == "LoadBalancer" else f"node {query.node}"
    return f"{flag}: {of} has no usable {kind} in {path} ({here}); {remedy}"


def _is_apart(address: str, hosts: Iterable[str]) -> bool:
    """Whether nothing listens on that address yet."""
    version = family(address)
    return version is not None and not any(
        host == address or (is_wildcard(host) and version in families((host,))) for host in hosts
    )


def is_local(address: str) -> bool:
    """Whether that IP address is one of this host (its network namespace): a socket can be bound to it."""
    kind = socket.AF_INET if family(address) == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def by_host(hosts: Sequence[str], announced: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Each address that is listened on, with the first announced one that leads there, if any does.

    An announced address leads to itself where it is listened on, else to the first host of its IP family; a
    host name leads to the first of all.
    """
    for host in hosts:
        yield host, next((address for address in announced if _leads_to(address, hosts) == host), None)


def _leads_to(address: str, hosts: Sequence[str]) -> str:
    if address in hosts:
        return address
    version = family(address)
    same = [host for host in hosts if version is None or version == family(host)]
    return (same or [*hosts])[0]


# -- the files ----------------------------------------------------------------------------------------------


def read_files(directory: Path, names: Iterable[str]) -> dict[str, Sequence[Entry] | str]:
    """Reads the files of a mounted ConfigMap, all of one version.

    Kubernetes writes a new directory and then turns the link `..data` to it, so each file is looked for in
    the directory that the link led to, and all are read again when it led elsewhere afterwards.
    """
    wanted = tuple(names)
    found: dict[str, Sequence[Entry] | str] = {}
    for _ in range(_READINGS):
        version = _version(directory)
        found = {name: _read(version / name) for name in wanted}
        if _version(directory) == version:
            break
    return found


def _version(directory: Path) -> Path:
    link = directory / "..data"
    return link.resolve() if link.is_symlink() else directory


def _read(path: Path) -> Sequence[Entry] | str:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Entry])
    except FileNotFoundError:
        return (
            "there is no such file yet; the operator writes it into the ConfigMap that is mounted there, and "
            "Kubernetes brings it here within two minutes (is the operator running?)"
        )
    except OSError as error:
        return f"cannot be read: {error.strerror or error}"
    except msgspec.MsgspecError as error:
        return (
            f'is not a list such as [{{"type": "ExternalIP", "address": "203.0.113.7"}}]: {error}; '
            "delete the ConfigMap, and the operator makes it anew"
        )
