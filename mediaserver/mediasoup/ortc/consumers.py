"""What a consumer sends, from what its producer offers and its endpoint can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec.structs import replace

from ..cache import ContentCache
from ..errors import UnsupportedError
from ..rtp_parameters import (
    RtcpFeedback,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
)
from .codecs import is_rtx, match_codecs
from .scalability_modes import parse_scalability_mode
from .supported import SUPPORTED_RTP_CAPABILITIES
from .validation import validate_codecs, validate_rtp_capabilities

_MID: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
_ABS_SEND_TIME: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
_TRANSPORT_CC: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
_DEPENDENCY_DESCRIPTOR: Final = (
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)
_NOT_PIPED: Final = frozenset({_MID, _ABS_SEND_TIME, _TRANSPORT_CC})
# recvonly in mediasoup, so absent from consumable parameters; pipes need it for AV1 (and for H264 SVC).
_PIPED_DEPENDENCY_DESCRIPTORS: Final = [
    RtpHeaderExtensionParameters(uri=extension.uri, id=extension.preferred_id)
    for extension in SUPPORTED_RTP_CAPABILITIES.header_extensions
    if extension.uri == _DEPENDENCY_DESCRIPTOR and extension.direction != "sendrecv"
][:1]


class _Negotiated(msgspec.Struct, frozen=True):
    """What a producer and an endpoint have in common; the same for every consumer of the two."""

    codecs: list[RtpCodecParameters]
    header_extensions: list[RtpHeaderExtensionParameters]
    rtx: bool


_consumable: Final = ContentCache[bool](1024)
_negotiated: Final = ContentCache[_Negotiated](1024)


def can_consume(consumable: RtpParameters, caps: RtpCapabilities) -> bool:
    """Whether an endpoint with these capabilities can receive the producer.

    Raises InvalidArgumentError for invalid capabilities.
    """
    return _consumable.get((consumable.codecs, caps), lambda: _can_consume(consumable, caps))


def _can_consume(consumable: RtpParameters, caps: RtpCapabilities) -> bool:
    caps = validate_rtp_capabilities(caps)
    for codec in consumable.codecs:
        if any(match_codecs(cap, codec, strict=True) for cap in caps.codecs):
            return not is_rtx(codec)
    return False


def get_consumer_rtp_parameters(
    consumable: RtpParameters,
    caps: RtpCapabilities,
    *,
    enable_rtx: bool,
    pipe: bool,
    ssrc: int,
    rtx_ssrc: int,
) -> RtpParameters:
    """Parameters of a consumer for an endpoint: one encoding, or with `pipe` all of them.

    SSRCs count up from `ssrc`, those of RTX from `rtx_ssrc` (one above `ssrc` without `pipe`). Raises
    UnsupportedError if the endpoint has none of the codecs, InvalidArgumentError for invalid codecs among
    the capabilities.
    """
    offer = (consumable.codecs, consumable.header_extensions, caps, enable_rtx)
    common = _negotiated.get(offer, lambda: _negotiate(consumable, caps, enable_rtx=enable_rtx))
    encodings = (
        _all_encodings(consumable, ssrc, rtx_ssrc if common.rtx else None)
        if pipe
        else [_single_encoding(consumable, ssrc, ssrc + 1 if common.rtx else None)]
    )
    return RtpParameters(
        codecs=common.codecs.copy(),
        header_extensions=common.header_extensions.copy(),
        encodings=encodings,
        rtcp=consumable.rtcp,
        msid=consumable.msid,
    )


def _negotiate(consumable: RtpParameters, caps: RtpCapabilities, *, enable_rtx: bool) -> _Negotiated:
    codecs = _common_codecs(consumable, validate_codecs(caps.codecs), enable_rtx=enable_rtx)
    known = {(cap.preferred_id, cap.uri) for cap in caps.header_extensions}
    extensions = [
        extension for extension in consumable.header_extensions if (extension.id, extension.uri) in known
    ]
    keep = _congestion_feedback({extension.uri for extension in extensions})
    codecs = [
        replace(codec, rtcp_feedback=[entry for entry in codec.rtcp_feedback if keep(entry)])
        for codec in codecs
    ]
    return _Negotiated(codecs, extensions, any(is_rtx(codec) for codec in codecs))


def _common_codecs(
    consumable: RtpParameters, caps: list[RtpCodecCapability], *, enable_rtx: bool
) -> list[RtpCodecParameters]:
    """Those that the endpoint can do, with its feedback; RTX only beside its media codec."""
    codecs: list[RtpCodecParameters] = []
    for codec in consumable.codecs:
        if is_rtx(codec) and not enable_rtx:
            continue
        cap = next((cap for cap in caps if match_codecs(cap, codec, strict=True)), None)
        if cap is not None:
            feedback = [entry for entry in cap.rtcp_feedback if enable_rtx or not _is_generic_nack(entry)]
            codecs.append(replace(codec, rtcp_feedback=feedback))
    for i in range(len(codecs) - 1, -1, -1):  # backwards: RTX may be for RTX that goes
        apt = codecs[i].parameters.get("apt")
        if is_rtx(codecs[i]) and not any(codec.payload_type == apt for codec in codecs):
            del codecs[i]
    if not codecs or is_rtx(codecs[0]):
        offered = ", ".join(codec.mime_type for codec in consumable.codecs if not is_rtx(codec))
        raise UnsupportedError(f"the endpoint can't receive any of the producer's codecs ({offered})")
    return codecs


def _is_generic_nack(entry: RtcpFeedback) -> bool:
    return entry.type == "nack" and not entry.parameter


def _congestion_feedback(uris: set[str]) -> Callable[[RtcpFeedback], bool]:
    """Transport-CC if the endpoint takes its header extension, else REMB if it takes abs-send-time."""
    if _TRANSPORT_CC in uris:
        drop = {"goog-remb"}
    elif _ABS_SEND_TIME in uris:
        drop = {"transport-cc"}
    else:
        drop = {"transport-cc", "goog-remb"}
    return lambda entry: entry.type not in drop


def _single_encoding(consumable: RtpParameters, ssrc: int, rtx_ssrc: int | None) -> RtpEncodingParameters:
    encodings = consumable.encodings
    mode = next((encoding.scalability_mode for encoding in encodings if encoding.scalability_mode), None)
    if len(encodings) > 1:  # simulcast: each encoding is a spatial layer
        mode = f"L{len(encodings)}T{parse_scalability_mode(mode).temporal_layers}"
    return RtpEncodingParameters(
        ssrc=ssrc,
        rtx=None if rtx_ssrc is None else RtxParameters(ssrc=rtx_ssrc),
        scalability_mode=mode,
        max_bitrate=max([0, *(encoding.max_bitrate or 0 for encoding in encodings)]) or None,
    )


def _all_encodings(consumable: RtpParameters, ssrc: int, rtx_ssrc: int | None) -> list[RtpEncodingParameters]:
    return [
        replace(encoding, ssrc=ssrc + i, rtx=None if rtx_ssrc is None else RtxParameters(ssrc=rtx_ssrc + i))
        for i, encoding in enumerate(consumable.encodings)
    ]


def get_pipe_consumer_rtp_parameters(
    consumable: RtpParameters, *, enable_rtx: bool, ssrc: int, rtx_ssrc: int
) -> RtpParameters:
    """Parameters of a consumer on a PipeTransport, to be produced as they are on the other end.

    All encodings with new SSRCs (counted up from `ssrc` and `rtx_ssrc`); of the feedback PLI and FIR, and
    with `enable_rtx` RTX codecs and generic NACK; no bandwidth estimation: mid, abs-send-time and
    transport-cc header extensions are dropped. The dependency descriptor and the CNAME are kept.
    """
    codecs = [
        replace(codec, rtcp_feedback=[entry for entry in codec.rtcp_feedback if _is_piped(entry, enable_rtx)])
        for codec in consumable.codecs
        if enable_rtx or not is_rtx(codec)
    ]
    extensions = [extension for extension in consumable.header_extensions if extension.uri not in _NOT_PIPED]
    return RtpParameters(
        codecs=codecs,
        header_extensions=sorted(
            extensions + _PIPED_DEPENDENCY_DESCRIPTORS, key=lambda extension: extension.id
        ),
        encodings=_all_encodings(consumable, ssrc, rtx_ssrc if enable_rtx else None),
        rtcp=consumable.rtcp,
        msid=consumable.msid,
    )


def _is_piped(entry: RtcpFeedback, enable_rtx: bool) -> bool:
    return (
        (entry.type == "nack" and entry.parameter == "pli")
        or (entry.type == "ccm" and entry.parameter == "fir")
        or (enable_rtx and _is_generic_nack(entry))
    )
