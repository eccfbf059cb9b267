"""RTP on loopback: parameters, packets and an endpoint for a PlainTransport."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar, cast

import msgspec

from mediaserver.mediasoup import (
    Event,
    PlainTransport,
    Router,
    RtcpFeedback,
    RtcpParameters,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
    TransportListenInfo,
)

LOOPBACK = TransportListenInfo(ip="127.0.0.1")
OPUS = RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000, channels=2)
VP8 = RtpCodecCapability(mime_type="video/VP8", clock_rate=90_000)
MEDIA_CODECS = [OPUS, VP8]
DEADLINE = 10.0
T = TypeVar("T")


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits for something that is only told by looking."""
    end = time.monotonic() + DEADLINE
    for _ in itertools.takewhile(lambda _: not condition(), itertools.count()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {DEADLINE:g} s")
        await asyncio.sleep(0.01)


async def next_value(event: Event[T]) -> T:
    """The next value of an event."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    event.once(future.set_result)
    return await asyncio.wait_for(future, DEADLINE)


def audio_parameters(ssrc: int, *, cname: str | None = None) -> RtpParameters:
    return RtpParameters(
        codecs=[RtpCodecParameters(mime_type="audio/opus", payload_type=111, clock_rate=48_000, channels=2)],
        encodings=[RtpEncodingParameters(ssrc=ssrc)],
        rtcp=RtcpParameters(cname=cname),
    )


def video_parameters(*ssrcs: int, rtx: bool = False, cname: str | None = None) -> RtpParameters:
    """VP8, with as many simulcast encodings as SSRCs; the RTX of each has the next number."""
    feedback = [RtcpFeedback("nack"), RtcpFeedback("nack", "pli"), RtcpFeedback("ccm", "fir")]
    codecs = [
        RtpCodecParameters(mime_type="video/VP8", payload_type=96, clock_rate=90_000, rtcp_feedback=feedback)
    ]
    if rtx:
        codecs.append(
            RtpCodecParameters(
                mime_type="video/rtx", payload_type=97, clock_rate=90_000, parameters={"apt": 96}
            )
        )
    return RtpParameters(
        codecs=codecs,
        header_extensions=[RtpHeaderExtensionParameters(uri="urn:ietf:params:rtp-hdrext:toffset", id=9)],
        encodings=[
            RtpEncodingParameters(
                ssrc=ssrc,
                rtx=RtxParameters(ssrc + 1) if rtx else None,
                scalability_mode="L1T3" if len(ssrcs) > 1 else None,
            )
            for ssrc in ssrcs
        ],
        rtcp=RtcpParameters(cname=cname),
    )


class Packet(msgspec.Struct, frozen=True):
    """An RTP packet without CSRCs (RFC 3550)."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes

    def encode(self) -> bytes:
        head = struct.pack(
            "!BBHII", 0x80, self.payload_type, self.sequence & 0xFFFF, self.timestamp, self.ssrc
        )
        return head + self.payload

    @classmethod
    def decode(cls, data: bytes) -> Packet:
        first, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
        start = 12
        if first & 0x10:
            start += 4 + 4 * int(struct.unpack_from("!HH", data, start)[1])
        return cls(second & 0x7F, sequence, timestamp, ssrc, data[start:])


def vp8(number: int, *, key: bool = True) -> bytes:
    """A VP8 payload (RFC 7741) of one packet: a whole frame, its number in the last bytes."""
    descriptor = bytes([0x90, 0x80, 0x80 | (number >> 8) & 0x7F, number & 0xFF])  # S, X; I; 15-bit picture id
    header = bytes([0x00 if key else 0x01, 0, 0, 0x9D, 0x01, 0x2A, 0x40, 0x01, 0xF0, 0x00])
    return descriptor + header + number.to_bytes(4, "big")


class RtpEndpoint(asyncio.DatagramProtocol):
    """The far end of a PlainTransport: sends RTP, and keeps the RTP and RTCP that it gets."""

    def __init__(self) -> None:
        self.rtp: list[Packet] = []
        self.rtcp: list[bytes] = []
        self.transport: asyncio.DatagramTransport

    @classmethod
    async def open(cls) -> RtpEndpoint:
        loop = asyncio.get_running_loop()
        _, endpoint = await loop.create_datagram_endpoint(cls, local_addr=("127.0.0.1", 0))
        return endpoint

    @property
    def port(self) -> int:
        return int(self.transport.get_extra_info("sockname")[1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if 192 <= data[1] <= 223:
            self.rtcp.append(data)
        else:
            self.rtp.append(Packet.decode(data))

    def send(self, to: PlainTransport, packet: Packet) -> None:
        self.transport.sendto(packet.encode(), (to.tuple.local_address, to.tuple.local_port))

    def key_frame_requests(self) -> int:
        """PLI and FIR among what came, looked for in compound packets too (RFC 4585, RFC 5104)."""
        return sum(_count_feedback(data, {1, 4}) for data in self.rtcp)


def _count_feedback(data: bytes, formats: set[int]) -> int:
    count = position = 0
    while position + 4 <= len(data):
        first, kind, length = struct.unpack_from("!BBH", data, position)
        count += kind == 206 and first & 0x1F in formats
        position += 4 * (length + 1)
    return count


@contextlib.asynccontextmanager
async def rtp_endpoints() -> AsyncIterator[Callable[[], Awaitable[RtpEndpoint]]]:
    """Opens endpoints that close with the block."""
    endpoints: list[RtpEndpoint] = []

    async def open_one() -> RtpEndpoint:
        endpoints.append(await RtpEndpoint.open())
        return endpoints[-1]

    yield open_one
    for endpoint in endpoints:
        endpoint.transport.close()


async def plain_source(router: Router) -> PlainTransport:
    """A transport that takes RTP from wherever it comes."""
    return await router.create_plain_transport(listen_info=LOOPBACK, comedia=True)


async def plain_sink(router: Router, endpoint: RtpEndpoint) -> PlainTransport:
    """A transport that sends RTP to the endpoint."""
    transport = await router.create_plain_transport(listen_info=LOOPBACK)
    await transport.connect(ip="127.0.0.1", port=endpoint.port)
    return transport


async def send_video(
    endpoint: RtpEndpoint, to: PlainTransport, ssrc: int, count: int, *, first: int = 1, gap: float = 0.002
) -> None:
    """Sends VP8 frames of one packet each, all of them key frames, numbered from `first`."""
    for number in range(first, first + count):
        endpoint.send(to, Packet(96, number, number * 3000, ssrc, vp8(number)))
        await asyncio.sleep(gap)


async def send_audio(
    endpoint: RtpEndpoint, to: PlainTransport, ssrc: int, count: int, *, first: int = 1
) -> None:
    """Sends Opus packets of 20 ms, numbered from `first`."""
    for number in range(first, first + count):
        endpoint.send(to, Packet(111, number, number * 960, ssrc, number.to_bytes(4, "big") * 10))
        await asyncio.sleep(0.002)


def numbers(packets: list[Packet], ssrc: int) -> list[int]:
    """The numbers that `send_video` and `send_audio` gave to these packets of a stream."""
    return [int.from_bytes(packet.payload[-4:], "big") for packet in packets if packet.ssrc == ssrc]
