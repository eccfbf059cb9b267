"""What the verbs carry, after mediasoup's demo application (its version 3).

Field names are camelCase on the wire and unknown fields are ignored. Values that mediasoup defines (RTP,
ICE and DTLS parameters) are mediasoup's structs.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mediaserver.mediasoup import (
    ConsumerLayers,
    DtlsParameters,
    IceCandidate,
    IceParameters,
    MediaKind,
    RtpCapabilities,
    RtpParameters,
)


class Params(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Base of what a participant sends with a request."""


class Data(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Base of what it is sent."""


# -- requests of a participant ---------------------------------------------------------------------------


class Nothing(Params, frozen=True):
    """A request without parameters."""


class Join(Params, frozen=True):
    display_name: str = ""
    device: dict[str, Any] | None = None
    rtp_capabilities: RtpCapabilities | None = None
    """Absent: the participant does not want to receive."""
    reattach: bool = False
    """Ours: it was asked to attach elsewhere, and leaves its older attachment itself, soon."""


class CreateTransport(Params, frozen=True):
    force_tcp: bool = False
    producing: bool = False
    consuming: bool = False
    app_data: dict[str, Any] | None = None


class ConnectTransport(Params, frozen=True):
    transport_id: str
    dtls_parameters: DtlsParameters


class OfTransport(Params, frozen=True):
    transport_id: str


class Produce(Params, frozen=True):
    transport_id: str
    kind: MediaKind
    rtp_parameters: RtpParameters
    app_data: dict[str, Any] | None = None
    """`source` names the producer for as long as the participant lives; absent: share or the kind."""
    paused: bool = False


class OfProducer(Params, frozen=True):
    producer_id: str


class OfConsumer(Params, frozen=True):
    consumer_id: str


class SetPreferredLayers(Params, frozen=True):
    consumer_id: str
    spatial_layer: int
    temporal_layer: int | None = None

    @property
    def layers(self) -> ConsumerLayers:
        return ConsumerLayers(spatial_layer=self.spatial_layer, temporal_layer=self.temporal_layer)


class SetPriority(Params, frozen=True):
    consumer_id: str
    priority: int


class ChangeDisplayName(Params, frozen=True):
    display_name: str


# -- answers and what the server sends by itself -----------------------------------------------------------


class Peer(Data, frozen=True):
    """Another participant; also the data of newPeer."""

    id: str
    display_name: str
    device: dict[str, Any]


class Joined(Data, frozen=True):
    """The answer to join."""

    peers: list[Peer]
    """Everybody else in the session."""
    resume: str
    """Ours: a token to dial with after a fault, instead of the first one."""
    router: str
    """Ours: `namespace/name` of the MediaRouter that the participant is attached to."""


class TransportCreated(Data, frozen=True):
    id: str
    ice_parameters: IceParameters
    ice_candidates: list[IceCandidate]
    dtls_parameters: DtlsParameters


class Reattach(Data, frozen=True):
    """Ours, a notification: dial again and join with `reattach`, then leave this attachment."""

    reason: str
    within: float
    """Seconds; whoever is still here then is closed with 4001."""


class Created(Data, frozen=True):
    """The answer to produce."""

    id: str
