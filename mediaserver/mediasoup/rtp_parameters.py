"""RTP capabilities and parameters, as mediasoup and mediasoup-client exchange them.

Source: https://mediasoup.org/documentation/v3/mediasoup/rtp-parameters-and-capabilities/. The structs
convert to and from that JSON with msgspec (`msgspec.convert(data, RtpParameters)`, `msgspec.to_builtins`):
camelCase names, absent optional fields omitted, unknown fields ignored. They are frozen; use
`msgspec.structs.replace` for a changed copy and treat their lists and dicts as read-only, since they are
shared, not copied.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

MediaKind: TypeAlias = Literal["audio", "video"]
RtpHeaderExtensionDirection: TypeAlias = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
CodecParameters: TypeAlias = dict[str, int | float | str]
"""Format parameters (fmtp) of a codec: name to number or text."""


class RtcpFeedback(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One RTCP feedback mechanism of a codec, e.g. type "nack", parameter "pli"."""

    type: str
    parameter: str = ""


class RtpCodecCapability(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A codec that an endpoint can do. `kind` follows from `mime_type` and is filled in where absent."""

    mime_type: str
    clock_rate: int
    kind: MediaKind | None = None
    preferred_payload_type: int | None = None
    channels: int | None = None
    parameters: CodecParameters = {}
    rtcp_feedback: list[RtcpFeedback] = []


RouterRtpCodecCapability: TypeAlias = RtpCodecCapability
"""A media codec given to `create_router`; the payload type is chosen by mediasoup unless given."""


class RtpHeaderExtension(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """An RTP header extension that an endpoint can do; `direction` is seen from mediasoup."""

    kind: MediaKind
    uri: str
    preferred_id: int
    preferred_encrypt: bool = False
    direction: RtpHeaderExtensionDirection = "sendrecv"


class RtpCapabilities(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What mediasoup, or an endpoint, can receive."""

    codecs: list[RtpCodecCapability] = []
    header_extensions: list[RtpHeaderExtension] = []


class RtpCodecParameters(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A codec as used in a stream."""

    mime_type: str
    payload_type: int
    clock_rate: int
    channels: int | None = None
    parameters: CodecParameters = {}
    rtcp_feedback: list[RtcpFeedback] = []


class RtpHeaderExtensionParameters(
    msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True
):
    """An RTP header extension as used in a stream."""

    uri: str
    id: int
    encrypt: bool = False
    parameters: CodecParameters = {}


class RtxParameters(msgspec.Struct, frozen=True, rename="camel"):
    """The retransmission stream of an encoding."""

    ssrc: int


class RtpEncodingParameters(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One RTP stream of a producer or consumer; simulcast has several. `max_bitrate` is in bit/s."""

    ssrc: int | None = None
    rid: str | None = None
    codec_payload_type: int | None = None
    rtx: RtxParameters | None = None
    dtx: bool = False
    scalability_mode: str | None = None
    max_bitrate: int | None = None


class RtcpParameters(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """RTCP settings of the streams; those with one `cname` share a clock (lip sync)."""

    cname: str | None = None
    reduced_size: bool = True


class RtpParameters(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """How a producer sends, or a consumer receives, its media."""

    codecs: list[RtpCodecParameters]
    mid: str | None = None
    header_extensions: list[RtpHeaderExtensionParameters] = []
    encodings: list[RtpEncodingParameters] = []
    rtcp: RtcpParameters = RtcpParameters()
    msid: str | None = None
