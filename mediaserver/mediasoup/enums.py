"""The worker's enumerations beside the words that the API uses for them."""

from __future__ import annotations

from typing import Final, TypeVar

from .errors import InvalidArgumentError
from .rtp_parameters import MediaKind
from .types import (
    ConsumerType,
    DtlsRole,
    DtlsState,
    FingerprintAlgorithm,
    IceCandidateTcpType,
    IceCandidateType,
    IceRole,
    IceState,
    SctpState,
    SrtpCryptoSuite,
    TransportProtocol,
)

T = TypeVar("T")

# Each tuple is in the order of the schema's enum, whose first value is 0 (Protocol's is 1).
KIND_NAMES: Final[tuple[MediaKind, ...]] = ("audio", "video")
TYPE_NAMES: Final[tuple[ConsumerType, ...]] = ("simple", "simulcast", "svc", "pipe")
PROTOCOL_NAMES: Final[tuple[TransportProtocol | None, ...]] = (None, "udp", "tcp")
ICE_ROLE_NAMES: Final[tuple[IceRole, ...]] = ("controlled", "controlling")
ICE_STATE_NAMES: Final[tuple[IceState, ...]] = ("new", "connected", "completed", "disconnected")
ICE_CANDIDATE_TYPE_NAMES: Final[tuple[IceCandidateType, ...]] = ("host",)
ICE_CANDIDATE_TCP_TYPE_NAMES: Final[tuple[IceCandidateTcpType, ...]] = ("passive",)
DTLS_ROLE_NAMES: Final[tuple[DtlsRole, ...]] = ("auto", "client", "server")
DTLS_STATE_NAMES: Final[tuple[DtlsState, ...]] = ("new", "connecting", "connected", "failed", "closed")
FINGERPRINT_NAMES: Final[tuple[FingerprintAlgorithm, ...]] = (
    "sha-1",
    "sha-224",
    "sha-256",
    "sha-384",
    "sha-512",
)
SCTP_STATE_NAMES: Final[tuple[SctpState, ...]] = ("new", "connecting", "connected", "failed", "closed")
SRTP_SUITE_NAMES: Final[tuple[SrtpCryptoSuite, ...]] = (
    "AEAD_AES_256_GCM",
    "AEAD_AES_128_GCM",
    "AES_CM_128_HMAC_SHA1_80",
    "AES_CM_128_HMAC_SHA1_32",
)
URI_NAMES: Final = (
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
    "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
    "urn:3gpp:video-orientation",
    "urn:ietf:params:rtp-hdrext:toffset",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "urn:mediasoup:params:rtp-hdrext:packet-id",
)
URI_NUMBERS: Final = {uri: number for number, uri in enumerate(URI_NAMES)}


def numbered(names: tuple[T, ...], name: T, what: str) -> int:
    """The worker's number for a word of the API. InvalidArgumentError for one that there is not."""
    try:
        return names.index(name)
    except ValueError:
        known = ", ".join(str(known) for known in names if known is not None)
        raise InvalidArgumentError(f"{what} is {name!r}; it must be one of {known}") from None


def named(names: tuple[T, ...], number: int, what: str) -> T:
    """The word for a number that the worker sent. ValueError for one that this version does not know."""
    if not 0 <= number < len(names):
        raise ValueError(f"{what} has the unknown value {number}")
    return names[number]
