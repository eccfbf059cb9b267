"""What media costs a worker: CPU time and memory for each consumer, and for each producer that is piped.

One producer's packets come in by UDP; each consumer has a transport of its own that sends SRTP to a socket
that nobody reads. Pipes join two workers with SRTP and RTX. Figures are the workers' CPU times (getrusage)
over a window, less those of the same worker without consumers or pipes, so other load of the machine hardly
counts. Not in it: DTLS handshakes, ICE, bandwidth estimation and retransmission, which real participants add.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import uvloop

from mediaserver.mediasoup import (
    MediaKind,
    PipeTransport,
    Producer,
    Router,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
    SrtpParameters,
    TransportListenInfo,
    Worker,
    create_worker,
)

HOST: Final = "127.0.0.1"
LOOPBACK: Final = TransportListenInfo(ip=HOST)
CODECS: Final = [
    RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000, channels=2),
    RtpCodecCapability(mime_type="video/VP8", clock_rate=90_000),
]
_VP8_KEY_FRAME: Final = bytes([0x10, 0x00, 0, 0, 0x9D, 0x01, 0x2A, 0x40, 0x01, 0xF0, 0x00])


@dataclass(frozen=True)
class Stream:
    """One producer's packets: `rate` a second with so many bytes of payload."""

    kind: MediaKind
    rate: float
    payload: int

    @property
    def kilobits(self) -> float:
        """A second, with RTP headers."""
        return self.rate * (self.payload + 12) * 8 / 1000


STREAMS: Final = {
    "audio, Opus": Stream("audio", 50, 80),
    "video, 0.5 Mbit/s": Stream("video", 60, 1030),
    "video, 1.5 Mbit/s": Stream("video", 180, 1030),
}


@dataclass(frozen=True)
class ConsumerCost:
    """For each consumer of a stream. `core_percent` is of one core."""

    core_percent: float
    core_percent_per_mbit: float
    memory_kib: float


@dataclass(frozen=True)
class PipeCost:
    """For each producer that crosses a pipe."""

    sending_core_percent: float
    receiving_core_percent: float
    kilobits: float
    """On the wire, with IP and UDP headers."""
    overhead: float
    """Bytes on the wire by bytes of the producer's RTP."""


def parameters(stream: Stream, ssrc: int) -> RtpParameters:
    codec = (
        RtpCodecParameters(mime_type="audio/opus", payload_type=111, clock_rate=48_000, channels=2)
        if stream.kind == "audio"
        else RtpCodecParameters(mime_type="video/VP8", payload_type=96, clock_rate=90_000)
    )
    return RtpParameters(codecs=[codec], encodings=[RtpEncodingParameters(ssrc=ssrc)])


@asynccontextmanager
async def sending(stream: Stream, ports: dict[int, int]) -> AsyncIterator[None]:
    """Sends the stream to each port, with the SSRC that belongs to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        task = asyncio.create_task(_send(out, stream, ports))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _send(out: socket.socket, stream: Stream, ports: dict[int, int]) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    head = _VP8_KEY_FRAME if stream.kind == "video" else b""
    payload = head + os.urandom(stream.payload - len(head))
    kind, clock = (111, 48_000) if stream.kind == "audio" else (0x80 | 96, 90_000)
    number = 0
    while True:
        while number < (loop.time() - begin) * stream.rate:
            number += 1
            stamp = int(number / stream.rate * clock) & 0xFFFFFFFF
            for ssrc, port in ports.items():
                packet = struct.pack("!BBHII", 0x80, kind, number & 0xFFFF, stamp, ssrc) + payload
                out.sendto(packet, (HOST, port))
        await asyncio.sleep(0.005)


async def produce(router: Router, stream: Stream, ssrc: int) -> tuple[Producer, int]:
    """A producer, and the port that its packets go to."""
    transport = await router.create_plain_transport(listen_info=LOOPBACK, comedia=True)
    producer = await transport.produce(kind=stream.kind, rtp_parameters=parameters(stream, ssrc))
    return producer, transport.tuple.local_port


def memory(worker: Worker) -> int:
    """Resident, KiB."""
    for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError(f"no VmRSS of {worker.pid}")


async def busy(seconds: float, *workers: Worker) -> list[float]:
    """Percent of one core that each worker uses."""
    loop = asyncio.get_running_loop()
    before = [await worker.get_resource_usage() for worker in workers]
    begin = loop.time()
    await asyncio.sleep(seconds)
    after = [await worker.get_resource_usage() for worker in workers]
    window = (loop.time() - begin) * 1000
    return [
        100 * (late.ru_utime + late.ru_stime - early.ru_utime - early.ru_stime) / window
        for early, late in zip(before, after, strict=True)
    ]


async def consumers(stream: Stream, count: int, seconds: float) -> ConsumerCost:
    async with await create_worker() as worker:
        router = await worker.create_router(media_codecs=CODECS)
        producer, port = await produce(router, stream, 1111)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
            sink.bind((HOST, 0))
            async with sending(stream, {1111: port}):
                (alone,) = await busy(seconds, worker)
                empty = memory(worker)
                for _ in range(count):
                    await _consume(router, producer, sink.getsockname()[1])
                await asyncio.sleep(1)
                (loaded,) = await busy(seconds, worker)
                full = memory(worker)
    each = (loaded - alone) / count
    return ConsumerCost(each, each / stream.kilobits * 1000, (full - empty) / count)


async def _consume(router: Router, producer: Producer, port: int) -> None:
    transport = await router.create_plain_transport(
        listen_info=LOOPBACK, enable_srtp=True, srtp_crypto_suite="AEAD_AES_128_GCM"
    )
    key = SrtpParameters(
        crypto_suite="AEAD_AES_128_GCM", key_base64=base64.b64encode(os.urandom(28)).decode()
    )
    await transport.connect(ip=HOST, port=port, srtp_parameters=key)
    await transport.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)


async def pipes(stream: Stream, count: int, seconds: float) -> PipeCost:
    async with await create_worker() as one, await create_worker() as two:
        near = await one.create_router(media_codecs=CODECS)
        far = await two.create_router(media_codecs=CODECS)
        made = [await produce(near, stream, 1000 + number) for number in range(count)]
        ports = {1000 + number: port for number, (_, port) in enumerate(made)}
        async with sending(stream, ports):
            alone = (await busy(seconds, one, two))[0]
            here, there = await _pipe(near, far)
            for producer, _ in made:
                consumer = await here.consume(producer_id=producer.id)
                await there.produce(
                    id=producer.id, kind=consumer.kind, rtp_parameters=consumer.rtp_parameters
                )
            await asyncio.sleep(1)
            before = await here.get_stats()
            sent, received = await busy(seconds, one, two)
            after = await here.get_stats()
    packets = stream.rate * count
    window = (after.timestamp - before.timestamp) / 1000
    wire = (after.bytes_sent - before.bytes_sent) / window + 28 * packets
    rtp = stream.kilobits * 1000 / 8 * count
    return PipeCost((sent - alone) / count, received / count, wire * 8 / 1000 / count, wire / rtp)


async def _pipe(near: Router, far: Router) -> tuple[PipeTransport, PipeTransport]:
    here, there = [
        await router.create_pipe_transport(listen_info=LOOPBACK, enable_srtp=True, enable_rtx=True)
        for router in (near, far)
    ]
    for one, other in ((here, there), (there, here)):
        await one.connect(ip=HOST, port=other.tuple.local_port, srtp_parameters=other.srtp_parameters)
    return here, there


async def run(count: int, piped: int, seconds: float) -> dict[str, object]:
    async with await create_worker() as worker:
        idle = memory(worker)
    found: dict[str, object] = {"idle worker, KiB": idle}
    for name, stream in STREAMS.items():
        found[name] = {
            "kilobits": stream.kilobits,
            "consumer": asdict(await consumers(stream, count, seconds)),
            "pipe": asdict(await pipes(stream, piped, seconds)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--consumers", type=int, default=200, help="of one producer")
    parser.add_argument("--piped", type=int, default=20, help="producers that cross the pipe")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each window")
    arguments = parser.parse_args()
    found = uvloop.run(run(arguments.consumers, arguments.piped, arguments.seconds))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
