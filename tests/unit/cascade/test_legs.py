from __future__ import annotations

import asyncio

from mediaserver.cascade.legs import InOrder


async def test_operations_of_one_key_run_in_order_and_of_two_side_by_side() -> None:
    order = InOrder()
    gate, other_ran, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    seen: list[str] = []

    async def first() -> None:
        await gate.wait()
        seen.append("first")

    async def second() -> None:
        seen.append("second")
        done.set()

    async def other() -> None:
        other_ran.set()

    order.submit("one", first)
    order.submit("one", second)
    order.submit("two", other)
    await other_ran.wait()
    assert not seen
    gate.set()
    async with asyncio.timeout(1):
        await done.wait()
    assert seen == ["first", "second"]
    await order.close()


async def test_a_bug_in_one_operation_does_not_stop_the_next() -> None:
    order = InOrder()
    ran = asyncio.Event()

    async def broken() -> None:
        raise RuntimeError("a bug")

    async def fine() -> None:
        ran.set()

    order.submit("one", broken)
    order.submit("one", fine)
    async with asyncio.timeout(1):
        await ran.wait()
    await order.close()


async def test_close_cancels_what_runs_and_drops_what_waits() -> None:
    order = InOrder()
    ran: list[str] = []

    async def endless() -> None:
        await asyncio.Event().wait()

    async def never() -> None:
        ran.append("never")

    order.submit("one", endless)
    order.submit("one", never)
    await asyncio.sleep(0)
    await order.close()
    assert not ran
