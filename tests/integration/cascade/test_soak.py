"""Everything at once on real workers: afterwards whoever is attached hears, and nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from mediaserver.cascade import CascadeError
from mediaserver.mediasoup import ClosedError, PipeTransport


def pipes(hosted: Any) -> list[PipeTransport]:
    return [each for each in hosted.router.transports if isinstance(each, PipeTransport)]


class Chaos:
    def __init__(self, cascade: Any, routers: list[Any], seed: int) -> None:
        self.cascade = cascade
        self.routers = routers
        self.rng = random.Random(seed)
        self.senders: list[Any] = []
        self.held: list[tuple[Any, str]] = []

    async def step(self) -> None:
        hosted = self.rng.choice(self.routers)
        match self.rng.randrange(9):
            case 0 | 1:
                self.senders.append(
                    await self.cascade.media.send(hosted, self.rng.choice(["audio", "video"]))
                )
            case 2:
                if len(self.senders) > 3:
                    sender = self.senders.pop(self.rng.randrange(len(self.senders)))
                    sender.producer.close()
                    sender.close()
            case 3 | 4 | 5:
                await self.attach(hosted)
            case 6:
                if self.held:
                    where, producer_id = self.held.pop(self.rng.randrange(len(self.held)))
                    where.release(producer_id)
            case 7:
                if pipes(hosted):
                    self.rng.choice(pipes(hosted)).close()
            case _:
                await self.toggle()

    async def attach(self, hosted: Any) -> None:
        if hosted.producers:
            producer_id = self.rng.choice(sorted(hosted.producers))
            try:
                await hosted.attach(producer_id, timeout=0.5)
            except CascadeError:
                return
            self.held.append((hosted, producer_id))

    async def toggle(self) -> None:
        """Pause or resume a producer, or cut or mend a peer connection."""
        proxies = [each for site in self.cascade.sites.values() for each in site.proxies.values()]
        proxy = self.rng.choice(proxies)
        if proxy.passes:
            proxy.cut()
        else:
            proxy.passes = True
        if self.senders:
            producer = self.rng.choice(self.senders).producer
            with contextlib.suppress(ClosedError):  # another of us may be closing it
                await (producer.resume() if producer.paused else producer.pause())


async def test_random_faults_leave_nothing_wrong(cascade: Any) -> None:
    routers = await cascade.mesh("a", "b", "c")
    chaos = Chaos(cascade, routers, seed=20261122)
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(run(chaos, 60))
    for site in cascade.sites.values():
        for proxy in site.proxies.values():
            proxy.passes = True
    await cascade.until(lambda: not cascade.unready(), "links stand")
    await everybody_hears(cascade, chaos)
    await nothing_is_left(cascade, chaos)


async def everybody_hears(cascade: Any, chaos: Chaos) -> None:
    alive = {sender.id for sender in chaos.senders}
    for sender in chaos.senders:
        await sender.producer.resume()
    for hosted in chaos.routers:
        await cascade.until(lambda hosted=hosted: set(hosted.producers) == alive, "all know what is alive")
        for producer_id in alive:
            await hosted.attach(producer_id)
            chaos.held.append((hosted, producer_id))
            await cascade.until(
                lambda hosted=hosted, key=producer_id: not hosted.router.producers[key].paused, "it flows"
            )
            await (await cascade.media.receive(hosted, producer_id)).hears(2)


async def nothing_is_left(cascade: Any, chaos: Chaos) -> None:
    for hosted, producer_id in chaos.held:
        hosted.release(producer_id)
    await cascade.until(
        lambda: not any(hosted.table.holds_joins for hosted in chaos.routers), "no join is held"
    )
    for hosted in chaos.routers:
        assert len(pipes(hosted)) == 2
        for pipe in pipes(hosted):
            dump = await pipe.dump()
            assert not dump.producer_ids
            assert not dump.consumer_ids


async def run(chaos: Chaos, steps: int) -> None:
    for _ in range(steps):
        await chaos.step()
        await asyncio.sleep(0.02)
