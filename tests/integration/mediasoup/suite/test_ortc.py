"""Cases of test-ortc.js: negotiation without a worker."""

from __future__ import annotations

from typing import Final

import pytest
from msgspec.structs import replace
from support.mediasoup_suite import (
    FIR,
    H264_PARAMETERS,
    NACK,
    PLI,
    REMB,
    URI_AUDIO_LEVEL,
    URI_MID,
    URI_OFFSET,
    URI_ORIENTATION,
    case,
    extension,
)

from mediaserver.mediasoup import (
    InvalidArgumentError,
    RtcpFeedback,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
    UnsupportedError,
    ortc,
)

OPUS: Final = RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000, channels=2)
TRANSPORT_CC: Final = RtcpFeedback("transport-cc")
VIDEO_FEEDBACK: Final = [NACK, PLI, FIR, REMB, TRANSPORT_CC]


def rtx(payload_type: int, apt: int) -> RtpCodecCapability:
    return RtpCodecCapability(
        kind="video",
        mime_type="video/rtx",
        preferred_payload_type=payload_type,
        clock_rate=90_000,
        parameters={"apt": apt},
    )


@case("test-ortc", "generateRouterRtpCapabilities() succeeds")
def test_router_capabilities() -> None:
    opus = replace(OPUS, parameters={"useinbandfec": 1, "colour": "red"})
    vp8 = RtpCodecCapability(mime_type="video/VP8", clock_rate=90_000, preferred_payload_type=125)
    h264 = RtpCodecCapability(
        mime_type="video/H264",
        clock_rate=90_000,
        parameters={"level-asymmetry-allowed": 1, "profile-level-id": "42e01f", "colour": "blue"},
    )
    caps = ortc.generate_router_rtp_capabilities([opus, vp8, h264])
    # Payload types are given out from 100; the one wanted by name stays out of that; feedback is mediasoup's.
    assert caps.codecs == [
        replace(opus, kind="audio", preferred_payload_type=100, rtcp_feedback=[NACK, TRANSPORT_CC]),
        replace(vp8, kind="video", rtcp_feedback=VIDEO_FEEDBACK),
        rtx(101, 125),
        replace(h264, kind="video", preferred_payload_type=102, rtcp_feedback=VIDEO_FEEDBACK),
        rtx(103, 102),
    ]


@case("test-ortc", "generateRouterRtpCapabilities() with unsupported codecs throws UnsupportedError")
def test_router_capabilities_unsupported() -> None:
    chicken = RtpCodecCapability(mime_type="audio/chicken", clock_rate=8_000, channels=4)
    for codec in (chicken, replace(OPUS, channels=1)):
        with pytest.raises(UnsupportedError):
            ortc.generate_router_rtp_capabilities([codec])


@case("test-ortc", "generateRouterRtpCapabilities() with too many codecs throws")
def test_router_capabilities_too_many() -> None:
    with pytest.raises(InvalidArgumentError, match="more media codecs than dynamic payload types"):
        ortc.generate_router_rtp_capabilities([OPUS] * 100)


@case(
    "test-ortc",
    "getProducerRtpParametersMapping(), getConsumableRtpParameters(), getConsumerRtpParameters() and "
    "getPipeConsumerRtpParameters() succeed",
)
def test_from_producer_to_consumers() -> None:
    wanted = RtpCodecCapability(
        mime_type="video/H264",
        clock_rate=90_000,
        parameters={"level-asymmetry-allowed": 1, **H264_PARAMETERS, "router": "only"},
    )
    caps = ortc.generate_router_rtp_capabilities([OPUS, wanted])
    parameters: dict[str, int | float | str] = {"mine": 1_234, **H264_PARAMETERS}
    given = RtpParameters(
        codecs=[
            RtpCodecParameters(
                mime_type="video/H264",
                payload_type=111,
                clock_rate=90_000,
                parameters=parameters,
                rtcp_feedback=[NACK, PLI, REMB],
            ),
            RtpCodecParameters(
                mime_type="video/rtx", payload_type=112, clock_rate=90_000, parameters={"apt": 111}
            ),
        ],
        header_extensions=[
            RtpHeaderExtensionParameters(uri=URI_MID, id=1),
            RtpHeaderExtensionParameters(uri=URI_ORIENTATION, id=2),
        ],
        encodings=[
            RtpEncodingParameters(
                ssrc=1_001, rtx=RtxParameters(1_002), max_bitrate=100_000, scalability_mode="L1T3"
            ),
            RtpEncodingParameters(
                ssrc=2_001, rtx=RtxParameters(2_002), max_bitrate=200_000, scalability_mode="L1T3"
            ),
            RtpEncodingParameters(rid="high", max_bitrate=300_000, scalability_mode="L1T3"),
        ],
        rtcp=RtcpParameters(cname="someone"),
    )
    params, mapping = ortc.get_producer_rtp_parameters_mapping(given, caps, ssrc=500)
    assert [(codec.payload_type, codec.mapped_payload_type) for codec in mapping.codecs] == [
        (111, 101),
        (112, 102),
    ]
    assert [(encoding.ssrc, encoding.rid) for encoding in mapping.encodings] == [
        (1_001, None),
        (2_001, None),
        (None, "high"),
    ]
    mapped = [encoding.mapped_ssrc for encoding in mapping.encodings]
    assert len(set(mapped)) == 3

    consumable = ortc.get_consumable_rtp_parameters("video", params, caps, mapping)
    assert [(codec.mime_type, codec.payload_type, codec.parameters) for codec in consumable.codecs] == [
        ("video/H264", 101, parameters),
        ("video/rtx", 102, {"apt": 101}),
    ]
    assert consumable.encodings == [
        RtpEncodingParameters(ssrc=ssrc, max_bitrate=bitrate, scalability_mode="L1T3")
        for ssrc, bitrate in zip(mapped, (100_000, 200_000, 300_000), strict=True)
    ]
    assert consumable.rtcp == RtcpParameters(cname="someone", reduced_size=True)

    theirs = RtpCapabilities(
        codecs=[
            replace(OPUS, preferred_payload_type=100),
            RtpCodecCapability(
                mime_type="video/H264",
                preferred_payload_type=101,
                clock_rate=90_000,
                parameters={**H264_PARAMETERS, "theirs": "too"},
                rtcp_feedback=[NACK, PLI, RtcpFeedback("made", "up")],
            ),
            rtx(102, 101),
        ],
        header_extensions=[
            extension("audio", URI_MID, 1),
            extension("video", URI_MID, 1),
            extension("audio", URI_AUDIO_LEVEL, 6),
            extension("video", URI_ORIENTATION, 8),
            extension("video", URI_OFFSET, 9),
        ],
    )
    consumer = ortc.get_consumer_rtp_parameters(
        consumable, theirs, enable_rtx=True, pipe=False, ssrc=700, rtx_ssrc=800
    )
    assert consumer.codecs == [
        RtpCodecParameters(
            mime_type="video/H264",
            payload_type=101,
            clock_rate=90_000,
            parameters=parameters,
            rtcp_feedback=[NACK, PLI, RtcpFeedback("made", "up")],
        ),
        RtpCodecParameters(
            mime_type="video/rtx", payload_type=102, clock_rate=90_000, parameters={"apt": 101}
        ),
    ]
    (encoding,) = consumer.encodings
    assert encoding.ssrc is not None
    assert encoding.rtx is not None
    assert encoding.rtx.ssrc != encoding.ssrc
    assert (encoding.scalability_mode, encoding.max_bitrate) == ("L3T3", 300_000)
    assert [(found.uri, found.id) for found in consumer.header_extensions] == [
        (URI_MID, 1),
        (URI_ORIENTATION, 8),
        (URI_OFFSET, 9),
    ]
    assert consumer.rtcp == consumable.rtcp

    pipe = ortc.get_pipe_consumer_rtp_parameters(consumable, enable_rtx=False, ssrc=900, rtx_ssrc=950)
    assert pipe.codecs == [
        RtpCodecParameters(
            mime_type="video/H264",
            payload_type=101,
            clock_rate=90_000,
            parameters=parameters,
            rtcp_feedback=[PLI, FIR],
        )
    ]
    assert len({encoding.ssrc for encoding in pipe.encodings}) == 3
    assert [(e.rtx, e.max_bitrate, e.scalability_mode) for e in pipe.encodings] == [
        (None, bitrate, "L1T3") for bitrate in (100_000, 200_000, 300_000)
    ]
    assert pipe.rtcp == consumable.rtcp


@case("test-ortc", "getProducerRtpParametersMapping() with incompatible params throws UnsupportedError")
def test_mapping_unsupported() -> None:
    h264 = RtpCodecCapability(
        mime_type="video/H264",
        clock_rate=90_000,
        parameters={"packetization-mode": 1, "profile-level-id": "640032"},
    )
    caps = ortc.generate_router_rtp_capabilities([OPUS, h264])
    given = RtpParameters(
        codecs=[RtpCodecParameters(mime_type="video/VP8", payload_type=120, clock_rate=90_000)],
        encodings=[RtpEncodingParameters(ssrc=1_111)],
        rtcp=RtcpParameters(cname="someone"),
    )
    with pytest.raises(UnsupportedError):
        ortc.get_producer_rtp_parameters_mapping(given, caps, ssrc=500)
