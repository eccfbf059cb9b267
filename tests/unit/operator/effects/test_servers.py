"""Control links against fake media servers over real sockets."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from mafalda_operator.effects import link as link_module
from mafalda_operator.effects.link import Epochs, Heard, Target
from mafalda_operator.effects.link_problems import SilentReportError, VersionSkewError, problem_of
from mafalda_operator.effects.servers import ServerLinks
from mafalda_operator.model import ObjectKey, ServerView
from mafalda_operator.planning.book import ServerChange

from mediaserver.control.contract import (
    ERROR_BAD_PROOF,
    ERROR_NOT_ALLOWED,
    ERROR_OTHER_CLUSTER,
    ERROR_STALE_EPOCH,
    ERROR_VERSION_SKEW,
    RouterEntry,
    SessionEntry,
    router_key,
    session_key,
)
from mediaserver.control.fake import FakeMediaServer
from mediaserver.wire.errors import (
    ConnectionLost,
    DeadlineExceeded,
    MembershipError,
    ProtocolError,
    RemoteError,
    WireError,
)
from mediaserver.wire.membership import ClusterKey

SERVER = ObjectKey("media", "m0")
KEY = ClusterKey(secrets.token_bytes(32))
SESSION = SessionEntry(namespace="shop", name="s", uid="su", issuers=[], token_keys={})


def router(name: str, slot: int = 0) -> RouterEntry:
    return RouterEntry(
        namespace="shop",
        name=name,
        uid=name,
        session="s",
        session_uid="su",
        worker_slot=slot,
        media_codecs=[],
    )


class Rig:
    def __init__(self, server: FakeMediaServer) -> None:
        self.server = server
        self.epoch = 5
        self.met: list[int] = []
        self.heard: list[Heard] = []
        self.changed = asyncio.Event()
        self.links = ServerLinks(KEY, Epochs(lambda: self.epoch, self._meet), self._hear)
        self.dial(server.endpoint)

    def _meet(self, epoch: int) -> None:
        self.met.append(epoch)
        self.epoch = max(self.epoch, epoch + 1) if epoch > self.epoch else self.epoch

    def _hear(self, heard: Heard) -> None:
        self.heard.append(heard)
        self.changed.set()

    def dial(self, address: str) -> None:
        self.target = Target(SERVER, address, ObjectKey("media", "main"), "uid", silence=0.6)

    @property
    def view(self) -> ServerView:
        view = self.links.view(SERVER)
        assert view is not None
        return view

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  conditions on both sides of the wire
                await asyncio.sleep(0.005)

    async def connected(self) -> None:
        await self.until(lambda: self.view.connected and self.view.report_received)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with FakeMediaServer(KEY, workers=2) as server:
        rig = Rig(server)
        await rig.links.open()
        rig.links.set_targets([rig.target])
        yield rig
        server.wake()
        await rig.links.close()


async def test_a_link_connects_reports_and_tells_the_desired_state(rig: Rig) -> None:
    await rig.connected()
    assert rig.view.hello is not None
    assert set(rig.view.workers) == {0, 1}
    assert not rig.links.released(SERVER)
    key = router_key("shop", "r1")
    rig.links.release(SERVER, {session_key("shop", "s"): SESSION, key: router("r1")})
    await rig.until(lambda: key in rig.view.routers and rig.view.routers[key].ready)
    assert rig.server.highest_epoch == 5
    assert any(heard.entries and heard.entries[0].session_uid == "su" for heard in rig.heard)  # type: ignore[union-attr]


async def test_changes_follow_and_coalesce(rig: Rig) -> None:
    await rig.connected()
    rig.links.release(SERVER, {session_key("shop", "s"): SESSION})
    await rig.until(lambda: bool(rig.server.desired))
    applies = rig.server.applies
    rig.links.send(SERVER, ServerChange(changed={router_key("shop", "a"): router("a")}))
    rig.links.send(SERVER, ServerChange(changed={router_key("shop", "b"): router("b", 1)}))
    rig.links.send(SERVER, ServerChange(gone=[router_key("shop", "a")]))
    await rig.until(lambda: router_key("shop", "b") in rig.server.desired)
    assert set(rig.server.desired) == {session_key("shop", "s"), router_key("shop", "b")}
    assert rig.server.applies == applies + 1


async def test_nothing_is_sent_before_the_release(rig: Rig) -> None:
    await rig.connected()
    rig.links.send(SERVER, ServerChange(changed={router_key("shop", "a"): router("a")}))
    await asyncio.sleep(0.1)
    assert rig.server.applies == 0


async def test_a_silent_server_is_given_up_and_dialled_again(rig: Rig) -> None:
    await rig.connected()
    rig.links.release(SERVER, {})
    rig.server.silence()
    await rig.until(lambda: not rig.view.connected)
    assert rig.view.problem is not None
    assert rig.view.last_heard is not None
    assert not rig.links.released(SERVER)
    rig.server.wake()
    await rig.connected()
    assert rig.view.problem is None


async def test_a_restarted_server_is_told_everything_again(rig: Rig) -> None:
    await rig.connected()
    wanted = {session_key("shop", "s"): SESSION, router_key("shop", "r1"): router("r1")}
    rig.links.release(SERVER, wanted)
    await rig.until(lambda: rig.server.desired == wanted)
    before = rig.view.instance_id
    await rig.server.restart()
    await rig.until(lambda: rig.view.instance_id != before and rig.view.report_received)
    assert rig.view.routers == {}
    rig.links.release(SERVER, wanted)
    await rig.until(lambda: rig.server.desired == wanted)


async def test_a_higher_epoch_is_met_and_then_obeyed(rig: Rig) -> None:
    rig.server.highest_epoch = 9
    rig.links.set_targets([])
    rig.links.set_targets([rig.target])
    await rig.connected()
    assert 9 in rig.met
    rig.links.release(SERVER, {session_key("shop", "s"): SESSION})
    await rig.until(lambda: rig.server.highest_epoch == 10)


async def test_a_changed_address_is_dialled_anew_and_a_dropped_one_is_left(rig: Rig) -> None:
    await rig.connected()
    async with FakeMediaServer(KEY) as other:
        rig.dial(other.endpoint)
        rig.links.set_targets([rig.target])
        await rig.connected()
        await rig.until(lambda: not rig.server.connections)
        rig.links.set_targets([])
        assert rig.links.view(SERVER) is None
        assert len(rig.links) == 0
        await rig.until(lambda: not other.connections)


@pytest.mark.parametrize("turns", range(4))
async def test_a_link_ends_also_when_its_connection_breaks_at_that_moment(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """``turns`` of the event loop before or after."""
    await rig.connected()
    loop, task = asyncio.get_running_loop(), rig.links._tasks[SERVER]

    def cancel_after(left: int) -> None:
        if left:
            loop.call_soon(cancel_after, left - 1)
        else:
            task.cancel()

    failing = link_module._failing

    async def failing_then_cancelled(run: Awaitable[None]) -> None:
        try:
            await failing(run)
        finally:
            cancel_after(turns)

    monkeypatch.setattr(link_module, "_failing", failing_then_cancelled)
    await rig.server.restart()  # the connection that breaks is one of before
    await rig.until(lambda: rig.view.connected and rig.view.instance_id == rig.server.instance_id)
    await rig.server.kill()
    done, _ = await asyncio.wait([task], timeout=3)
    assert done, "it dials again, for ever"


async def test_a_refused_dial_is_told_once(rig: Rig) -> None:
    await rig.connected()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        rig.dial(f"127.0.0.1:{closed.getsockname()[1]}")
        rig.heard.clear()
        rig.links.set_targets([rig.target])
        await rig.until(lambda: rig.view.problem is not None)
        await asyncio.sleep(0.8)
    assert rig.view.problem is not None
    assert rig.view.problem.reason == "Refused"
    assert len(rig.heard) == 1


async def test_a_server_that_never_reports_is_a_problem(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mafalda_operator.effects.link.REPORT_DEADLINE", 0.1)
    await rig.connected()
    monkeypatch.setattr("mediaserver.control.fake_session.FakeSession.report", lambda *_: None)
    rig.links.set_targets([])
    rig.links.set_targets([rig.target])
    await rig.until(lambda: rig.view.problem is not None)
    assert rig.view.problem is not None
    assert rig.view.problem.reason == "Timeout"


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (RemoteError(ERROR_BAD_PROOF, "give the same --cluster-key-file"), "BadProof", "--cluster-key-file"),
        (RemoteError(ERROR_OTHER_CLUSTER, "restart it with --forget"), "OtherCluster", "--forget"),
        (RemoteError(ERROR_VERSION_SKEW, "old"), "VersionSkew", "same release"),
        (RemoteError(ERROR_STALE_EPOCH, "old"), "StaleEpoch", "raises its own"),
        (RemoteError(ERROR_NOT_ALLOWED, "no"), "Rejected", "no"),
        (VersionSkewError(9), "VersionSkew", "control protocol 9"),
        (MembershipError("wrong"), "BadProof", "--cluster-key-file"),
        (ProtocolError("noise"), "Garbage", "--internal-listen"),
        (DeadlineExceeded("hello", 3), "Timeout", "--internal-listen"),
        (SilentReportError("none"), "Timeout", "running"),
        (ConnectionLost("broke"), "Lost", "dialled again"),
    ],
)
def test_problems_have_one_word_and_a_remedy(error: WireError, reason: str, remedy: str) -> None:
    problem = problem_of(error, "host:4000")
    assert problem.reason == reason
    assert remedy in problem.message
    assert "host:4000" in problem.message
