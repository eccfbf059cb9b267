"""What a change of a route table asks for: frozen data, carried out by HostedRouter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mediaserver.cascade.messages import ParticipantInfo, ProducerInfo, RouteMessage, RouterName
from mediaserver.mediasoup import RtpParameters


@dataclass(frozen=True)
class Leg:
    """One producer crossing one link once, from the end nearer the origin to the other.

    ``link`` is the neighbour as seen by whoever holds the leg. ``join`` numbers the wish of the far end,
    ``serve`` its fulfilment by the near end; both grow and are never used again.
    """

    producer: str
    link: RouterName
    join: int
    serve: int


@dataclass(frozen=True)
class Send:
    """Say it to the neighbour; without a connection it is dropped: a refresh follows the next one."""

    link: RouterName
    message: RouteMessage


# -- media, at the end nearer the origin -----------------------------------------------------------------


@dataclass(frozen=True)
class Serve:
    """Consume the producer on the pipe toward `leg.link`, paused; then `served` or `serve_failed`."""

    leg: Leg


@dataclass(frozen=True)
class Unserve:
    """Close the leg's pipe consumer, or never make it."""

    leg: Leg


@dataclass(frozen=True)
class Flow:
    """The far end produces: resume the leg's pipe consumer."""

    leg: Leg


# -- media, at the far end -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Produce:
    """Produce on the pipe from `leg.link` with the producer's id; then `produced` or `produce_failed`."""

    leg: Leg
    kind: Literal["audio", "video"]
    rtp_parameters: RtpParameters
    paused: bool


@dataclass(frozen=True)
class Unproduce:
    """Close the leg's piped producer, or never make it."""

    leg: Leg


@dataclass(frozen=True)
class Mirror:
    """Pause or resume the leg's piped producer."""

    leg: Leg
    paused: bool


# -- for whoever attaches --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attached:
    """The router has the producer: every attach of it that waits is done."""

    producer: str


@dataclass(frozen=True)
class Restored:
    """The router has the producer again, after it was lost while in use."""

    producer: str


@dataclass(frozen=True)
class AttachFailed:
    producer: str
    reason: str


# -- the session as seen from this router ----------------------------------------------------------------


@dataclass(frozen=True)
class ParticipantAppeared:
    participant: ParticipantInfo


@dataclass(frozen=True)
class ParticipantChanged:
    participant: ParticipantInfo


@dataclass(frozen=True)
class ParticipantGone:
    participant: ParticipantInfo


@dataclass(frozen=True)
class ParticipantReplaced:
    """An attachment to this router lost to a newer one of the same participant and is ended."""

    participant: ParticipantInfo


@dataclass(frozen=True)
class ProducerAppeared:
    producer: ProducerInfo


@dataclass(frozen=True)
class ProducerChanged:
    producer: ProducerInfo


@dataclass(frozen=True)
class ProducerGone:
    producer: ProducerInfo


Effect = (
    Send
    | Serve
    | Unserve
    | Flow
    | Produce
    | Unproduce
    | Mirror
    | Attached
    | Restored
    | AttachFailed
    | ParticipantAppeared
    | ParticipantChanged
    | ParticipantGone
    | ParticipantReplaced
    | ProducerAppeared
    | ProducerChanged
    | ProducerGone
)
