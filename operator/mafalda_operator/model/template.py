"""Parts of a MediaCluster's spec that say which pods it has: template, network, update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from mafalda_operator.model.fields import Raw, Reader

NetworkType = Literal["HostNetwork", "Pod"]
AnnounceType = Literal["NodeExternalIP", "NodeInternalIP", "PodIP", "LoadBalancer", "Address"]
IPFamily = Literal["IPv4", "IPv6"]
UpdateType = Literal["RollingDrain", "OnDelete"]

_ANNOUNCE_TYPES = ("NodeExternalIP", "NodeInternalIP", "PodIP", "LoadBalancer", "Address")


@dataclass(frozen=True, slots=True)
class Ports:
    """A range, both ends included."""

    port: int
    end_port: int

    @classmethod
    def read(cls, reader: Reader, default: Ports) -> Ports:
        first, last = reader.integer("port"), reader.integer("endPort")
        return default if first is None or last is None else cls(first, last)


DEFAULT_CLIENT_PORTS = Ports(10000, 10127)
DEFAULT_PIPE_PORTS = Ports(20000, 20999)


@dataclass(frozen=True, slots=True)
class Announce:
    """One kind of address that participants are told; ``address`` with type Address only."""

    type: AnnounceType
    address: str = ""


POD_IP = (Announce("PodIP"),)
"""What is announced when `network.announce` is absent."""


@dataclass(frozen=True, slots=True)
class Network:
    """Where pods listen and what participants are told."""

    type: NetworkType = "HostNetwork"
    ip_families: tuple[IPFamily, ...] = ()
    """Empty: that of the pod's first address."""
    client_ports: Ports = DEFAULT_CLIENT_PORTS
    pipe_ports: Ports = DEFAULT_PIPE_PORTS
    announce: tuple[Announce, ...] = POD_IP

    @property
    def host(self) -> bool:
        return self.type == "HostNetwork"

    def announces(self, *types: AnnounceType) -> bool:
        return any(one.type in types for one in self.announce)

    @classmethod
    def read(cls, reader: Reader) -> Network:
        families = tuple(one for one in reader.strings("ipFamilies") if one in ("IPv4", "IPv6"))
        announce = tuple(
            Announce(
                cast(AnnounceType, item.choice("type", _ANNOUNCE_TYPES, "PodIP")), item.text("address") or ""
            )
            for item in reader.items("announce")
        )
        return cls(
            type=cast(NetworkType, reader.choice("type", ("HostNetwork", "Pod"), "HostNetwork")),
            ip_families=cast(tuple[IPFamily, ...], families),
            client_ports=Ports.read(reader.child("clientPorts"), DEFAULT_CLIENT_PORTS),
            pipe_ports=Ports.read(reader.child("pipePorts"), DEFAULT_PIPE_PORTS),
            announce=announce or POD_IP,
        )


@dataclass(frozen=True, slots=True)
class UpdatePolicy:
    """How pods are replaced when what they run changed; never both numbers 0."""

    type: UpdateType = "RollingDrain"
    max_surge: int = 0
    max_unavailable: int = 1

    @classmethod
    def read(cls, reader: Reader, network: NetworkType) -> UpdatePolicy:
        """On HostNetwork a node holds one pod, so nothing surges there whatever is written."""
        surge = reader.integer("maxSurge")
        unavailable = reader.integer("maxUnavailable")
        if network == "HostNetwork":
            surge = 0
        elif surge is None:
            surge = 1
        if unavailable is None or (unavailable == 0 and surge == 0):
            unavailable = 0 if surge else 1
        kind = reader.choice("type", ("RollingDrain", "OnDelete"), "RollingDrain")
        return cls(cast(UpdateType, kind), max(0, surge), max(0, unavailable))


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """What an administrator adds to the pods, as Kubernetes has it in a PodTemplate."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Raw, ...] = ()
    affinity: Raw = field(default_factory=dict)
    topology_spread: tuple[Raw, ...] | None = None
    """None: absent, so that the operator chooses."""
    priority_class: str | None = None
    image_pull_secrets: tuple[str, ...] = ()

    @classmethod
    def read(cls, reader: Reader) -> PodTemplate:
        metadata, spec = reader.child("metadata"), reader.child("spec")
        spread = tuple(item.raw for item in spec.items("topologySpreadConstraints"))
        return cls(
            labels=metadata.string_map("labels"),
            annotations=metadata.string_map("annotations"),
            node_selector=spec.string_map("nodeSelector"),
            tolerations=tuple(item.raw for item in spec.items("tolerations")),
            affinity=spec.child("affinity").raw,
            topology_spread=spread if "topologySpreadConstraints" in spec.raw else None,
            priority_class=spec.text("priorityClassName"),
            image_pull_secrets=tuple(item.text("name") or "" for item in spec.items("imagePullSecrets")),
        )


@dataclass(frozen=True, slots=True)
class Resources:
    """A container's requests and limits: quantities by resource name, as written."""

    requests: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: Reader) -> Resources:
        return cls(requests=reader.child("requests").raw, limits=reader.child("limits").raw)
