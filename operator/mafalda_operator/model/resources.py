"""The four kinds as frozen values, parsed from custom resources.

``parse`` takes the object as the API server gives it, never raises, and collects what is wrong with the spec
in ``problems``. Times are RFC 3339 strings, durations seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from mafalda_operator.model.conditions import Condition, stored_conditions
from mafalda_operator.model.fields import EMPTY, Problem, Raw, Reader
from mafalda_operator.model.keys import ANNOTATION_GENERATION, ANNOTATION_INDEX, DRAIN_FINALIZER, ObjectKey
from mafalda_operator.model.pods import controller_uid
from mafalda_operator.model.policies import (
    DEFAULT_DRAIN_TIMEOUT,
    DEFAULT_SILENCE_TIMEOUT,
    Codec,
    KeySet,
    LinkPolicy,
    NamespacePolicy,
    read_codecs,
    read_key_sets,
)
from mafalda_operator.model.template import Network, PodTemplate, Resources, UpdatePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """What all kinds have; ``status`` is the stored one, as it is."""

    key: ObjectKey
    uid: str
    generation: int
    deleting: bool
    created: str
    status: Raw = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    def condition(self, kind: str) -> Condition | None:
        return stored_conditions(self.status).get(kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaCluster(Resource):
    public_url: str | None = None
    media_codecs: tuple[Codec, ...] | None = None
    links: LinkPolicy = field(default_factory=LinkPolicy)
    silence_timeout: float = DEFAULT_SILENCE_TIMEOUT
    drain_timeout: float = DEFAULT_DRAIN_TIMEOUT
    """Seconds that participants of a draining server have, from its beginning; 0: none."""
    allowed: NamespacePolicy = field(default_factory=NamespacePolicy)
    key_sets: tuple[KeySet, ...] = ()
    replicas: int = 0
    """Pods that the operator runs."""
    image: str | None = None
    workers_per_server: int | None = None
    resources: Resources = field(default_factory=Resources)
    template: PodTemplate = field(default_factory=PodTemplate)
    network: Network = field(default_factory=Network)
    update: UpdatePolicy = field(default_factory=UpdatePolicy)
    given_tls_secret: str | None = None
    """Name of the Secret in spec.tls.secretRef; None: the operator makes ``tls_secret``."""
    drain_finalizer: bool = False
    """Whether the object carries ``DRAIN_FINALIZER``."""

    @property
    def tls_secret(self) -> str:
        """Name of the Secret with the pods' certificate."""
        return self.given_tls_secret or f"{self.key.name}-tls"

    @classmethod
    def parse(cls, obj: Raw) -> MediaCluster:
        problems: list[Problem] = []
        common = _common(obj, problems)
        spec = Reader(obj.get("spec"), "spec", problems)
        silence = spec.child("recovery").seconds("silenceTimeout")
        drain = spec.child("drain").seconds("timeout")
        network = Network.read(spec.child("network"))
        finalizers = Reader(obj.get("metadata"), "metadata", []).strings("finalizers")
        return cls(
            **common,
            public_url=spec.text("publicURL"),
            media_codecs=read_codecs(spec.items("mediaCodecs")) or None,
            links=LinkPolicy.read(spec.child("links")),
            silence_timeout=DEFAULT_SILENCE_TIMEOUT if silence is None else silence,
            drain_timeout=DEFAULT_DRAIN_TIMEOUT if drain is None else drain,
            allowed=NamespacePolicy.read(spec.child("allowedSessions").child("namespaces")),
            key_sets=read_key_sets(spec.child("tokens"), common["key"].name),
            replicas=max(0, spec.integer("replicas") or 0),
            image=spec.text("image"),
            workers_per_server=spec.integer("workersPerServer"),
            resources=Resources.read(spec.child("resources")),
            template=PodTemplate.read(spec.child("template")),
            network=network,
            update=UpdatePolicy.read(spec.child("update"), network.type),
            given_tls_secret=spec.child("tls").child("secretRef").text("name"),
            drain_finalizer=DRAIN_FINALIZER in finalizers,
            problems=tuple(problems),
        )


DesiredState = Literal["Active", "Cordoned", "Drained"]
"""What a user wishes of a server."""

ADDRESS_INTERNAL = "Internal"
"""Type of the status.addresses item that says where a server without an endpoint is dialled: HOST:PORT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaServer(Resource):
    cluster: ObjectKey
    """Of the server's own namespace."""
    address: str
    """HOST:PORT of the internal listener: spec.endpoint.address, else that of its pod as status.addresses has
    it; empty while that is not known."""
    zone: str = ""
    desired_state: DesiredState = "Active"
    tls_name: str = ""
    """spec.endpoint.serverName; empty: the name that media servers of its cluster have."""

    pod_uid: str = ""
    """UID of the pod that it stands for; empty: a host given by address."""

    @property
    def drain_status(self) -> DrainStatus | None:
        """The drain that status tells of."""
        return DrainStatus.parse(self.status.get("drain"))

    @classmethod
    def parse(cls, obj: Raw) -> MediaServer:
        problems: list[Problem] = []
        common = _common(obj, problems)
        spec = Reader(obj.get("spec"), "spec", problems)
        endpoint = spec.child("endpoint")
        state = spec.choice("desiredState", ("Active", "Cordoned", "Drained"), "Active")
        return cls(
            **common,
            cluster=ObjectKey(common["key"].namespace, spec.child("clusterRef").text("name") or ""),
            address=endpoint.text("address") or _internal_address(common["status"]),
            zone=spec.text("zone") or "",
            desired_state=cast(DesiredState, state),
            tls_name=endpoint.text("serverName") or "",
            pod_uid=controller_uid(Reader(obj.get("metadata"), "metadata", []), "Pod"),
            problems=tuple(problems),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSession(Resource):
    cluster: ObjectKey
    min_routers: int = 1
    media_codecs: tuple[Codec, ...] | None = None
    resolved_codecs: tuple[Codec, ...] | None = None
    """status.mediaCodecs: what was resolved at first placement."""

    @classmethod
    def parse(cls, obj: Raw) -> MediaSession:
        problems: list[Problem] = []
        common = _common(obj, problems)
        spec = Reader(obj.get("spec"), "spec", problems)
        ref = spec.child("clusterRef")
        minimum = spec.child("routers").integer("min")
        return cls(
            **common,
            cluster=ObjectKey(ref.text("namespace") or common["key"].namespace, ref.text("name") or ""),
            min_routers=1 if minimum is None else max(1, minimum),
            media_codecs=read_codecs(spec.items("mediaCodecs")) or None,
            resolved_codecs=read_codecs(Reader(common["status"], "status", []).items("mediaCodecs")) or None,
            problems=tuple(problems),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRouter(Resource):
    session: ObjectKey
    server_name: str | None = None
    """Name of a MediaServer in the namespace of the session's MediaCluster; None: not bound yet."""
    worker_slot: int | None = None
    zone: str = ""
    owner_uid: str | None = None
    """UID of the MediaSession that controls it: the operator made it. None: written by hand."""
    index: int | None = None
    replaced: int | None = None
    """How many routers held the index before (the annotation mafalda.io/generation)."""

    @property
    def owned(self) -> bool:
        return self.owner_uid is not None

    @classmethod
    def parse(cls, obj: Raw) -> MediaRouter:
        problems: list[Problem] = []
        common = _common(obj, problems)
        spec = Reader(obj.get("spec"), "spec", problems)
        metadata = Reader(obj.get("metadata"), "metadata", [])
        annotations = metadata.child("annotations")
        return cls(
            **common,
            session=ObjectKey(common["key"].namespace, spec.text("sessionName") or ""),
            server_name=spec.text("serverName"),
            worker_slot=spec.integer("workerSlot"),
            zone=spec.text("zone") or "",
            owner_uid=controller_uid(metadata, "MediaSession") or None,
            index=_whole_number(annotations.text(ANNOTATION_INDEX)),
            replaced=_whole_number(annotations.text(ANNOTATION_GENERATION)),
            problems=tuple(problems),
        )


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """status.drain of a MediaServer: what a new leader goes on with. Times are RFC 3339."""

    reason: str
    start_time: str
    deadline: str = ""

    @classmethod
    def parse(cls, stored: object) -> DrainStatus | None:
        """None when there is none, or it can't be read."""
        reader = Reader(stored if isinstance(stored, Mapping) else None, "status.drain", [])
        reason, start = reader.text("reason"), reader.text("startTime")
        if reason is None or start is None:
            return None
        return cls(reason, start, reader.text("deadline") or "")


def _internal_address(status: Raw) -> str:
    for item in Reader(status, "status", []).items("addresses"):
        if item.text("type") == ADDRESS_INTERNAL:
            return item.text("address") or ""
    return ""


def _common(obj: Raw, problems: list[Problem]) -> dict[str, Any]:
    metadata = Reader(obj.get("metadata"), "metadata", problems)
    status = obj.get("status")
    return {
        "key": ObjectKey(metadata.text("namespace") or "", metadata.text("name") or ""),
        "uid": metadata.text("uid") or "",
        "generation": metadata.integer("generation") or 0,
        "deleting": metadata.text("deletionTimestamp") is not None,
        "created": metadata.text("creationTimestamp") or "",
        "status": status if isinstance(status, Mapping) else EMPTY,
    }


def _whole_number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
