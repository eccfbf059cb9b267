"""The operator dies, stands still, or is replaced: no router is lost or made twice."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from integration.operator.world import World
from mafalda_operator.effects.api import LEASES
from mafalda_operator.effects.lease import EPOCH_ANNOTATION


@pytest.mark.parametrize("seed", range(3))
async def test_killed_at_any_moment_of_a_placement(world: World, seed: int) -> None:
    rng = random.Random(seed)
    await world.cluster_of(servers=3, workers=4)
    operator = await world.operator()
    await world.connected()
    names = [f"s{number}" for number in range(8)]
    for name in names:
        await world.session(name)
        if rng.random() < 0.4:
            await asyncio.sleep(rng.uniform(0, 0.15))
            operator.kill()
            await operator.process.wait()
            operator = await world.operator()
    await world.ready(*names, timeout=40)
    await world.consistent(2, sessions=8)
    for name in names[:4]:
        await world.delete_session(name)
    await asyncio.sleep(rng.uniform(0, 0.1))
    operator.kill()
    await operator.process.wait()
    await world.operator()
    await world.consistent(2, sessions=4)


async def test_a_restart_leaves_running_routers_alone(world: World) -> None:
    await world.cluster_of(servers=3)
    operator = await world.operator()
    await world.session("standup", routers=3)
    await world.ready("standup")
    before = {name: dict(server.desired) for name, server in world.servers.items()}
    assert await operator.end() == 0
    seen: list[str] = []
    for name, server in world.servers.items():
        original = server.set_desired

        def watching(entries: object, name: str = name, original: object = original) -> None:
            missing = [key for key in before[name] if key.startswith("router/") and key not in entries]  # type: ignore[operator]
            seen.extend(missing)
            original(entries)  # type: ignore[operator]

        server.set_desired = watching  # type: ignore[method-assign, assignment]
    await world.operator(identity="second")
    await world.session("another", routers=1)
    await world.ready("another")
    assert seen == []
    for name, server in world.servers.items():
        assert before[name].items() <= server.desired.items()


async def test_a_standby_takes_over_and_the_epoch_goes_up(world: World) -> None:
    await world.cluster_of(servers=2)
    leader = await world.operator(identity="leader")
    await world.session("one")
    await world.ready("one")
    await world.operator(identity="standby")

    async def standing_by() -> bool:
        return "standing by" in world.operators[1].output

    await world.eventually(standing_by, "standing by")
    epoch = await epoch_of(world)
    leader.kill()
    started = time.monotonic()
    await world.session("two")
    await world.ready("two", timeout=30)
    print(f"ready {time.monotonic() - started:.1f} s after the leader was killed")
    await world.consistent(2, sessions=2)
    assert await epoch_of(world) > epoch
    assert all(server.highest_epoch > epoch for server in world.servers.values())


async def test_a_leader_that_ends_in_order_hands_over_at_once(world: World) -> None:
    await world.cluster_of(servers=2)
    leader = await world.operator(identity="leader")
    await world.connected()
    await world.operator(identity="standby")

    async def standing_by() -> bool:
        return "standing by" in world.operators[1].output

    await world.eventually(standing_by, "standing by")
    asked = time.monotonic()
    assert await leader.end() == 0
    started = time.monotonic()
    print(f"the leader ended {started - asked:.1f} s after SIGTERM")
    assert started - asked < 5  # a pod is given 30
    await world.session("one")
    await world.ready("one")
    assert time.monotonic() - started < 5


async def test_a_leader_that_stood_still_too_long_ends(world: World) -> None:
    await world.cluster_of(servers=2)
    leader = await world.operator(identity="leader")
    await world.connected()
    await world.operator(identity="standby")
    leader.pause()
    await world.session("one")
    await world.ready("one", timeout=30)
    leader.resume()
    assert await asyncio.wait_for(leader.process.wait(), 15) == 1
    assert "is held by standby" in leader.output
    await world.consistent(2, sessions=1)


async def test_a_higher_epoch_among_the_servers_raises_ours(world: World) -> None:
    await world.cluster()
    server = await world.server("m0")
    server.highest_epoch = 50
    await world.operator()
    await world.connected()
    await world.session("one", routers=1)
    await world.ready("one")
    assert await epoch_of(world) > 50
    assert server.highest_epoch == await epoch_of(world)


async def epoch_of(world: World) -> int:
    lease = await world.api.get(LEASES, world.name, "mafalda-operator")
    return int(lease["metadata"]["annotations"][EPOCH_ANNOTATION])
