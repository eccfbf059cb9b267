"""RTP parameters to and from the worker's tables."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mediaserver.mediasoup import (
    InvalidArgumentError,
    RtcpFeedback,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
    UnsupportedError,
)
from mediaserver.mediasoup._fbs import rtp_parameters as fbs
from mediaserver.mediasoup.convert_rtp import rtp_parameters_from_fbs, rtp_parameters_to_fbs

CODEC = RtpCodecParameters(
    mime_type="video/VP8",
    payload_type=101,
    clock_rate=90_000,
    parameters={"x-google-start-bitrate": 1000, "ratio": 0.5, "name": "é"},
    rtcp_feedback=[RtcpFeedback("nack"), RtcpFeedback("nack", "pli")],
)
RTX = RtpCodecParameters(mime_type="video/rtx", payload_type=102, clock_rate=90_000, parameters={"apt": 101})
MID = RtpHeaderExtensionParameters(uri="urn:ietf:params:rtp-hdrext:sdes:mid", id=1)
ENCODING = RtpEncodingParameters(ssrc=1111, rtx=RtxParameters(ssrc=2222), max_bitrate=5_000_000_000)
PARAMS = RtpParameters(mid="7", codecs=[CODEC, RTX], header_extensions=[MID], encodings=[ENCODING])


@pytest.mark.parametrize("before", [b"", b"x", b"x" * 7])
def test_parameters_are_the_same_wherever_they_are_written_and_however_often(before: bytes) -> None:
    """What was packed for an earlier message stands as it is in a later one, at another place."""
    for mid in ("7", "800"):
        params = replace(PARAMS, mid=mid)
        out = bytearray(before)
        at = rtp_parameters_to_fbs(params).write(out)
        table = fbs.RtpParameters.read(bytes(out), at)
        assert rtp_parameters_from_fbs(table) == params


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"codecs": [replace(CODEC, payload_type=256)]}, "codec video/VP8: payloadType is 256"),
        ({"codecs": [replace(CODEC, clock_rate=-1)]}, "codec video/VP8: clockRate is -1"),
        ({"codecs": [replace(CODEC, channels=300)]}, "channels is 300"),
        ({"codecs": [replace(CODEC, parameters={"apt": 2**31})]}, "apt is 2147483648"),
        ({"header_extensions": [replace(MID, id=256)]}, "mid: id is 256"),
        ({"encodings": [RtpEncodingParameters(ssrc=2**32)]}, r"encodings\[0\].ssrc is 4294967296"),
        ({"encodings": [ENCODING, RtpEncodingParameters(max_bitrate=-1)]}, r"encodings\[1\].maxBitrate"),
        ({"encodings": [RtpEncodingParameters(codec_payload_type=-1)]}, "codecPayloadType is -1"),
        ({"encodings": [RtpEncodingParameters(rtx=RtxParameters(ssrc=-1))]}, "rtx.ssrc is -1"),
    ],
)
def test_a_number_that_does_not_fit_names_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        rtp_parameters_to_fbs(replace(PARAMS, **changes))


def test_an_unknown_header_extension_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="urn:nobody"):
        rtp_parameters_to_fbs(replace(PARAMS, header_extensions=[replace(MID, uri="urn:nobody")]))
