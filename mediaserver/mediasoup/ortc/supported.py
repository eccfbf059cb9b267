"""What mediasoup 3.27 can do: codecs and RTP header extensions (supportedRtpCapabilities)."""

from __future__ import annotations

import copy
from typing import Final

from ..rtp_parameters import (
    CodecParameters,
    MediaKind,
    RtcpFeedback,
    RtpCapabilities,
    RtpCodecCapability,
    RtpHeaderExtension,
    RtpHeaderExtensionDirection,
)

_NACK: Final = RtcpFeedback("nack")
_TRANSPORT_CC: Final = RtcpFeedback("transport-cc")
_VIDEO_FEEDBACK: Final = [
    _NACK,
    RtcpFeedback("nack", "pli"),
    RtcpFeedback("ccm", "fir"),
    RtcpFeedback("goog-remb"),
    _TRANSPORT_CC,
]


def _audio(
    name: str,
    clock_rate: int,
    *,
    channels: int = 1,
    payload_type: int | None = None,
    parameters: CodecParameters | None = None,
    feedback: tuple[RtcpFeedback, ...] = (),
) -> RtpCodecCapability:
    return RtpCodecCapability(
        kind="audio",
        mime_type=f"audio/{name}",
        preferred_payload_type=payload_type,
        clock_rate=clock_rate,
        channels=channels,
        parameters=parameters or {},
        rtcp_feedback=list(feedback),
    )


def _multiopus(channels: int, mapping: str, streams: int, coupled: int) -> RtpCodecCapability:
    parameters: CodecParameters = {
        "channel_mapping": mapping,
        "num_streams": streams,
        "coupled_streams": coupled,
    }
    feedback = (_NACK, _TRANSPORT_CC)
    return _audio("multiopus", 48_000, channels=channels, parameters=parameters, feedback=feedback)


def _video(name: str, parameters: CodecParameters | None = None) -> RtpCodecCapability:
    return RtpCodecCapability(
        kind="video",
        mime_type=f"video/{name}",
        clock_rate=90_000,
        parameters=parameters or {},
        rtcp_feedback=_VIDEO_FEEDBACK,
    )


def _extension(
    kind: MediaKind, number: int, uri: str, direction: RtpHeaderExtensionDirection = "sendrecv"
) -> RtpHeaderExtension:
    return RtpHeaderExtension(kind=kind, uri=uri, preferred_id=number, direction=direction)


def _both(number: int, uri: str) -> tuple[RtpHeaderExtension, RtpHeaderExtension]:
    return _extension("audio", number, uri), _extension("video", number, uri)


_WITH_TRANSPORT_CC: Final = (_TRANSPORT_CC,)
_TRANSPORT_CC_URI: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
_DEPENDENCY_DESCRIPTOR_URI: Final = (
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)

SUPPORTED_RTP_CAPABILITIES: Final = RtpCapabilities(
    codecs=[
        _audio("opus", 48_000, channels=2, feedback=(_NACK, _TRANSPORT_CC)),
        _multiopus(4, "0,1,2,3", 2, 2),
        _multiopus(6, "0,4,1,2,3,5", 4, 2),
        _multiopus(8, "0,6,1,2,3,4,5,7", 5, 3),
        _audio("PCMU", 8_000, payload_type=0, feedback=_WITH_TRANSPORT_CC),
        _audio("PCMA", 8_000, payload_type=8, feedback=_WITH_TRANSPORT_CC),
        *(_audio("ISAC", rate, feedback=_WITH_TRANSPORT_CC) for rate in (32_000, 16_000)),
        _audio("G722", 8_000, payload_type=9, feedback=_WITH_TRANSPORT_CC),
        _audio("iLBC", 8_000, feedback=_WITH_TRANSPORT_CC),
        *(_audio("SILK", rate, feedback=_WITH_TRANSPORT_CC) for rate in (24_000, 16_000, 12_000, 8_000)),
        *(_audio("CN", rate, payload_type=13) for rate in (32_000, 16_000, 8_000)),
        *(_audio("telephone-event", rate) for rate in (48_000, 32_000, 16_000, 8_000)),
        _video("VP8"),
        _video("VP9"),
        _video("H264", {"level-asymmetry-allowed": 1}),
        _video("AV1"),
    ],
    header_extensions=[
        *_both(1, "urn:ietf:params:rtp-hdrext:sdes:mid"),
        _extension("video", 2, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "recvonly"),
        _extension("video", 3, "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", "recvonly"),
        *_both(4, "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"),
        _extension("audio", 5, _TRANSPORT_CC_URI, "recvonly"),
        _extension("video", 5, _TRANSPORT_CC_URI),
        _extension("audio", 6, "urn:ietf:params:rtp-hdrext:ssrc-audio-level"),
        _extension("video", 7, _DEPENDENCY_DESCRIPTOR_URI, "recvonly"),
        _extension("video", 8, "urn:3gpp:video-orientation"),
        _extension("video", 9, "urn:ietf:params:rtp-hdrext:toffset"),
        *_both(10, "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"),
        *_both(11, "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"),
        *_both(12, "urn:mediasoup:params:rtp-hdrext:packet-id"),
    ],
)


def get_supported_rtp_capabilities() -> RtpCapabilities:
    """What mediasoup can do, whatever a router was made for; preferred payload types are absent.

    A copy of its own for each caller.
    """
    return copy.deepcopy(SUPPORTED_RTP_CAPABILITIES)
