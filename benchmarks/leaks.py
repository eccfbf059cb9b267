"""Whether objects leave anything behind: every kind is created and closed many times.

Before and after, with nothing open, are compared: resident memory, Python objects, file descriptors and tasks
of this process, what its channel to the worker still remembers, and memory and descriptors of the worker.
Memory is in KiB. A tenth of the cycles comes first, unmeasured, so that caches and arenas have their size.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.figures import Usage
from mediaserver.mediasoup import (
    Consumer,
    DirectTransport,
    Producer,
    Router,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
    TransportListenInfo,
    WebRtcServer,
    WebRtcTransport,
    Worker,
    create_worker,
)

LOOPBACK: Final = TransportListenInfo(ip="127.0.0.1")
OPUS: Final = RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000, channels=2)
GROWTH_LIMIT: Final = 1024
"""KiB by which memory may be larger afterwards: allocators are not exact, and 10,000 objects are far more."""
OBJECTS_LIMIT: Final = 200
"""Python objects, likewise; one lost object in a hundred cycles of 10,000 is as much."""


@dataclass(frozen=True)
class Held:
    """What there is at one moment, with nothing open."""

    memory: int
    objects: int
    descriptors: int
    tasks: int
    remembered: int
    """Requests that wait and handlers that listen in the channel, and children of the objects that stay."""
    worker_memory: int
    worker_descriptors: int

    def minus(self, other: Held) -> dict[str, int]:
        return {name: value - getattr(other, name) for name, value in asdict(self).items()}


class Stage:
    """The objects that stay open while others come and go on them."""

    worker: Worker
    router: Router
    server: WebRtcServer
    transport: WebRtcTransport
    direct: DirectTransport
    producer: Producer

    async def open(self, worker: Worker) -> None:
        self.worker = worker
        self.router = await worker.create_router(media_codecs=[OPUS])
        self.server = await worker.create_webrtc_server(listen_infos=[LOOPBACK])
        self.transport = await self.router.create_webrtc_transport(webrtc_server=self.server)
        self.direct = await self.router.create_direct_transport()
        self.producer = await self.produce(1)
        self.data_producer = await self.direct.produce_data()

    async def produce(self, ssrc: int = 2) -> Producer:
        codec = RtpCodecParameters(mime_type="audio/opus", payload_type=111, clock_rate=48_000, channels=2)
        params = RtpParameters(codecs=[codec], encodings=[RtpEncodingParameters(ssrc=ssrc)])
        return await self.transport.produce(kind="audio", rtp_parameters=params)

    async def consume(self) -> Consumer:
        return await self.transport.consume(
            producer_id=self.producer.id, rtp_capabilities=self.router.rtp_capabilities
        )

    def kinds(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        """How to create one of each."""
        router, worker = self.router, self.worker
        return {
            "Consumer": self.consume,
            "Producer": self.produce,
            "DataProducer": self.direct.produce_data,
            "DataConsumer": lambda: self.direct.consume_data(data_producer_id=self.data_producer.id),
            "WebRtcTransport": lambda: router.create_webrtc_transport(webrtc_server=self.server),
            "PlainTransport": lambda: router.create_plain_transport(listen_info=LOOPBACK),
            "PipeTransport": lambda: router.create_pipe_transport(listen_info=LOOPBACK),
            "DirectTransport": router.create_direct_transport,
            "AudioLevelObserver": router.create_audio_level_observer,
            "ActiveSpeakerObserver": router.create_active_speaker_observer,
            "Router": lambda: worker.create_router(media_codecs=[OPUS]),
            "WebRtcServer": lambda: worker.create_webrtc_server(listen_infos=[LOOPBACK]),
        }

    async def held(self) -> Held:
        """Once the worker has answered everything."""
        await self.worker.dump()
        for _ in range(3):  # callbacks that are due
            await asyncio.sleep(0)
        usage = Usage.of(self.worker.pid)
        channel = self.worker._channel
        stayed = (self.worker, self.router, self.server, self.transport, self.direct, self.producer)
        return Held(
            **_own(),
            remembered=channel.pending_requests
            + len(channel._handlers)
            + sum(len(node._children) for node in stayed),
            worker_memory=round(usage.rss * 1024),
            worker_descriptors=_descriptors(self.worker.pid),
        )


def _own() -> dict[str, int]:
    gc.collect()
    return {
        "memory": round(Usage.of(os.getpid()).rss * 1024),
        "objects": len(gc.get_objects()),
        "descriptors": _descriptors(os.getpid()),
        "tasks": len(asyncio.all_tasks()),
    }


def _descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def _cycles(create: Callable[[], Awaitable[Any]], count: int) -> None:
    for _ in range(count):
        (await create()).close()


async def measure(stage: Stage, create: Callable[[], Awaitable[Any]], cycles: int) -> dict[str, int]:
    """By how much there is more after the cycles."""
    await _cycles(create, cycles // 10)
    before = await stage.held()
    await _cycles(create, cycles)
    return (await stage.held()).minus(before)


async def measure_workers(cycles: int) -> dict[str, int]:
    """Whole workers, each until its process has ended."""

    async def run(count: int) -> None:
        for _ in range(count):
            worker = await create_worker()
            worker.close()
            await worker.wait_closed()

    await run(max(cycles // 10, 1))
    before = _own()
    await run(cycles)
    after = _own()
    return {name: after[name] - before[name] for name in before}


def leaks(kind: str, grown: dict[str, int]) -> list[str]:
    """What is more than it may be."""
    limits = {"memory": GROWTH_LIMIT, "worker_memory": 4 * GROWTH_LIMIT, "objects": OBJECTS_LIMIT}
    return [f"{kind}: {name} grew by {more}" for name, more in grown.items() if more > limits.get(name, 0)]


async def run(cycles: int, workers: int) -> dict[str, Any]:
    grown: dict[str, dict[str, int]] = {}
    started = time.monotonic()
    async with await create_worker() as worker:
        stage = Stage()
        await stage.open(worker)
        for kind, create in stage.kinds().items():
            grown[kind] = await measure(stage, create, cycles)
    grown["Worker"] = await measure_workers(workers)
    return {
        "cycles": cycles,
        "worker_cycles": workers,
        "grown": grown,
        "leaks": [problem for kind, figures in grown.items() for problem in leaks(kind, figures)],
        "seconds": round(time.monotonic() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.leaks", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--cycles", type=int, default=10_000, help="of every kind of object")
    parser.add_argument("--workers", type=int, help="of whole workers; as many as of the others if absent")
    options = parser.parse_args()
    workers = options.cycles if options.workers is None else options.workers
    figures = uvloop.run(run(options.cycles, workers))
    if options.json:
        print(json.dumps(figures))
    else:
        for kind, grown in figures["grown"].items():
            print(f"{kind:22} " + "  ".join(f"{name} {more:+}" for name, more in grown.items()))
        print(f"{figures['cycles']} cycles each, {figures['worker_cycles']} workers, {figures['seconds']} s")
    for problem in figures["leaks"]:
        print(problem, file=sys.stderr)
    sys.exit(1 if figures["leaks"] else 0)


if __name__ == "__main__":
    main()
