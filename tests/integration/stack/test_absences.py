"""Operator, API server or gateway are away: calls go on, and people still join."""

import asyncio
import time

from mafalda_operator.cli.demo.call import Call
from mafalda_operator.cli.demo.stack import GATEWAY, OPERATOR
from support.rig import Rig

AWAY = 30.0
"""Seconds without an API server."""
LONGEST_GAP = 2.0
"""Seconds without a frame after which media that nothing should touch counts as stopped."""


def longest_gap(call: Call) -> float:
    return max(flow.received.gap(time.monotonic()) for flow in call.flows())


def measure_gaps(call: Call) -> None:
    for flow in call.flows():
        flow.received.reset_gap()


async def test_operator_killed_during_a_call_is_not_noticed_and_moves_nothing_on_return(rig: Rig):
    session = await rig.session()
    async with rig.call(session, ("alice", "bob")) as call:
        before = await rig.status(session)
        measure_gaps(call)
        await asyncio.to_thread(rig.stack.kill, OPERATOR)
        await call.join(*await rig.url_and_token(session, "carol"), publish=True)
        await call.until("carol, who joined without it, is part of it", call.all_flowing, seconds=20)
        await rig.restore()
        after = await rig.until_ready(session)
        assert longest_gap(call) < LONGEST_GAP
    assert after["routers"] == before["routers"]
    assert all(participant.joins == 1 for participant in call.participants.values())


async def test_api_server_restarted_during_a_call_is_not_noticed(rig: Rig):
    session = await rig.session()
    url, token = await rig.url_and_token(session, "carol")
    async with rig.call(session, ("alice", "bob")) as call:
        before = await rig.status(session)
        measure_gaps(call)
        await asyncio.to_thread(rig.stack.cluster.stop_apiserver, grace=0)
        try:
            await call.join(url, token, publish=True)
            await call.until("carol, who joined without it, is part of it", call.all_flowing, seconds=20)
        finally:
            await asyncio.to_thread(rig.stack.cluster.start_apiserver)
        await rig.restore()
        assert longest_gap(call) < LONGEST_GAP
        assert (await rig.status(session))["routers"] == before["routers"]
    later = await rig.session(routers=1)  # the operator works again
    assert len((await rig.status(later))["routers"]) == 1


async def test_api_server_away_for_half_a_minute_during_a_call_is_not_noticed(rig: Rig):
    session = await rig.session()
    first, last = [await rig.url_and_token(session, name) for name in ("carol", "dave")]
    async with rig.call(session, ("alice", "bob")) as call:
        before = await rig.status(session)
        measure_gaps(call)
        await asyncio.to_thread(rig.stack.cluster.stop_apiserver, grace=0)
        away = time.monotonic()
        try:
            await call.join(*first, publish=True)
            await call.until(
                "carol, who joined at its beginning, is part of it", call.all_flowing, seconds=20
            )
            await asyncio.sleep(AWAY - 5 - (time.monotonic() - away))
            await call.join(*last, publish=True)
            await call.until("dave, who joined near its end, is part of it", call.all_flowing, seconds=20)
            await asyncio.sleep(AWAY - (time.monotonic() - away))
        finally:
            await asyncio.to_thread(rig.stack.cluster.start_apiserver)
        back = time.monotonic()
        later = await rig.session(routers=1)
        print(f"a session is Ready {time.monotonic() - back:.1f} s after the API server was back")
        await rig.restore()
        print(f"longest gap {longest_gap(call):.2f} s")
        assert longest_gap(call) < LONGEST_GAP
        assert (await rig.status(session))["routers"] == before["routers"]
    assert all(participant.joins == 1 for participant in call.participants.values())
    assert len((await rig.status(later))["routers"]) == 1


async def test_etcd_killed_and_restarted_during_a_call_is_not_noticed(rig: Rig):
    session = await rig.session()
    url, token = await rig.url_and_token(session, "carol")
    async with rig.call(session, ("alice", "bob")) as call:
        before = await rig.status(session)
        measure_gaps(call)
        await asyncio.to_thread(rig.stack.cluster.stop_etcd, grace=0)
        try:
            await call.join(url, token, publish=True)
            await call.until("carol, who joined without it, is part of it", call.all_flowing, seconds=20)
            await asyncio.sleep(5)  # longer than a leader acts without its Lease
        finally:
            await asyncio.to_thread(rig.stack.cluster.start_etcd)
        back = time.monotonic()
        later = await rig.session(routers=1)
        print(f"a session is Ready {time.monotonic() - back:.1f} s after etcd was back")
        await rig.restore()
        print(f"longest gap {longest_gap(call):.2f} s")
        assert longest_gap(call) < LONGEST_GAP
        assert (await rig.status(session))["routers"] == before["routers"]
    assert all(participant.joins == 1 for participant in call.participants.values())
    assert len((await rig.status(later))["routers"]) == 1


async def test_gateway_killed_costs_a_redial_and_nothing_else(rig: Rig):
    session = await rig.session()
    async with rig.call(session, ("alice", "bob")) as call:
        await asyncio.to_thread(rig.stack.kill, GATEWAY)
        await rig.restore()
        await call.until(
            "both dial again and receive",
            lambda: (
                all(p.joins == 2 for p in call.participants.values())
                and call.all_flowing(
                    since=max(p.joined_at or 0.0 for p in call.participants.values()), rate=5
                )
            ),
            seconds=30,
        )
