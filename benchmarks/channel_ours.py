"""The channel benchmark's side of ours: reads the scenario from a file, prints its figures as JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import sys
import time
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
        self.notified = 0
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

    async def memory(self) -> float:
        """KiB of 1,000 consumers."""
        endpoints = await self.transports(self.scenario["memoryEndpoints"])
        before = _resident()
        await self.consume(endpoints)
        return (_resident() - before) * 1000 / (len(endpoints) * len(self.producers))

    async def requests(self, in_flight: int, total: int) -> tuple[float, float]:
        """Requests a second, and CPU seconds for 10,000."""
        cpu, started = _cpu(), time.perf_counter()
        await asyncio.gather(
            *(_toggle(consumer, total // in_flight) for consumer in self.consumers[:in_flight])
        )
        seconds, cpu = time.perf_counter() - started, _cpu() - cpu
        return total / seconds, cpu * 10_000 / total

    async def notifications(self) -> tuple[float, float]:
        """Notifications a second that reach a handler of their consumer, and CPU seconds for 10,000."""
        pauses = self.scenario["pauses"]
        expected = 2 * pauses * len(self.consumers)

        def count(_: None) -> None:
            self.notified += 1
            if self.notified == expected:
                self.all_notified.set()

        for consumer in self.consumers:
            consumer.on_producer_pause.subscribe(count)
            consumer.on_producer_resume.subscribe(count)
        cpu, started = _cpu(), time.perf_counter()
        for _ in range(pauses):
            await asyncio.gather(*(producer.pause() for producer in self.producers))
            await asyncio.gather(*(producer.resume() for producer in self.producers))
        await asyncio.wait_for(self.all_notified.wait(), 60)
        seconds, cpu = time.perf_counter() - started, _cpu() - cpu
        return expected / seconds, cpu * 10_000 / expected


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


async def run(scenario: Json) -> Json:
    async with await create_worker(worker_bin=scenario["workerBin"]) as worker:
        codecs = msgspec.convert(scenario["mediaCodecs"], list[RtpCodecCapability])
        router = await worker.create_router(media_codecs=codecs)
        server = await worker.create_webrtc_server(listen_infos=[TransportListenInfo(ip="127.0.0.1")])
        producers: list[Producer] = []
        for given in scenario["producers"]:
            transport = await router.create_webrtc_transport(webrtc_server=server)
            params = msgspec.convert(given["rtpParameters"], RtpParameters)
            producers.append(await transport.produce(kind=given["kind"], rtp_parameters=params))
        side = Side(scenario, router, server, producers)
        return await measure(side)


async def measure(side: Side) -> Json:
    scenario = side.scenario
    created = await side.consume(await side.transports(scenario["endpoints"]))
    again = await side.consume(await side.transports(scenario["endpoints"]))
    memory = await side.memory()
    await side.requests(1, scenario["requests"] // 4)  # warm up
    sequential, cpu = await side.requests(1, scenario["requests"])
    in_flight, cpu_in_flight = await side.requests(scenario["inFlight"], scenario["requestsInFlight"])
    notifications, cpu_notifications = await side.notifications()
    return {
        "sequential": sequential,
        "in_flight": in_flight,
        "consumers_created": created,
        "consumers_created_again": again,
        "notifications": notifications,
        "cpu": cpu,
        "cpu_in_flight": cpu_in_flight,
        "cpu_notifications": cpu_notifications,
        "memory": memory,
        "version": sys.version.split()[0],
    }


def main() -> None:
    print(json.dumps(uvloop.run(run(json.loads(Path(sys.argv[1]).read_text())))))


if __name__ == "__main__":
    main()
