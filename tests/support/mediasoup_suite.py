"""What the tests in integration/mediasoup/suite share: how they name mediasoup's cases, and their values."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

import pytest

from mediaserver.mediasoup import (
    ClosedError,
    CloseReason,
    Event,
    RtcpFeedback,
    RtpCapabilities,
    RtpCodecCapability,
    RtpHeaderExtension,
    SrtpParameters,
    TransportListenInfo,
)
from mediaserver.mediasoup.channel import Event as WorkerEvent
from mediaserver.mediasoup.flatbuffer import Table
from mediaserver.mediasoup.messages import encode_notification
from mediaserver.mediasoup.node import Node

F = TypeVar("F", bound=Callable[..., object])
T = TypeVar("T")

DEADLINE = 10.0
LOOPBACK = "127.0.0.1"
LISTEN = TransportListenInfo(ip=LOOPBACK)
LISTEN_TCP = TransportListenInfo(ip=LOOPBACK, protocol="tcp")
UNBINDABLE = "8.8.8.8"

URI_MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
URI_AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
URI_ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
URI_TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
URI_ORIENTATION = "urn:3gpp:video-orientation"
URI_OFFSET = "urn:ietf:params:rtp-hdrext:toffset"
URI_CAPTURE_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time"
URI_PLAYOUT_DELAY = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay"
URI_PACKET_ID = "urn:mediasoup:params:rtp-hdrext:packet-id"
URI_DEPENDENCY = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"

NACK = RtcpFeedback("nack")
PLI = RtcpFeedback("nack", "pli")
FIR = RtcpFeedback("ccm", "fir")
REMB = RtcpFeedback("goog-remb")

H264_PARAMETERS: dict[str, int | float | str] = {"packetization-mode": 1, "profile-level-id": "4d0032"}
OPUS = RtpCodecCapability(
    mime_type="audio/opus", clock_rate=48_000, channels=2, parameters={"useinbandfec": 1, "minptime": 10}
)
VP8 = RtpCodecCapability(mime_type="video/VP8", clock_rate=90_000)
VP9 = RtpCodecCapability(mime_type="video/VP9", clock_rate=90_000)
H264 = RtpCodecCapability(
    mime_type="video/H264",
    clock_rate=90_000,
    parameters={"level-asymmetry-allowed": 1, **H264_PARAMETERS},
)
MEDIA_CODECS = [OPUS, VP8, H264]

GCM_KEY = SrtpParameters(
    crypto_suite="AEAD_AES_256_GCM",
    key_base64="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWI=",
)
SHA1_KEY = SrtpParameters(
    crypto_suite="AES_CM_128_HMAC_SHA1_80", key_base64="MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNk"
)


def case(file: str, name: str) -> Callable[[F], F]:
    """Says which case of mediasoup's suite a test is: `file` without .js, and the name given to test().

    tools/compare-suite reads these from the source, so both must be literals.
    """

    def mark(function: F) -> F:
        function.mediasoup_case = (file, name)  # type: ignore[attr-defined]
        return function

    return mark


def extension(kind: Literal["audio", "video"], uri: str, number: int) -> RtpHeaderExtension:
    return RtpHeaderExtension(kind=kind, uri=uri, preferred_id=number)


DEVICE = RtpCapabilities(
    codecs=[
        RtpCodecCapability(
            mime_type="audio/opus",
            preferred_payload_type=100,
            clock_rate=48_000,
            channels=2,
            rtcp_feedback=[NACK],
        ),
        RtpCodecCapability(
            mime_type="video/H264",
            preferred_payload_type=101,
            clock_rate=90_000,
            parameters={"level-asymmetry-allowed": 1, **H264_PARAMETERS},
            rtcp_feedback=[NACK, PLI, FIR, REMB],
        ),
        RtpCodecCapability(
            mime_type="video/rtx", preferred_payload_type=102, clock_rate=90_000, parameters={"apt": 101}
        ),
    ],
    header_extensions=[
        extension("audio", URI_MID, 1),
        extension("video", URI_MID, 1),
        extension("audio", URI_ABS_SEND_TIME, 4),
        extension("video", URI_ABS_SEND_TIME, 4),
        extension("audio", URI_AUDIO_LEVEL, 6),
        extension("video", URI_ORIENTATION, 8),
        extension("video", URI_OFFSET, 9),
    ],
)
"""An endpoint that takes Opus, and H.264 with RTX."""


def seen(event: Event[T]) -> list[T]:
    """The values of an event from now on."""
    values: list[T] = []
    event.subscribe(values.append)
    return values


def soon(event: Event[T]) -> Awaitable[T]:
    """The next value of an event, listened for from this call on."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    event.once(future.set_result)
    return asyncio.wait_for(future, DEADLINE)


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that is only told by looking."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {DEADLINE:g} s"
        await asyncio.sleep(0.005)


async def refused(reason: CloseReason, *calls: Awaitable[object]) -> None:
    """Every call fails at once, since its object is closed for this reason."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        assert isinstance(result, ClosedError), f"{result!r} is no ClosedError"
        assert result.reason is reason


async def rejected(error: type[Exception], *calls: Awaitable[object]) -> None:
    """Every call fails with this kind of error."""
    for call in calls:
        with pytest.raises(error):
            await call


def free_port(kind: Literal["udp", "tcp"] = "udp", ip: str = LOOPBACK) -> int:
    """A port that nobody has just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as probe:
        probe.bind((ip, 0))
        return int(probe.getsockname()[1])


async def worker_says(node: Node, event: WorkerEvent, body: Table) -> None:
    """Lets a notification about an object come in through the channel, as bytes."""
    node._channel._on_message(encode_notification(event, node._id, body)[4:])
    for _ in range(2):  # notifications are handed out in the next turn of the loop
        await asyncio.sleep(0)


def counters(stats: Any) -> dict[str, int]:
    """A transport's counters and rates of bytes."""
    return {
        name: getattr(stats, name)
        for name in stats.__struct_fields__
        if name.endswith(("bytes_received", "bytes_sent", "recv_bitrate", "send_bitrate"))
    }
