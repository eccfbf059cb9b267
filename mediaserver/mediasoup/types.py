"""Ids, settings and small values of the API; structs convert to and from mediasoup's JSON with msgspec."""

from __future__ import annotations

from typing import Any, Literal, NewType, TypeAlias

import msgspec

RouterId = NewType("RouterId", str)
WebRtcServerId = NewType("WebRtcServerId", str)
TransportId = NewType("TransportId", str)
ProducerId = NewType("ProducerId", str)
ConsumerId = NewType("ConsumerId", str)
DataProducerId = NewType("DataProducerId", str)
DataConsumerId = NewType("DataConsumerId", str)
RtpObserverId = NewType("RtpObserverId", str)

AppData: TypeAlias = dict[str, Any]
"""Whatever the application wants to keep with an object; mediasoup never looks at it."""

WorkerLogLevel: TypeAlias = Literal["debug", "warn", "error", "none"]
WorkerLogTag: TypeAlias = Literal[
    "info", "ice", "dtls", "rtp", "srtp", "rtcp", "rtx", "bwe", "score", "simulcast", "svc", "sctp", "message"
]

TransportType: TypeAlias = Literal["webrtc", "plain", "pipe", "direct"]
TransportProtocol: TypeAlias = Literal["udp", "tcp"]
IceRole: TypeAlias = Literal["controlled", "controlling"]
IceState: TypeAlias = Literal["new", "connected", "completed", "disconnected", "closed"]
IceCandidateType: TypeAlias = Literal["host"]
IceCandidateTcpType: TypeAlias = Literal["passive"]
DtlsRole: TypeAlias = Literal["auto", "client", "server"]
DtlsState: TypeAlias = Literal["new", "connecting", "connected", "failed", "closed"]
FingerprintAlgorithm: TypeAlias = Literal["sha-1", "sha-224", "sha-256", "sha-384", "sha-512"]
SctpState: TypeAlias = Literal["new", "connecting", "connected", "failed", "closed"]
SrtpCryptoSuite: TypeAlias = Literal[
    "AEAD_AES_256_GCM", "AEAD_AES_128_GCM", "AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32"
]
ProducerType: TypeAlias = Literal["simple", "simulcast", "svc"]
ConsumerType: TypeAlias = Literal["simple", "simulcast", "svc", "pipe"]
DataProducerType: TypeAlias = Literal["sctp", "direct"]
DataConsumerType: TypeAlias = Literal["sctp", "direct"]
RtpObserverType: TypeAlias = Literal["audiolevel", "activespeaker"]


class _Value(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Base of the values below: immutable, keyword-only, camelCase on the wire."""


class TransportPortRange(_Value, frozen=True, kw_only=True):
    """Ports `min` to `max`, both included; 0 and 0 mean the worker's whole range."""

    min: int
    max: int


class TransportSocketFlags(_Value, frozen=True, kw_only=True):
    """Socket options. `udp_reuse_port` lets several transports bind one ip and port (multicast)."""

    ipv6_only: bool = False
    udp_reuse_port: bool = False


class TransportListenInfo(_Value, frozen=True, kw_only=True):
    """Where a transport listens, and what it tells others.

    `announced_address` (ip or host name) replaces `ip` in ICE candidates and in tuples; with
    `expose_internal_ip` the ICE candidate of `ip` is given as well. `port` 0 means any of `port_range`,
    and without that any of the worker's. Buffer sizes are in bytes, 0 is the system's default.
    """

    ip: str
    protocol: TransportProtocol = "udp"
    announced_address: str | None = None
    expose_internal_ip: bool = False
    port: int = 0
    port_range: TransportPortRange | None = None
    flags: TransportSocketFlags = TransportSocketFlags()
    send_buffer_size: int = 0
    recv_buffer_size: int = 0


class TransportTuple(_Value, frozen=True, kw_only=True):
    """Addresses of a flow. `local_address` is the announced one; the remote half is absent until known."""

    local_address: str
    local_port: int
    protocol: TransportProtocol
    remote_ip: str | None = None
    remote_port: int | None = None


class IceParameters(_Value, frozen=True, kw_only=True):
    """ICE credentials of a WebRtcTransport; `password` is a secret of the call."""

    username_fragment: str
    password: str
    ice_lite: bool


class IceCandidate(_Value, frozen=True, kw_only=True):
    """A place where a WebRtcTransport can be reached (RFC 8445); `ip` equals `address`."""

    foundation: str
    priority: int
    ip: str
    address: str
    protocol: TransportProtocol
    port: int
    type: IceCandidateType
    tcp_type: IceCandidateTcpType | None = None


class DtlsFingerprint(_Value, frozen=True, kw_only=True):
    """Hash of a DTLS certificate, as hex bytes joined by ':' (RFC 8122)."""

    algorithm: FingerprintAlgorithm
    value: str


class DtlsParameters(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """DTLS role and certificate fingerprints of one side."""

    fingerprints: list[DtlsFingerprint]
    role: DtlsRole = "auto"


class SrtpParameters(_Value, frozen=True, kw_only=True):
    """SRTP key of one direction; the key is a secret."""

    crypto_suite: SrtpCryptoSuite
    key_base64: str

    def __repr__(self) -> str:
        return f"SrtpParameters(crypto_suite={self.crypto_suite!r}, key_base64=<secret>)"


class SctpOptions(_Value, frozen=True, kw_only=True):
    """SCTP settings of a transport with `enable_sctp`; sizes in bytes, defaults are mediasoup's."""

    max_send_message_size: int = 262_144
    max_receive_message_size: int = 262_144
    send_buffer_size: int = 2_000_000
    per_stream_send_queue_limit: int = 2_000_000
    max_receiver_window_buffer_size: int = 5_242_880
    default_stream_buffered_amount_low_threshold: int = 1_024


class SctpParameters(msgspec.Struct, frozen=True, kw_only=True):
    """SCTP parameters of a transport, with the names mediasoup-client reads (OS and MIS are 65535)."""

    port: int
    OS: int
    MIS: int
    max_message_size: int = msgspec.field(name="maxMessageSize")
    max_send_message_size: int = msgspec.field(name="maxSendMessageSize")
    max_receive_message_size: int = msgspec.field(name="maxReceiveMessageSize")
    send_buffer_size: int = msgspec.field(name="sendBufferSize")
    per_stream_send_queue_limit: int = msgspec.field(name="perStreamSendQueueLimit")
    max_receiver_window_buffer_size: int = msgspec.field(name="maxReceiverWindowBufferSize")
    is_data_channel: bool = msgspec.field(name="isDataChannel")


class SctpNegotiatedCapabilities(_Value, frozen=True, kw_only=True):
    """Streams that both ends of an SCTP association agreed on."""

    negotiated_max_outbound_streams: int
    negotiated_max_inbound_streams: int


class SctpStreamParameters(_Value, frozen=True, kw_only=True):
    """One stream of an SCTP association (RFC 8831).

    `ordered` absent means ordered and reliable, or unordered if one of the limits is given. At most one
    limit may be: `max_packet_life_time` (ms) or `max_retransmits`.
    """

    stream_id: int
    ordered: bool | None = None
    max_packet_life_time: int | None = None
    max_retransmits: int | None = None


class DataMessage(msgspec.Struct, frozen=True):
    """A message that a DataConsumer got. `ppid` is what it is (RFC 8831): 51 text, 53 bytes, 56 and 57
    empty text and bytes, of which `data` is one byte nevertheless."""

    data: bytes
    ppid: int


class ConsumerLayers(_Value, frozen=True, kw_only=True):
    """Simulcast or SVC layers, counted from 0; `temporal_layer` absent means the highest."""

    spatial_layer: int
    temporal_layer: int | None = None


class ConsumerScore(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Quality from 0 (worst) to 10: of the consumer, of its selected producer stream, of each stream."""

    score: int
    producer_score: int
    producer_scores: list[int]


class ProducerScore(_Value, frozen=True, kw_only=True):
    """Quality of one received stream, from 0 (worst) to 10."""

    encoding_idx: int
    ssrc: int
    score: int
    rid: str | None = None


class ProducerVideoOrientation(_Value, frozen=True, kw_only=True):
    """From the urn:3gpp:video-orientation header extension; `rotation` in degrees clockwise."""

    camera: bool
    flip: bool
    rotation: int


class WorkerResourceUsage(msgspec.Struct, frozen=True, kw_only=True):
    """getrusage(2) of the worker process. Times in ms, `ru_maxrss` in KiB."""

    ru_utime: int
    ru_stime: int
    ru_maxrss: int
    ru_ixrss: int
    ru_idrss: int
    ru_isrss: int
    ru_minflt: int
    ru_majflt: int
    ru_nswap: int
    ru_inblock: int
    ru_oublock: int
    ru_msgsnd: int
    ru_msgrcv: int
    ru_nsignals: int
    ru_nvcsw: int
    ru_nivcsw: int
