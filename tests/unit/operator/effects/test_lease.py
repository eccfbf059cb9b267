"""Leadership: one holder at a time, an epoch that only goes up, and no acting on a Lease that may be gone."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from mafalda_operator.effects.api import KubeApi, Object, Resource
from mafalda_operator.effects.errors import (
    ApiUnavailable,
    Conflict,
    CredentialsError,
    Forbidden,
    NotFound,
    Unauthorized,
)
from mafalda_operator.effects.lease import (
    EPOCH_ANNOTATION,
    Leadership,
    LeadershipLostError,
    LeaseTimes,
    LeaseUnusableError,
)

TIMES = LeaseTimes(duration=6, deadline=4.0, renew=0.01)


class Leases:
    """The API server's Lease, with compare-and-swap."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.failures: list[Exception] = []
        self.lost_answers = 0
        self.writes: list[dict[str, Any]] = []
        self.takes: tuple[Clock, float] | None = None
        """How long by whose clock each write takes to be answered."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        await self._fail()
        if self.lease is None:
            raise NotFound(404, "NotFound", "no lease")
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        await self._fail()
        if self.lease is not None:
            raise Conflict(409, "AlreadyExists", "lease")
        return await self._store(body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        await self._fail()
        if self.lease is None or body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict(409, "Conflict", "changed meanwhile")
        return await self._store(body)

    async def _store(self, body: Object) -> Object:
        self.version += 1
        metadata = {**body["metadata"], "resourceVersion": str(self.version)}
        self.lease = copy.deepcopy({**body, "metadata": metadata})
        self.writes.append(self.lease)
        if self.takes is not None:
            self.takes[0].now += self.takes[1]
        if self.lost_answers:
            self.lost_answers -= 1
            raise ApiUnavailable("the answer was lost")
        return copy.deepcopy(self.lease)

    async def _fail(self) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])

    @property
    def epoch(self) -> int:
        assert self.lease is not None
        return int(self.lease["metadata"]["annotations"][EPOCH_ANNOTATION])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def candidate(leases: Leases, identity: str, clock: Clock) -> Leadership:
    return Leadership(
        cast(KubeApi, leases),
        namespace="system",
        name="operator",
        identity=identity,
        times=TIMES,
        clock=clock,
        wall=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    )


async def hold_until(leadership: Leadership, condition: Any) -> None:
    task = asyncio.create_task(leadership.hold())
    async with asyncio.timeout(5):
        while not condition() and not task.done():  # noqa: ASYNC110  the lease has no event to wait for
            await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_first_makes_the_lease_with_epoch_one() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    assert not leader.active
    await leader.acquire()
    assert leader.active
    assert (leases.holder, leases.epoch, leader.epoch) == ("a", 1, 1)


async def test_a_second_waits_until_the_lease_stood_unchanged_for_its_duration() -> None:
    leases, clock = Leases(), Clock()
    await candidate(leases, "a", clock).acquire()
    second = candidate(leases, "b", clock)
    task = asyncio.create_task(second.acquire())
    for _ in range(5):
        clock.now += 1
        await asyncio.sleep(0.02)
    assert not task.done()
    clock.now += 3
    await asyncio.wait_for(task, 5)
    assert (leases.holder, leases.epoch, second.epoch) == ("b", 2, 2)


async def test_a_released_lease_is_taken_at_once() -> None:
    leases, clock = Leases(), Clock()
    first = candidate(leases, "a", clock)
    await first.acquire()
    await first.release()
    assert not first.active
    second = candidate(leases, "b", clock)
    await asyncio.wait_for(second.acquire(), 5)
    assert (leases.holder, leases.epoch) == ("b", 2)


async def test_the_same_identity_takes_its_lease_back_at_once_with_a_new_epoch() -> None:
    leases, clock = Leases(), Clock()
    await candidate(leases, "a", clock).acquire()
    again = candidate(leases, "a", clock)
    await asyncio.wait_for(again.acquire(), 5)
    assert again.epoch == 2


async def test_of_two_that_try_at_once_one_wins() -> None:
    leases, clock = Leases(), Clock()
    one, other = candidate(leases, "a", clock), candidate(leases, "b", clock)
    tasks = [asyncio.create_task(leadership.acquire()) for leadership in (one, other)]
    await asyncio.sleep(0.1)
    assert [task.done() for task in tasks].count(True) == 1
    assert [one.active, other.active].count(True) == 1
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_another_holder_ends_it() -> None:
    leases, clock = Leases(), Clock()
    first, second = candidate(leases, "a", clock), candidate(leases, "b", clock)
    await first.acquire()
    task = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.05)
    clock.now += TIMES.duration + 1
    await asyncio.wait_for(task, 5)
    with pytest.raises(LeadershipLostError, match="held by b"):
        await first.hold()


async def test_without_renewal_it_does_not_act_and_goes_on_when_the_lease_is_still_its_own() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.acquire()
    clock.now += TIMES.deadline
    assert not leader.active
    leases.failures = [ApiUnavailable("away")] * 2
    await hold_until(leader, lambda: leader.active)
    assert leader.active
    assert leader.epoch == 1


async def test_a_higher_epoch_met_raises_ours_above_it() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.acquire()
    leader.meet(7)
    await hold_until(leader, lambda: leader.epoch > 7)
    assert leader.epoch == leases.epoch == 8


async def test_a_raise_whose_answer_is_lost_is_no_loss_of_leadership() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.acquire()
    leases.lost_answers = 1
    leader.meet(7)
    await hold_until(leader, lambda: leader.epoch > 7)
    assert leader.epoch == leases.epoch


async def test_a_process_of_the_same_name_with_a_higher_epoch_ends_the_old_one() -> None:
    leases, clock = Leases(), Clock()
    old, new = candidate(leases, "a", clock), candidate(leases, "a", clock)
    await old.acquire()
    await new.acquire()
    with pytest.raises(LeadershipLostError):
        await old.hold()


async def test_the_epoch_survives_what_others_wrote_into_the_lease() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.acquire()
    assert leases.lease is not None
    leases.lease["metadata"]["annotations"]["note"] = "kept"
    leases.version += 1
    leases.lease["metadata"]["resourceVersion"] = str(leases.version)
    writes = len(leases.writes)
    await hold_until(leader, lambda: len(leases.writes) > writes)
    assert leases.lease["metadata"]["annotations"] == {EPOCH_ANNOTATION: "1", "note": "kept"}


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (NotFound(404, "NotFound", "namespaces not found"), "kubectl create namespace system"),
        (Forbidden(403, "Forbidden", "may not"), "allow get, create and update on leases"),
    ],
)
async def test_an_unusable_lease_says_what_to_do(error: Exception, remedy: str) -> None:
    leases = Leases()
    leases.failures = [NotFound(404, "NotFound", "no lease"), error]
    with pytest.raises(LeaseUnusableError, match=remedy):
        await candidate(leases, "a", Clock()).acquire()


async def test_a_renewal_counts_from_before_it_was_sent() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    leases.takes = (clock, 3.0)
    await leader.acquire()
    clock.now += TIMES.deadline - 3.0
    assert not leader.active


async def test_a_standby_begins_anew_to_count_when_the_api_server_was_away() -> None:
    leases, clock = Leases(), Clock()
    first, second = candidate(leases, "a", clock), candidate(leases, "b", clock)
    await first.acquire()
    task = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.05)
    clock.now += TIMES.duration - 1
    leases.failures = [ApiUnavailable("away")]
    await asyncio.sleep(0.05)
    clock.now += TIMES.duration - 1
    await asyncio.sleep(0.05)
    assert not task.done()  # the first has had no whole duration in which to renew
    clock.now += 2
    await asyncio.wait_for(task, 5)
    assert leases.holder == "b"


async def test_an_outage_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.acquire()
    clock.now += TIMES.deadline
    leases.failures = [ApiUnavailable("away")] * 5
    await hold_until(leader, lambda: leader.active)
    told = capsys.readouterr().out
    assert told.count("does not answer about the lease") == 1
    assert told.count("nothing is decided") == 1
    assert told.count("renewed the lease again") == 1


async def test_a_renewal_that_was_cut_off_does_not_keep_a_release_away() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.acquire()
    leases.lost_answers = 1
    leader.meet(7)
    await hold_until(leader, lambda: leases.lost_answers == 0)
    await leader.release()
    assert leases.holder == ""
    assert leases.epoch == 8


async def test_a_release_leaves_another_holders_lease_alone() -> None:
    leases, clock = Leases(), Clock()
    first, second = candidate(leases, "a", clock), candidate(leases, "b", clock)
    await first.acquire()
    task = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.05)
    clock.now += TIMES.duration + 1
    await asyncio.wait_for(task, 5)
    with pytest.raises(LeadershipLostError):
        await first.hold()
    await first.release()
    assert leases.holder == "b"


async def test_credentials_that_cannot_be_read_for_a_moment_end_nothing() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.acquire()
    clock.now += TIMES.deadline
    leases.failures = [CredentialsError("no token"), Unauthorized(401, "Unauthorized", "an old token")]
    await hold_until(leader, lambda: leader.active)
    assert leader.active


@pytest.mark.parametrize("times", [(3, 3.0, 0.5), (3, 2.0, 2.0), (3, 2.0, 0.0)])
def test_times_that_are_not_safe_are_refused(times: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="renew < deadline < duration"):
        LeaseTimes(*times)


async def test_release_never_raises() -> None:
    leases, clock = Leases(), Clock()
    leader = candidate(leases, "a", clock)
    await leader.release()
    await leader.acquire()
    leases.failures = [ApiUnavailable("away")]
    await leader.release()
    assert leases.holder == "a"
