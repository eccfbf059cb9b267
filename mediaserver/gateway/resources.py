"""The parts of our custom resources that the gateway reads. Unknown fields are ignored."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

GROUP = "mafalda.io"
VERSION = "v1alpha1"


class ObjectKey(NamedTuple):
    """Which object of a kind; as text `namespace/name`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> ObjectKey | None:
        """From `namespace/name`; None when it is not that."""
        namespace, slash, name = text.partition("/")
        return cls(namespace, name) if slash and namespace and name and "/" not in name else None


class ResourceStruct(msgspec.Struct, frozen=True, rename="camel"):
    """Base of what is read."""


class Metadata(ResourceStruct, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None


class Resource(ResourceStruct, frozen=True):
    metadata: Metadata

    @property
    def key(self) -> ObjectKey:
        return ObjectKey(self.metadata.namespace, self.metadata.name)


class Reference(ResourceStruct, frozen=True):
    name: str = ""
    namespace: str | None = None


class Requirement(ResourceStruct, frozen=True):
    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[str] = []


class LabelSelector(ResourceStruct, frozen=True):
    match_labels: dict[str, str] = {}
    match_expressions: list[Requirement] = []


class NamespacePolicy(ResourceStruct, frozen=True):
    source: Literal["Same", "All", "Selector"] = msgspec.field(default="Same", name="from")
    selector: LabelSelector = LabelSelector()


class KeySet(ResourceStruct, frozen=True):
    name: str
    secret_ref: Reference
    namespaces: NamespacePolicy = NamespacePolicy()
    workers: bool = False
    """Whether its keys admit applications' workers, to the whole cluster whatever ``namespaces`` says."""


class Tokens(ResourceStruct, frozen=True):
    key_sets: list[KeySet] = []


class ClusterSpec(ResourceStruct, frozen=True):
    tokens: Tokens = Tokens()


class Cluster(Resource, frozen=True):
    """A MediaCluster."""

    spec: ClusterSpec = ClusterSpec()

    @property
    def key_sets(self) -> list[KeySet]:
        """As specified, or the one that stands for none."""
        default = KeySet(name="default", secret_ref=Reference(name=f"{self.metadata.name}-token-keys"))
        return self.spec.tokens.key_sets or [default]

    @property
    def issuers(self) -> frozenset[str]:
        """What `iss` may say in the tokens of its sessions."""
        return frozenset({self.metadata.uid, str(self.key), self.metadata.name})


class Endpoint(ResourceStruct, frozen=True):
    address: str = ""
    server_name: str = ""
    """The name in the server's certificate; empty: that of its MediaCluster's media servers."""


class ServerSpec(ResourceStruct, frozen=True):
    cluster_ref: Reference
    endpoint: Endpoint = Endpoint()
    zone: str = ""
    """Empty: the one that the server itself names."""


class ServerAddress(ResourceStruct, frozen=True):
    type: str = ""
    address: str = ""


class ServerDrain(ResourceStruct, frozen=True):
    reason: str = ""


class ServerStatus(ResourceStruct, frozen=True):
    addresses: list[ServerAddress] = []
    drain: ServerDrain | None = None


class Server(Resource, frozen=True):
    """A MediaServer."""

    spec: ServerSpec
    status: ServerStatus = ServerStatus()

    @property
    def address(self) -> str:
        """HOST:PORT of its internal listener; empty while nobody knows it."""
        told = (item.address for item in self.status.addresses if item.type == "Internal")
        return self.spec.endpoint.address or next(told, "")

    @property
    def draining(self) -> bool:
        """Whether it is being drained: for whatever reason, its routers move elsewhere."""
        return self.status.drain is not None

    @property
    def cluster(self) -> ObjectKey:
        return ObjectKey(self.metadata.namespace, self.spec.cluster_ref.name)


class RouterStatus(ResourceStruct, frozen=True):
    name: str
    server_name: str = ""
    worker_slot: int | None = None
    ready: bool = False


class SessionSpec(ResourceStruct, frozen=True):
    cluster_ref: Reference


class SessionStatus(ResourceStruct, frozen=True):
    routers: list[RouterStatus] = []


class Session(Resource, frozen=True):
    """A MediaSession."""

    spec: SessionSpec
    status: SessionStatus = SessionStatus()

    @property
    def cluster(self) -> ObjectKey:
        ref = self.spec.cluster_ref
        return ObjectKey(ref.namespace or self.metadata.namespace, ref.name)

    @property
    def ended(self) -> bool:
        return self.metadata.deletion_timestamp is not None


class ListMetadata(ResourceStruct, frozen=True):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")
