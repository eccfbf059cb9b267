"""Which ports the demo's processes use: the example's own, or free ones where one of those is taken."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import yaml

from mafalda_operator.cli.demo.errors import DemoError
from mafalda_operator.cli.local import ports

Document = dict[str, Any]
"""A Kubernetes object."""

HOST = "127.0.0.1"
WORKERS = 2
PIPE_PORTS = 60
"""UDP ports for pipes of one server: more than three routers and their repairs need."""


@dataclass(frozen=True)
class ServerLayout:
    """One media server's address, ports and whatever else it is started with."""

    name: str
    internal: int
    participants: int
    health: int
    client: int
    """First of WORKERS ports, UDP and TCP."""
    pipe: int
    """First of the UDP ports for pipes."""
    pipes: int = PIPE_PORTS
    """How many ports for pipes it has."""
    host: str = HOST
    """Of its listeners, clients and pipes."""
    tenants: tuple[int, int] | None = None
    """First and last port of applications' workers, which need not all be free; None: it runs none."""
    flags: tuple[str, ...] = ()
    """Further ones of its command."""
    network: str | None = None
    """File of the network namespace that it runs in; None: ours."""

    @property
    def endpoint(self) -> str:
        return f"{self.host}:{self.internal}"

    def tcp(self) -> Iterator[int]:
        yield from (self.internal, self.participants, self.health, *self.clients())

    def udp(self) -> Iterator[int]:
        yield from (*self.clients(), *range(self.pipe, self.pipe + self.pipes))

    def clients(self) -> range:
        return range(self.client, self.client + WORKERS)


@dataclass(frozen=True)
class Layout:
    """The ports of a whole demo."""

    gateway: int
    gateway_health: int
    operator_health: int
    servers: tuple[ServerLayout, ...]

    def is_free(self) -> bool:
        """Whether every port could be bound just now; in another network namespace they count as free."""
        here = [server for server in self.servers if server.network is None]
        tcp = [self.gateway, self.gateway_health, self.operator_health]
        tcp += [port for server in here for port in server.tcp()]
        udp = [port for server in here for port in server.udp()]
        return all(ports.is_free(port, host=HOST) for port in tcp) and all(
            ports.is_free(port, host=HOST, protocols=("udp",)) for port in udp
        )


def parse_documents(text: str) -> list[Document]:
    """The objects of a manifest."""
    return [document for document in yaml.safe_load_all(text) if document]


def default_layout(documents: list[Document]) -> Layout:
    """The layout the example names: the gateway's port from publicURL, the servers' from their endpoints.

    The ports that no custom resource names lie beside: participants and health follow the internal port,
    media, pipes and applications' workers have a hundred ports a server.
    """
    servers = []
    for index, document in enumerate(d for d in documents if d["kind"] == "MediaServer"):
        internal = int(document["spec"]["endpoint"]["address"].rpartition(":")[2])
        servers.append(
            ServerLayout(
                name=document["metadata"]["name"],
                internal=internal,
                participants=internal + 1,
                health=internal + 2,
                client=10000 + 100 * index,
                pipe=20000 + 100 * index,
                tenants=(14000 + 100 * index, 14099 + 100 * index),
            )
        )
    cluster = next(document for document in documents if document["kind"] == "MediaCluster")
    gateway = urlsplit(cluster["spec"]["publicURL"]).port
    if gateway is None:
        raise DemoError("MediaCluster spec.publicURL names no port; the demo's gateway needs one")
    return Layout(gateway, gateway + 1, gateway + 2, tuple(servers))


def free_layout(default: Layout) -> Layout:
    """The same servers on ports that are free now, and outside what applications' workers may use."""
    tenants = {
        port
        for server in default.servers
        if server.tenants
        for port in range(server.tenants[0], server.tenants[1] + 1)
    }
    picker = ports.PortPicker(host=HOST, avoid=tenants)
    servers = tuple(
        replace(
            server,
            internal=picker.port(),
            participants=picker.port(),
            health=picker.port(),
            client=picker.range(WORKERS).start,
            pipe=picker.range(server.pipes, protocols=("udp",)).start,
        )
        for server in default.servers
    )
    return Layout(picker.port(), picker.port(), picker.port(), servers)


def rewrite(documents: list[Document], layout: Layout) -> str:
    """The manifest with the layout's ports put in."""
    endpoints: Mapping[str, str] = {server.name: server.endpoint for server in layout.servers}
    for document in documents:
        if document["kind"] == "MediaServer":
            document["spec"]["endpoint"]["address"] = endpoints[document["metadata"]["name"]]
        elif document["kind"] == "MediaCluster":
            document["spec"]["publicURL"] = f"ws://{HOST}:{layout.gateway}"
    return yaml.safe_dump_all(documents, sort_keys=False)
