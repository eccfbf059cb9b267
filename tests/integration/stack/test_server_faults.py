"""A media server dies, stands still for a while, or loses a worker: the call heals, other calls go on."""

import asyncio
import os
import signal
import time
from pathlib import Path

from support.rig import Rig, until

LONGEST_GAP = 2.0
"""Seconds without a frame after which media that nothing should touch counts as stopped."""
HEAL_SECONDS = 30.0


async def test_killed_server_is_replaced_and_its_participant_receives_again(rig: Rig):
    session = await rig.session()
    async with rig.call(session, ("alice", "bob", "carol")) as call:
        carol = call.participants["carol"]
        status = await rig.status(session)
        lost = rig.server_of(status, carol.router)
        staying = [
            flow.received
            for flow in call.flows()
            if "carol" not in (flow.receiver.peer_id, flow.received.peer)
        ]
        for received in staying:
            received.reset_gap()
        killed = time.monotonic()
        await asyncio.to_thread(rig.stack.kill, lost)
        await call.until("carol joins again", lambda: carol.joins == 2, seconds=HEAL_SECONDS)
        status = await rig.until_ready(session, without=lost)
        await call.until(
            "everybody receives everybody again",
            lambda: call.all_flowing(since=carol.joined_at or killed, rate=5),
            seconds=HEAL_SECONDS,
        )
        assert max(received.gap(time.monotonic()) for received in staying) < LONGEST_GAP
    assert len(status["routers"]) == 3
    slots = {(router["serverName"], router["workerSlot"]) for router in status["routers"]}
    assert len(slots) == 3, "two routers of the session on one worker"


async def test_server_that_stood_still_for_ten_seconds_comes_back_without_its_old_routers(rig: Rig):
    session, other = await rig.session(), await rig.session(routers=1)
    other_before = (await rig.status(other))["routers"]
    async with rig.call(session, ("alice", "bob", "carol")) as call:
        carol = call.participants["carol"]
        before = await rig.status(session)
        stopped = rig.server_of(before, carol.router)
        rig.stack.send(stopped, signal.SIGSTOP)
        began = time.monotonic()
        try:
            after = await rig.until_ready(session, without=stopped)
            await call.until("carol joins again", lambda: carol.joins == 2, seconds=HEAL_SECONDS)
            await asyncio.sleep(max(0.0, began + 10 - time.monotonic()))  # the fault lasts ten seconds
        finally:
            rig.stack.send(stopped, signal.SIGCONT)
        old = f"shop/{carol_router(before, stopped)}"

        async def old_router_closed() -> bool:
            return old not in await rig.router_names(stopped)

        await until("the old router is closed on its server", old_router_closed, tell=lambda: old)
        await rig.restore()
        assert (await rig.status(session))["routers"] == after["routers"], "the session moved back"
        await call.until(
            "everybody receives everybody", lambda: call.all_flowing(rate=5), seconds=HEAL_SECONDS
        )
    if not any(router["serverName"] == stopped for router in other_before):
        assert (await rig.status(other))["routers"] == other_before


def carol_router(status: dict, server: str) -> str:
    return next(router["name"] for router in status["routers"] if router["serverName"] == server)


async def test_killed_worker_is_refilled_and_its_router_reopened_in_place(rig: Rig):
    session = await rig.session()
    async with rig.call(session, ("alice", "bob", "carol")) as call:
        bob = call.participants["bob"]
        before = await rig.status(session)
        server = rig.server_of(before, bob.router)
        worker = await worker_with(rig, server, bob.router)
        os.kill(worker, signal.SIGKILL)
        await call.until("bob joins again", lambda: bob.joins == 2, seconds=HEAL_SECONDS)
        await call.until(
            "everybody receives everybody again",
            lambda: call.all_flowing(since=bob.joined_at or 0.0, rate=5),
            seconds=HEAL_SECONDS,
        )
        after = await rig.until_ready(session)
    assert [router["name"] for router in after["routers"]] == [router["name"] for router in before["routers"]]


async def worker_with(rig: Rig, server: str, router: str) -> int:
    """Process id of the worker that has this router, checked to be a child of the server."""
    dump = await rig.dump(server)
    pid = next(
        int(worker["pid"]) for worker in dump.workers if any(r["name"] == router for r in worker["routers"])
    )
    assert parent_of(pid) == rig.stack.pids()[server]
    return pid


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
