"""ortc on whatever hypothesis makes up."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
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

SUPPORTED = ortc.SUPPORTED_RTP_CAPABILITIES
VIDEO_CODECS = [codec for codec in SUPPORTED.codecs if codec.kind == "video"]

media_codecs = st.lists(
    st.sampled_from([codec for codec in SUPPORTED.codecs if codec.preferred_payload_type is None]),
    min_size=1,
    max_size=12,
    unique_by=lambda codec: (codec.mime_type, codec.clock_rate, codec.channels),
)
numbers = st.integers(-5, 2**33)
texts = st.text(max_size=6)
parameters = st.dictionaries(texts | st.just("apt"), numbers | texts | st.floats(), max_size=2)
feedback = st.lists(st.builds(RtcpFeedback, type=texts, parameter=texts), max_size=2)
mime_types = st.sampled_from(["audio/opus", "VIDEO/vp8", "video/H264", "video/rtx", "video/VP9"]) | texts

any_capabilities = st.builds(
    RtpCapabilities,
    codecs=st.lists(
        st.builds(
            RtpCodecCapability,
            mime_type=mime_types,
            clock_rate=numbers | st.just(90_000),
            preferred_payload_type=st.none() | numbers,
            channels=st.none() | numbers,
            parameters=parameters,
            rtcp_feedback=feedback,
        ),
        max_size=3,
    ),
    header_extensions=st.lists(
        st.builds(
            RtpHeaderExtension, kind=st.sampled_from(["audio", "video"]), uri=texts, preferred_id=numbers
        ),
        max_size=2,
    ),
)
any_parameters = st.builds(
    RtpParameters,
    codecs=st.lists(
        st.builds(
            RtpCodecParameters,
            mime_type=mime_types,
            payload_type=st.integers(-1, 130),
            clock_rate=numbers | st.just(90_000),
            channels=st.none() | numbers,
            parameters=parameters,
            rtcp_feedback=feedback,
        ),
        max_size=3,
    ),
    header_extensions=st.lists(
        st.builds(RtpHeaderExtensionParameters, uri=texts, id=numbers, parameters=parameters), max_size=2
    ),
    encodings=st.lists(
        st.builds(
            RtpEncodingParameters,
            ssrc=st.none() | numbers,
            rtx=st.none() | st.builds(RtxParameters, ssrc=numbers),
            scalability_mode=st.none() | texts,
            max_bitrate=st.none() | numbers,
        ),
        max_size=3,
    ),
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[RtpCapabilities, RtpParameters]:
    """A router, and the parameters of a video producer that one of its codecs fits."""
    video = draw(st.sampled_from(VIDEO_CODECS))
    others = draw(st.lists(st.sampled_from([c for c in VIDEO_CODECS if c is not video]), unique_by=id))
    caps = ortc.generate_router_rtp_capabilities([*others, video])
    codec = next(codec for codec in caps.codecs if codec.mime_type == video.mime_type)
    codecs = [
        RtpCodecParameters(
            mime_type=video.mime_type, payload_type=50, clock_rate=90_000, parameters=codec.parameters
        )
    ]
    if draw(st.booleans()):
        codecs.append(
            RtpCodecParameters(
                mime_type="video/rtx", payload_type=51, clock_rate=90_000, parameters={"apt": 50}
            )
        )
    extensions = draw(st.lists(st.sampled_from(SUPPORTED.header_extensions), unique_by=lambda e: e.uri))
    layers = draw(st.integers(1, 4))
    return caps, RtpParameters(
        codecs=codecs,
        header_extensions=[
            RtpHeaderExtensionParameters(uri=extension.uri, id=extension.preferred_id)
            for extension in extensions
        ],
        encodings=[RtpEncodingParameters(ssrc=1000 + i) for i in range(layers)],
        rtcp=RtcpParameters(cname="name"),
    )


def consumable(params: RtpParameters, caps: RtpCapabilities) -> RtpParameters:
    params = ortc.validate_rtp_parameters(params)
    params, mapping = ortc.get_producer_rtp_parameters_mapping(params, caps, ssrc=500)
    return ortc.get_consumable_rtp_parameters("video", params, caps, mapping)


@given(media_codecs)
def test_payload_types_are_unique_and_each_video_codec_has_its_rtx(codecs: list[RtpCodecCapability]) -> None:
    caps = ortc.generate_router_rtp_capabilities(codecs)
    payload_types = [codec.preferred_payload_type for codec in caps.codecs]
    assert len(set(payload_types)) == len(payload_types)
    rtx = {codec.parameters["apt"] for codec in caps.codecs if codec.mime_type == "video/rtx"}
    videos = {
        codec.preferred_payload_type
        for codec in caps.codecs
        if codec.kind == "video" and codec.mime_type != "video/rtx"
    }
    assert rtx == videos
    assert ortc.validate_rtp_capabilities(caps) is caps


@given(calls(), st.booleans(), st.booleans())
def test_an_endpoint_like_the_router_can_consume_everything(
    call: tuple[RtpCapabilities, RtpParameters], enable_rtx: bool, pipe: bool
) -> None:
    caps, params = call
    offered = consumable(params, caps)
    assert ortc.can_consume(offered, caps)
    result = ortc.get_consumer_rtp_parameters(
        offered, caps, enable_rtx=enable_rtx, pipe=pipe, ssrc=10_000, rtx_ssrc=20_000
    )
    assert [codec.mime_type for codec in result.codecs] == (
        [params.codecs[0].mime_type, "video/rtx"] if enable_rtx else [params.codecs[0].mime_type]
    )
    assert len(result.encodings) == (len(params.encodings) if pipe else 1)
    assert all((encoding.rtx is not None) == enable_rtx for encoding in result.encodings)
    assert result.rtcp.cname == "name"


@given(calls(), st.booleans())
def test_a_second_pipe_carries_what_the_first_does(
    call: tuple[RtpCapabilities, RtpParameters], enable_rtx: bool
) -> None:
    caps, params = call
    first = ortc.get_pipe_consumer_rtp_parameters(
        consumable(params, caps), enable_rtx=enable_rtx, ssrc=10_000, rtx_ssrc=20_000
    )
    second = ortc.get_pipe_consumer_rtp_parameters(
        consumable(first, caps), enable_rtx=enable_rtx, ssrc=30_000, rtx_ssrc=40_000
    )
    assert second.codecs == first.codecs
    assert second.header_extensions == first.header_extensions
    assert second.rtcp == first.rtcp
    assert [replace(e, ssrc=None, rtx=None) for e in second.encodings] == [
        replace(e, ssrc=None, rtx=None) for e in first.encodings
    ]


@given(any_parameters)
def test_any_parameters_are_taken_or_refused_with_our_errors(params: RtpParameters) -> None:
    caps = ortc.generate_router_rtp_capabilities(VIDEO_CODECS)
    with contextlib.suppress(InvalidArgumentError, UnsupportedError):
        offered = consumable(params, caps)
        ortc.can_consume(offered, caps)
        ortc.get_pipe_consumer_rtp_parameters(offered, enable_rtx=True, ssrc=1, rtx_ssrc=100)


@given(any_capabilities)
def test_any_capabilities_are_taken_or_refused_with_our_errors(caps: RtpCapabilities) -> None:
    router = ortc.generate_router_rtp_capabilities(VIDEO_CODECS)
    params = RtpParameters(
        codecs=[RtpCodecParameters(mime_type="video/VP8", payload_type=96, clock_rate=90_000)],
        encodings=[RtpEncodingParameters(ssrc=1)],
    )
    offered = consumable(params, router)
    with contextlib.suppress(InvalidArgumentError, UnsupportedError):
        possible = ortc.can_consume(offered, caps)
        try:
            ortc.get_consumer_rtp_parameters(offered, caps, enable_rtx=True, pipe=False, ssrc=1, rtx_ssrc=2)
        except UnsupportedError:
            assert not possible
        else:
            assert possible


@given(any_capabilities)
def test_any_media_codecs_make_a_router_or_one_of_our_errors(caps: RtpCapabilities) -> None:
    with contextlib.suppress(InvalidArgumentError, UnsupportedError):
        ortc.generate_router_rtp_capabilities(caps.codecs)
