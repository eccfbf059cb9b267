"""ortc on typical calls: browsers' capabilities, simulcast, RTX and pipes."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from mediaserver.mediasoup import (
    InvalidArgumentError,
    RtcpFeedback,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtension,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
    UnsupportedError,
    ortc,
)

MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
ABS_CAPTURE_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
DEPENDENCY_DESCRIPTOR = (
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
)
ORIENTATION = "urn:3gpp:video-orientation"

OPUS = RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000, channels=2)
VP8 = RtpCodecCapability(mime_type="video/VP8", clock_rate=90_000)
H264 = RtpCodecCapability(
    mime_type="video/H264",
    clock_rate=90_000,
    parameters={"level-asymmetry-allowed": 1, "packetization-mode": 1, "profile-level-id": "4d0032"},
)

VIDEO = RtpParameters(
    codecs=[
        RtpCodecParameters(
            mime_type="video/H264",
            payload_type=111,
            clock_rate=90_000,
            parameters={"packetization-mode": 1, "profile-level-id": "4d0032", "foo": 1234},
            rtcp_feedback=[RtcpFeedback("nack"), RtcpFeedback("nack", "pli"), RtcpFeedback("goog-remb")],
        ),
        RtpCodecParameters(
            mime_type="video/rtx", payload_type=112, clock_rate=90_000, parameters={"apt": 111}
        ),
    ],
    header_extensions=[
        RtpHeaderExtensionParameters(uri=MID, id=1),
        RtpHeaderExtensionParameters(uri=ORIENTATION, id=2),
    ],
    encodings=[
        RtpEncodingParameters(ssrc=11111111, rtx=RtxParameters(11111112), scalability_mode="L1T3"),
        RtpEncodingParameters(ssrc=21111111, rtx=RtxParameters(21111112), scalability_mode="L1T3"),
        RtpEncodingParameters(rid="high", max_bitrate=900_000, scalability_mode="L1T3"),
    ],
    rtcp=RtcpParameters(cname="qwerty1234"),
    msid="stream track",
)


def router(*codecs: RtpCodecCapability) -> RtpCapabilities:
    return ortc.generate_router_rtp_capabilities(list(codecs))


def consumable(params: RtpParameters, caps: RtpCapabilities, kind: str = "video") -> RtpParameters:
    params, mapping = ortc.get_producer_rtp_parameters_mapping(params, caps, ssrc=100)
    return ortc.get_consumable_rtp_parameters("audio" if kind == "audio" else "video", params, caps, mapping)


def test_generate_router_rtp_capabilities_succeeds() -> None:
    caps = router(
        OPUS,
        replace(VP8, preferred_payload_type=125),
        H264,
        RtpCodecCapability(mime_type="audio/pcmu", clock_rate=8_000),
    )
    assert [
        (codec.mime_type, codec.preferred_payload_type, codec.parameters.get("apt")) for codec in caps.codecs
    ] == [
        ("audio/opus", 100, None),
        ("video/VP8", 125, None),
        ("video/rtx", 101, 125),
        ("video/H264", 102, None),
        ("video/rtx", 103, 102),
        ("audio/PCMU", 0, None),
    ]
    assert caps.codecs[3].parameters == H264.parameters
    assert caps.codecs[0].kind == "audio"
    assert caps.codecs[2].rtcp_feedback == []
    assert caps.header_extensions == ortc.SUPPORTED_RTP_CAPABILITIES.header_extensions


@pytest.mark.parametrize(
    "codec",
    [
        RtpCodecCapability(mime_type="audio/chicken", clock_rate=8_000),
        RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000),  # one channel
        RtpCodecCapability(mime_type="video/VP8", clock_rate=80_000),
    ],
)
def test_generate_router_rtp_capabilities_with_unsupported_codecs(codec: RtpCodecCapability) -> None:
    with pytest.raises(UnsupportedError, match=codec.mime_type):
        router(codec)


def test_generate_router_rtp_capabilities_with_the_same_payload_type_twice() -> None:
    with pytest.raises(InvalidArgumentError, match=r"mediaCodecs\[1\] would use payload type 100 again"):
        router(replace(OPUS, preferred_payload_type=100), replace(VP8, preferred_payload_type=100))


def test_generate_router_rtp_capabilities_with_too_many_codecs() -> None:
    with pytest.raises(InvalidArgumentError, match="more media codecs than"):
        router(*[VP8] * 17)


def test_producer_mapping_and_consumable_parameters() -> None:
    caps = router(OPUS, H264)
    params, mapping = ortc.get_producer_rtp_parameters_mapping(VIDEO, caps, ssrc=100)
    assert [(c.payload_type, c.mapped_payload_type) for c in mapping.codecs] == [(111, 101), (112, 102)]
    assert [(e.ssrc, e.rid, e.mapped_ssrc) for e in mapping.encodings] == [
        (11111111, None, 100),
        (21111111, None, 101),
        (None, "high", 102),
    ]
    result = ortc.get_consumable_rtp_parameters("video", params, caps, mapping)
    assert [(c.mime_type, c.payload_type) for c in result.codecs] == [("video/H264", 101), ("video/rtx", 102)]
    assert result.codecs[0].parameters == VIDEO.codecs[0].parameters
    assert result.codecs[0].rtcp_feedback == caps.codecs[1].rtcp_feedback
    assert result.codecs[1].parameters == {"apt": 101}
    assert [encoding.ssrc for encoding in result.encodings] == [100, 101, 102]
    assert all(encoding.rid is None and encoding.rtx is None for encoding in result.encodings)
    assert result.encodings[2].max_bitrate == 900_000
    assert (result.rtcp, result.msid) == (RtcpParameters(cname="qwerty1234"), "stream track")
    # Only what mediasoup sends; abs-capture-time only if the producer has it.
    uris = [extension.uri for extension in result.header_extensions]
    assert DEPENDENCY_DESCRIPTOR not in uris
    assert ABS_CAPTURE_TIME not in uris
    capturing = replace(VIDEO, header_extensions=[RtpHeaderExtensionParameters(uri=ABS_CAPTURE_TIME, id=9)])
    assert ABS_CAPTURE_TIME in [extension.uri for extension in consumable(capturing, caps).header_extensions]


def test_the_h264_profile_of_the_producer_becomes_the_answered_one() -> None:
    caps = router(replace(H264, parameters={"packetization-mode": 1, "profile-level-id": "42e01f"}))
    codec = replace(VIDEO.codecs[0], parameters={"packetization-mode": 1, "profile-level-id": "42e034"})
    params, _ = ortc.get_producer_rtp_parameters_mapping(replace(VIDEO, codecs=[codec]), caps, ssrc=1)
    assert params.codecs[0].parameters["profile-level-id"] == "42e01f"


def test_producer_mapping_with_incompatible_params() -> None:
    with pytest.raises(UnsupportedError, match="video/H264"):
        ortc.get_producer_rtp_parameters_mapping(VIDEO, router(OPUS, VP8), ssrc=1)
    other_mode = replace(H264, parameters={**H264.parameters, "packetization-mode": 0})
    with pytest.raises(UnsupportedError):
        ortc.get_producer_rtp_parameters_mapping(VIDEO, router(other_mode), ssrc=1)
    orphan = replace(VIDEO, codecs=[replace(VIDEO.codecs[1], parameters={"apt": 99})])
    with pytest.raises(InvalidArgumentError, match="99"):
        ortc.get_producer_rtp_parameters_mapping(orphan, router(H264), ssrc=1)


def endpoint(caps: RtpCapabilities, *uris: str, rtx: bool = True) -> RtpCapabilities:
    """What a browser that knows all the router's codecs says it can receive."""
    return RtpCapabilities(
        codecs=[codec for codec in caps.codecs if rtx or codec.mime_type != "video/rtx"],
        header_extensions=[extension for extension in caps.header_extensions if extension.uri in uris],
    )


def test_consumer_parameters_of_simulcast_have_one_encoding_with_spatial_layers() -> None:
    caps = router(OPUS, H264)
    result = ortc.get_consumer_rtp_parameters(
        consumable(VIDEO, caps),
        endpoint(caps, MID, ABS_SEND_TIME, TRANSPORT_CC),
        enable_rtx=True,
        pipe=False,
        ssrc=5000,
        rtx_ssrc=9000,
    )
    assert result.encodings == [
        RtpEncodingParameters(
            ssrc=5000, rtx=RtxParameters(5001), scalability_mode="L3T3", max_bitrate=900_000
        )
    ]
    assert [codec.mime_type for codec in result.codecs] == ["video/H264", "video/rtx"]
    assert RtcpFeedback("goog-remb") not in result.codecs[0].rtcp_feedback
    assert RtcpFeedback("transport-cc") in result.codecs[0].rtcp_feedback
    assert {extension.uri for extension in result.header_extensions} == {MID, ABS_SEND_TIME, TRANSPORT_CC}


@pytest.mark.parametrize(
    ("uris", "kept"),
    [((ABS_SEND_TIME, TRANSPORT_CC), "transport-cc"), ((ABS_SEND_TIME,), "goog-remb"), ((MID,), None)],
)
def test_consumer_feedback_follows_the_header_extensions(uris: tuple[str, ...], kept: str | None) -> None:
    caps = router(H264)
    result = ortc.get_consumer_rtp_parameters(
        consumable(VIDEO, caps), endpoint(caps, *uris), enable_rtx=True, pipe=False, ssrc=1, rtx_ssrc=2
    )
    types = {entry.type for entry in result.codecs[0].rtcp_feedback}
    assert types & {"transport-cc", "goog-remb"} == ({kept} if kept else set())


def test_consumer_without_rtx_has_no_generic_nack() -> None:
    caps = router(H264)
    for options in ({"enable_rtx": False}, {"enable_rtx": True, "rtx": False}):
        result = ortc.get_consumer_rtp_parameters(
            consumable(VIDEO, caps),
            endpoint(caps, rtx=options.get("rtx", True)),
            enable_rtx=options["enable_rtx"],
            pipe=False,
            ssrc=1,
            rtx_ssrc=2,
        )
        assert [codec.mime_type for codec in result.codecs] == ["video/H264"]
        assert result.encodings[0].rtx is None
        assert (RtcpFeedback("nack") in result.codecs[0].rtcp_feedback) == options["enable_rtx"]
        assert RtcpFeedback("nack", "pli") in result.codecs[0].rtcp_feedback


def test_can_consume() -> None:
    caps = router(OPUS, H264)
    video = consumable(VIDEO, caps)
    assert ortc.can_consume(video, endpoint(caps))
    assert not ortc.can_consume(video, RtpCapabilities())
    assert not ortc.can_consume(video, RtpCapabilities(codecs=[caps.codecs[0]]))
    assert not ortc.can_consume(video, RtpCapabilities(codecs=[caps.codecs[2]]))  # RTX alone
    with pytest.raises(UnsupportedError, match="video/H264"):
        ortc.get_consumer_rtp_parameters(
            video, RtpCapabilities(), enable_rtx=True, pipe=False, ssrc=1, rtx_ssrc=2
        )
    with pytest.raises(InvalidArgumentError):
        ortc.can_consume(video, RtpCapabilities(codecs=[replace(OPUS, mime_type="nothing")]))


@pytest.mark.parametrize("rtx", [False, True])
def test_pipe_consumer_parameters(rtx: bool) -> None:
    caps = router(OPUS, H264)
    params = consumable(VIDEO, caps)
    result = ortc.get_pipe_consumer_rtp_parameters(params, enable_rtx=rtx, ssrc=7000, rtx_ssrc=8000)
    assert [codec.mime_type for codec in result.codecs] == ["video/H264", "video/rtx"][: 1 + rtx]
    expected = [RtcpFeedback("nack", "pli"), RtcpFeedback("ccm", "fir")]
    assert result.codecs[0].rtcp_feedback == ([RtcpFeedback("nack")] if rtx else []) + expected
    assert [encoding.ssrc for encoding in result.encodings] == [7000, 7001, 7002]
    assert [encoding.rtx.ssrc if encoding.rtx else None for encoding in result.encodings] == (
        [8000, 8001, 8002] if rtx else [None] * 3
    )
    assert [encoding.scalability_mode for encoding in result.encodings] == ["L1T3"] * 3
    uris = [extension.uri for extension in result.header_extensions]
    assert not {MID, ABS_SEND_TIME, TRANSPORT_CC} & set(uris)
    assert DEPENDENCY_DESCRIPTOR in uris
    assert ORIENTATION in uris
    assert [e.id for e in result.header_extensions] == sorted(e.id for e in result.header_extensions)
    assert result.rtcp.cname == "qwerty1234"
    assert result.mid is None
    # The other end's router takes them as they are.
    ortc.get_producer_rtp_parameters_mapping(ortc.validate_rtp_parameters(result), caps, ssrc=1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"codecs": [replace(VIDEO.codecs[0], mime_type="video")]}, r"codecs\[0\].mimeType"),
        ({"codecs": [replace(VIDEO.codecs[0], payload_type="100")]}, r"codecs\[0\].payloadType"),
        ({"codecs": [replace(VIDEO.codecs[0], clock_rate=None)]}, r"codecs\[0\].clockRate"),
        ({"codecs": [replace(VIDEO.codecs[0], parameters={"a": None})]}, r"codecs\[0\].parameters"),
        ({"codecs": [replace(VIDEO.codecs[1], parameters={"apt": "1"})]}, "apt"),
        ({"codecs": [replace(VIDEO.codecs[0], rtcp_feedback=[RtcpFeedback("")])]}, "rtcpFeedback"),
        ({"header_extensions": [RtpHeaderExtensionParameters(uri="", id=1)]}, r"headerExtensions\[0\].uri"),
        ({"header_extensions": [RtpHeaderExtensionParameters(uri="x", id="1")]}, r"headerExtensions\[0\].id"),
        ({"encodings": [RtpEncodingParameters(ssrc="1")]}, r"encodings\[0\].ssrc"),
        ({"encodings": [RtpEncodingParameters(rtx=RtxParameters(ssrc="1"))]}, r"encodings\[0\].rtx.ssrc"),
    ],
)
def test_invalid_parameters_name_the_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        ortc.validate_rtp_parameters(replace(VIDEO, **changes))


@pytest.mark.parametrize(
    ("caps", "field"),
    [
        (RtpCapabilities(codecs=[replace(OPUS, mime_type="opus")]), r"codecs\[0\].mimeType"),
        (RtpCapabilities(codecs=[replace(OPUS, channels="2")]), r"codecs\[0\].channels"),
        (RtpCapabilities(codecs=[replace(OPUS, preferred_payload_type="100")]), "preferredPayloadType"),
        (
            RtpCapabilities(header_extensions=[RtpHeaderExtension(kind="video", uri="", preferred_id=1)]),
            r"headerExtensions\[0\].uri",
        ),
    ],
)
def test_invalid_capabilities_name_the_field(caps: RtpCapabilities, field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        ortc.validate_rtp_capabilities(caps)


def test_validation_fills_in_kind_and_channels_and_copies_nothing_else() -> None:
    codec = RtpCodecCapability(mime_type="Audio/PCMU", clock_rate=8_000)
    assert ortc.validate_media_codec(codec) == replace(codec, kind="audio", channels=1)
    complete = replace(codec, kind="audio", channels=1)
    assert ortc.validate_media_codec(complete) is complete
    odd = replace(VP8, channels=2, kind="audio")
    assert ortc.validate_media_codec(odd) == replace(VP8, kind="video")
    caps = RtpCapabilities(codecs=[complete])
    assert ortc.validate_rtp_capabilities(caps) is caps


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("L1T3", (1, 3, False)),
        ("L3T2_KEY", (3, 2, True)),
        ("S2T3", (2, 3, False)),
        ("L20T3", (20, 3, False)),
        ("foo", (1, 1, False)),
        ("", (1, 1, False)),
        (None, (1, 1, False)),
        ("L0T3", (1, 1, False)),
        ("S200T3", (1, 1, False)),
    ],
)
def test_scalability_modes(text: str | None, mode: tuple[int, int, bool]) -> None:
    assert ortc.parse_scalability_mode(text) == ortc.ScalabilityMode(*mode)


def test_parameters_convert_to_and_from_mediasoup_clients_json() -> None:
    data = {
        "mid": "0",
        "codecs": [
            {
                "mimeType": "video/VP8",
                "payloadType": 96,
                "clockRate": 90000,
                "parameters": {"x-google-start-bitrate": 1000},
                "rtcpFeedback": [{"type": "nack", "parameter": "pli"}],
            }
        ],
        "headerExtensions": [{"uri": MID, "id": 4}],
        "encodings": [{"ssrc": 1, "rtx": {"ssrc": 2}, "maxBitrate": 5, "unknown": True}],
        "rtcp": {"cname": "abc", "reducedSize": True, "mux": True},
    }
    params = msgspec.convert(data, RtpParameters)
    assert params.encodings[0].max_bitrate == 5
    assert params.rtcp.cname == "abc"
    assert msgspec.to_builtins(params) == {
        **data,
        "encodings": [{"ssrc": 1, "rtx": {"ssrc": 2}, "maxBitrate": 5}],
        "rtcp": {"cname": "abc"},
    }
