"""The channel benchmark's side of ours: takes steps from stdin, prints figures as JSON lines."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from benchmarks.figures import Usage
from mediaserver.mediasoup import (
    Consumer,
    Producer,
    Router,
    RtpCapabilities,
    RtpCodecCapability,
    RtpParameters,
    TransportListenInfo,
    WebRtcServer,
    WebRtcTransport,
    create_worker,
)

Json = dict[str, Any]


class Side:
    """One router with its producers, and the endpoints that consume them."""

    def __init__(
        self, scenario: Json, router: Router, server: WebRtcServer, producers: list[Producer]
    ) -> None:
        self.scenario, self.router, self.server, self.producers = scenario, router, server, producers
        self.consumers: list[Consumer] = []
        self.notified = self.expected = 0
        self.listening = False
        self.all_notified = asyncio.Event()

    async def transports(self, count: int) -> list[tuple[WebRtcTransport, RtpCapabilities]]:
        """Endpoints; each with capabilities of its own, as they come from the network."""
        texts = [json.dumps(caps) for caps in self.scenario["capabilities"]]
        return [
            (
                await self.router.create_webrtc_transport(webrtc_server=self.server),
                msgspec.json.decode(texts[i % len(texts)], type=RtpCapabilities),
            )
            for i in range(count)
        ]

    async def consume(self, endpoints: list[tuple[WebRtcTransport, RtpCapabilities]]) -> float:
        """Every endpoint consumes every producer; consumers a second."""
        started = time.perf_counter()
        made: list[Consumer] = []
        for transport, caps in endpoints:
            made += await asyncio.gather(
                *(transport.consume(producer_id=p.id, rtp_capabilities=caps) for p in self.producers)
            )
        seconds = time.perf_counter() - started
        self.consumers += made
        return len(made) / seconds

    async def created(self) -> Json:
        return {"rate": await self.consume(await self.transports(self.scenario["endpoints"]))}

    async def memory(self) -> Json:
        """KiB of 1,000 consumers."""
        endpoints = await self.transports(self.scenario["memoryEndpoints"])
        before = _resident()
        await self.consume(endpoints)
        return {"memory": (_resident() - before) * 1000 / (len(endpoints) * len(self.producers))}

    async def requests(self, in_flight: int, total: int) -> Json:
        """Requests a second, and CPU seconds for 10,000."""
        cpu, started = _cpu(), time.perf_counter()
        await asyncio.gather(
            *(_toggle(consumer, total // in_flight) for consumer in self.consumers[:in_flight])
        )
        seconds, cpu = time.perf_counter() - started, _cpu() - cpu
        return {"rate": total / seconds, "cpu": cpu * 10_000 / total}

    async def notifications(self) -> Json:
        """Notifications a second that reach a handler of their consumer, and CPU seconds for 10,000."""
        pauses = self.scenario["pauses"]
        expected = 2 * pauses * len(self.consumers)

        if not self.listening:
            self.listening = True
            for consumer in self.consumers:
                consumer.on_producer_pause.subscribe(self._count)
                consumer.on_producer_resume.subscribe(self._count)
        self.expected, self.notified = expected, 0
        self.all_notified.clear()
        cpu, started = _cpu(), time.perf_counter()
        for _ in range(pauses):
            await asyncio.gather(*(producer.pause() for producer in self.producers))
            await asyncio.gather(*(producer.resume() for producer in self.producers))
        await asyncio.wait_for(self.all_notified.wait(), 60)
        seconds, cpu = time.perf_counter() - started, _cpu() - cpu
        return {"rate": expected / seconds, "cpu": cpu * 10_000 / expected}

    def _count(self, _: None) -> None:
        self.notified += 1
        if self.notified == self.expected:
            self.all_notified.set()


async def _toggle(consumer: Consumer, times: int) -> None:
    for _ in range(times // 2):
        await consumer.pause()
        await consumer.resume()


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _resident() -> float:
    gc.collect()
    return Usage.of(os.getpid()).rss * 1024


async def run(scenario: Json) -> None:
    async with await create_worker(worker_bin=scenario["workerBin"]) as worker:
        codecs = msgspec.convert(scenario["mediaCodecs"], list[RtpCodecCapability])
        router = await worker.create_router(media_codecs=codecs)
        server = await worker.create_webrtc_server(listen_infos=[TransportListenInfo(ip="127.0.0.1")])
        producers: list[Producer] = []
        for given in scenario["producers"]:
            transport = await router.create_webrtc_transport(webrtc_server=server)
            params = msgspec.convert(given["rtpParameters"], RtpParameters)
            producers.append(await transport.produce(kind=given["kind"], rtp_parameters=params))
        await serve(Side(scenario, router, server, producers))


async def serve(side: Side) -> None:
    """Does what each line on stdin says, and answers with its figures."""
    scenario = side.scenario
    steps: dict[str, Callable[[], Awaitable[Json]]] = {
        "consumers_created": side.created,
        "memory": side.memory,
        "sequential": lambda: side.requests(1, scenario["requests"]),
        "in_flight": lambda: side.requests(scenario["inFlight"], scenario["requestsInFlight"]),
        "notifications": side.notifications,
    }
    print(json.dumps({"version": platform.python_version()}), flush=True)
    loop = asyncio.get_running_loop()
    while step := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        print(json.dumps(await steps[step]()), flush=True)


def main() -> None:
    uvloop.run(run(json.loads(Path(sys.argv[1]).read_text())))


if __name__ == "__main__":
    main()
