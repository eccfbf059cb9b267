"""The leader is killed without a word: how long until the standby leads, and until what it was asked is done.

MAFALDA_KILLS sets how many kills are measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import time

import aiohttp
import pytest
from integration.operator.world import OperatorProcess, World
from mafalda_operator.effects.api import LEASES

KILLS = int(os.environ.get("MAFALDA_KILLS", "3"))
WITHIN = 5.0
"""Seconds from the kill until the standby holds the Lease."""


@pytest.mark.timeout(60 + 20 * KILLS)
async def test_a_standby_takes_over_from_a_killed_leader_in_time(world: World) -> None:
    await world.cluster_of(servers=2, workers=4)
    leader = await world.operator(identity="operator-0")
    await world.connected()
    rng, taken, done = random.Random(6), list[float](), list[float]()
    for number in range(1, KILLS + 1):
        standby = await world.operator(identity=f"operator-{number}")
        await world.eventually(lambda standby=standby: answers_ready(standby), "the standby is ready")
        await asyncio.sleep(rng.uniform(0, 0.5))  # at any moment between two renewals
        leader.kill()
        killed = time.monotonic()
        await world.session(f"s{number}", routers=1)
        taken.append(await seconds_until_held(world, f"operator-{number}", killed))
        await world.ready(f"s{number}")
        done.append(time.monotonic() - killed)
        await leader.process.wait()
        leader = standby
    print(
        f"{KILLS} kills, seconds until the Lease is taken: {told(taken)};"
        f" until a session is Ready: {told(done)}"
    )
    assert max(taken) < WITHIN
    await world.consistent(1, sessions=KILLS)


async def seconds_until_held(world: World, identity: str, since: float) -> float:
    while True:
        lease = await world.api.get(LEASES, world.name, "mafalda-operator")
        if lease["spec"]["holderIdentity"] == identity:
            return time.monotonic() - since
        assert time.monotonic() < since + 30, (
            f"{identity} has not taken the Lease: {world.operators[-1].output}"
        )
        await asyncio.sleep(0.02)


async def answers_ready(operator: OperatorProcess) -> bool:
    """Whether its /readyz says so, while it stands by."""
    if "standing by" not in operator.output:
        return False
    started = next(line for line in operator.output.splitlines() if "operator started" in line)
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{json.loads(started)['metrics']}/readyz") as response,
    ):
        return response.status == 200


def told(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds):.2f}, max {max(seconds):.2f}"
