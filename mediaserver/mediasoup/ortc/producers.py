"""Routers' capabilities, and what a router makes of a producer's parameters."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from ..errors import InvalidArgumentError, UnsupportedError
from ..reports import CodecMapping, EncodingMapping, RtpMapping
from ..rtp_parameters import (
    MediaKind,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtension,
    RtpHeaderExtensionParameters,
    RtpParameters,
)
from .codecs import is_rtx, match_codecs, with_answered_profile
from .supported import SUPPORTED_RTP_CAPABILITIES
from .validation import validate_media_codec

DYNAMIC_PAYLOAD_TYPES: Final = (*range(100, 128), 96, 97, 98, 99)
_ABS_CAPTURE_TIME: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"


def generate_router_rtp_capabilities(media_codecs: list[RtpCodecCapability]) -> RtpCapabilities:
    """What a router with these media codecs can receive; each video codec gets RTX.

    Raises UnsupportedError for a codec that mediasoup lacks, InvalidArgumentError for a payload type used
    twice or when there are more codecs than payload types.
    """
    free = list(DYNAMIC_PAYLOAD_TYPES)
    codecs: list[RtpCodecCapability] = []
    for i, media_codec in enumerate(media_codecs):
        wanted = validate_media_codec(media_codec, f"mediaCodecs[{i}]")
        codec = _supported_codec(wanted)
        payload_type = wanted.preferred_payload_type
        if payload_type is not None:
            if payload_type in free:
                free.remove(payload_type)
        elif codec.preferred_payload_type is not None:
            payload_type = codec.preferred_payload_type
        else:
            payload_type = _take(free)
        if any(other.preferred_payload_type == payload_type for other in codecs):
            raise InvalidArgumentError(f"mediaCodecs[{i}] would use payload type {payload_type} again")
        parameters = {**codec.parameters, **wanted.parameters}
        codecs.append(replace(codec, preferred_payload_type=payload_type, parameters=parameters))
        if codec.kind == "video":
            codecs.append(
                RtpCodecCapability(
                    kind="video",
                    mime_type="video/rtx",
                    preferred_payload_type=_take(free),
                    clock_rate=codec.clock_rate,
                    parameters={"apt": payload_type},
                )
            )
    return RtpCapabilities(codecs=codecs, header_extensions=SUPPORTED_RTP_CAPABILITIES.header_extensions)


def _supported_codec(wanted: RtpCodecCapability) -> RtpCodecCapability:
    for supported in SUPPORTED_RTP_CAPABILITIES.codecs:
        if match_codecs(wanted, supported, strict=False):
            return supported
    channels = "" if wanted.channels is None else f", {wanted.channels} channels"
    raise UnsupportedError(f"mediasoup has no codec {wanted.mime_type} at {wanted.clock_rate} Hz{channels}")


def _take(free: list[int]) -> int:
    if not free:
        raise InvalidArgumentError("there are more media codecs than dynamic payload types")
    return free.pop(0)


def get_producer_rtp_parameters_mapping(
    params: RtpParameters, caps: RtpCapabilities, *, ssrc: int
) -> tuple[RtpParameters, RtpMapping]:
    """How the router renames a producer's payload types and SSRCs (counted up from `ssrc`).

    Also returns the parameters with H.264 profile-level-ids as answered. Raises UnsupportedError for a
    codec that the router lacks, InvalidArgumentError for RTX without its codec.
    """
    codecs: list[RtpCodecParameters] = []
    caps_of: list[RtpCodecCapability | None] = []  # of the codec at the same index; RTX comes second
    for codec in params.codecs:
        cap = None if is_rtx(codec) else _router_codec(codec, caps)
        caps_of.append(cap)
        codecs.append(codec if cap is None else with_answered_profile(codec, cap))
    mapped = [(codec.payload_type, cap) for codec, cap in zip(codecs, caps_of, strict=True) if cap]
    for i, codec in enumerate(codecs):
        if is_rtx(codec):
            caps_of[i] = cap = _rtx_capability(codec, codecs, caps_of, caps)
            mapped.append((codec.payload_type, cap))
    mapping = RtpMapping(
        codecs=[
            CodecMapping(payload_type=payload_type, mapped_payload_type=_payload_type(cap))
            for payload_type, cap in mapped
        ],
        encodings=[
            EncodingMapping(ssrc=encoding.ssrc, rid=encoding.rid, mapped_ssrc=ssrc + i)
            for i, encoding in enumerate(params.encodings)
        ],
    )
    return replace(params, codecs=codecs), mapping


def _router_codec(codec: RtpCodecParameters, caps: RtpCapabilities) -> RtpCodecCapability:
    for cap in caps.codecs:
        if match_codecs(codec, cap, strict=True):
            return cap
    raise UnsupportedError(f"router lacks the codec {codec.mime_type} (payload type {codec.payload_type})")


def _rtx_capability(
    codec: RtpCodecParameters,
    codecs: list[RtpCodecParameters],
    caps_of: list[RtpCodecCapability | None],
    caps: RtpCapabilities,
) -> RtpCodecCapability:
    """The router's RTX for the codec that `apt` names: the first of that payload type."""
    apt = codec.parameters.get("apt")
    associated = next((cap for c, cap in zip(codecs, caps_of, strict=True) if c.payload_type == apt), None)
    if associated is None:
        raise InvalidArgumentError(f"RTX codec {codec.payload_type} is for {apt!r}, which is no media codec")
    for cap in caps.codecs:
        if is_rtx(cap) and cap.parameters.get("apt") == associated.preferred_payload_type:
            return cap
    raise UnsupportedError(f"router has no RTX for {associated.mime_type}")


def _payload_type(cap: RtpCodecCapability) -> int:
    if cap.preferred_payload_type is None:
        raise InvalidArgumentError(f"capability {cap.mime_type} has no payload type")
    return cap.preferred_payload_type


def get_consumable_rtp_parameters(
    kind: MediaKind, params: RtpParameters, caps: RtpCapabilities, mapping: RtpMapping
) -> RtpParameters:
    """A producer's parameters in the router's terms: what consumers are derived from.

    `params` and `mapping` are those of `get_producer_rtp_parameters_mapping`; InvalidArgumentError is raised
    for a mapping that does not belong to the parameters and capabilities.
    """
    if len(mapping.encodings) < len(params.encodings):
        raise InvalidArgumentError("mapping lacks encodings of the parameters")
    payload_types = {codec.payload_type: codec.mapped_payload_type for codec in reversed(mapping.codecs)}
    codecs: list[RtpCodecParameters] = []
    for codec in params.codecs:
        if not is_rtx(codec):
            codecs += _consumable_codecs(codec, payload_types.get(codec.payload_type), caps)
    return RtpParameters(
        codecs=codecs,
        header_extensions=[
            _consumable_extension(extension)
            for extension in caps.header_extensions
            if _is_consumable(extension, kind, params)
        ],
        encodings=[
            RtpEncodingParameters(
                ssrc=mapped.mapped_ssrc,
                dtx=encoding.dtx,
                scalability_mode=encoding.scalability_mode,
                max_bitrate=encoding.max_bitrate,
            )
            for encoding, mapped in zip(params.encodings, mapping.encodings, strict=False)
        ],
        rtcp=RtcpParameters(cname=params.rtcp.cname, reduced_size=True),
        msid=params.msid,
    )


def _consumable_codecs(
    codec: RtpCodecParameters, payload_type: int | None, caps: RtpCapabilities
) -> list[RtpCodecParameters]:
    """The codec with the producer's parameters and the router's feedback, and its RTX."""
    cap = next((cap for cap in caps.codecs if cap.preferred_payload_type == payload_type), None)
    if cap is None or payload_type is None:
        raise InvalidArgumentError(
            f"mapping has no codec of the router for payload type {codec.payload_type}"
        )
    rtx = [
        replace(_as_parameters(rtx, rtx), channels=None)
        for rtx in caps.codecs
        if is_rtx(rtx) and rtx.parameters.get("apt") == payload_type
    ][:1]
    return [_as_parameters(cap, codec), *rtx]


def _as_parameters(
    cap: RtpCodecCapability, parameters_of: RtpCodecCapability | RtpCodecParameters
) -> RtpCodecParameters:
    return RtpCodecParameters(
        mime_type=cap.mime_type,
        payload_type=_payload_type(cap),
        clock_rate=cap.clock_rate,
        channels=cap.channels,
        parameters=parameters_of.parameters,
        rtcp_feedback=cap.rtcp_feedback,
    )


def _is_consumable(extension: RtpHeaderExtension, kind: MediaKind, params: RtpParameters) -> bool:
    if extension.kind != kind or extension.direction not in ("sendrecv", "sendonly"):
        return False
    # Only proxied, so a consumer would wait for ever for what its producer does not send.
    return extension.uri != _ABS_CAPTURE_TIME or any(
        given.uri == extension.uri for given in params.header_extensions
    )


def _consumable_extension(extension: RtpHeaderExtension) -> RtpHeaderExtensionParameters:
    return RtpHeaderExtensionParameters(
        uri=extension.uri, id=extension.preferred_id, encrypt=extension.preferred_encrypt
    )
