"""What the operator's log tells of a session from apply to delete: every change, each once."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from integration.operator.world import OperatorProcess, World
from mafalda_operator.effects.api import SECRETS, SESSIONS

UNDER_WAY = {"Scheduling", "Opening", "ServerLost", "HeardByPeer"}
"""Why it may be told not to be ready meanwhile, if the machine is slow enough for its status to say so."""


def told(operator: OperatorProcess, **names: str) -> list[dict[str, Any]]:
    """The lines that name these things."""
    lines = [json.loads(line) for line in operator.output.splitlines()]
    return [line for line in lines if all(line.get(key) == name for key, name in names.items())]


async def until_told(world: World, **names: str) -> None:
    async def is_told() -> bool:
        return bool(told(world.operators[0], **names))

    await world.eventually(is_told, f"a line of {names}")


async def test_the_story_of_a_session_from_apply_to_delete(world: World) -> None:
    await world.cluster_of(servers=3)
    operator = await world.operator()
    await world.connected()
    session = f"{world.name}/standup"
    await world.session("standup", routers=2)
    await world.ready("standup")
    before = await world.routers()
    lost, (_, server, _) = next(iter(before.items()))
    victim = world.servers.pop(server)
    await victim.kill()

    async def moved() -> bool:
        return len(await world.routers()) == 2 and lost not in await world.routers()

    await world.eventually(moved, "moved", 30)
    await world.consistent(2, sessions=1)
    (made,) = (await world.routers()).keys() - before.keys()
    (kept,) = before.keys() - {lost}
    await until_told(world, session=session, reason="RouterReady", router=f"{world.name}/{made}")
    await world.ready("standup")
    await world.delete_session("standup")
    await until_told(world, session=session, reason="SessionEnded")
    story = told(operator, session=session)
    print(*(f"{line['reason']}: {line['message']}" for line in story), sep="\n")
    changes = [
        (line["reason"], line.get("router", "").removeprefix(f"{world.name}/"))
        for line in story
        if line["reason"] not in UNDER_WAY
    ]
    links = [tuple(sorted(pair)) for pair in ((lost, kept), (kept, made))]
    begin = [
        *[("Scheduled", lost), ("Scheduled", kept), ("RouterReady", lost), ("RouterReady", kept)],
        *[("Accepted", ""), ("LinkUp", links[0][0]), ("Available", ""), ("Ready", "")],
    ]
    then = [("RouterMoved", made), ("RouterReady", made), ("LinkUp", links[1][0]), ("Replaced", lost)]
    end = [("SessionDeleted", ""), ("SessionGone", kept), ("SessionGone", made), ("SessionEnded", "")]
    assert Counter(changes[: len(begin)]) == Counter(begin)
    assert changes[0] == ("Accepted", "")
    assert changes.index(("Available", "")) > changes.index(("Scheduled", kept))
    again = Counter(changes) - Counter([*begin, *then, *end])
    assert not again or again == Counter({("Ready", ""): 1})
    assert not Counter([*begin, *then, *end]) - Counter(changes)
    assert (changes[-4][0], changes[-1][0]) == ("SessionDeleted", "SessionEnded")

    scheduled = next(line for line in story if line["reason"] == "RouterMoved")
    assert scheduled["server"].startswith(f"{world.name}/m")
    assert isinstance(scheduled["worker"], int)
    assert lost in scheduled["message"]
    assert server in scheduled["message"]
    assert len(told(operator, reason="ServerLost", server=f"{world.name}/{server}")) == 1
    assert all({"ts", "level", "message", "reason", "session"} <= line.keys() for line in story)
    secret = await world.api.get(SECRETS, world.name, "main-token-keys")
    kept = [*secret["data"].values(), world.key_file.read_text()]
    assert not [key for key in kept if key in operator.output]


async def test_why_a_session_is_not_accepted_is_told_once(world: World) -> None:
    await world.cluster_of(servers=1)
    operator = await world.operator()
    await world.connected()
    await world.api.create(
        SESSIONS, world.name, {"metadata": {"name": "lost"}, "spec": {"clusterRef": {"name": "none"}}}
    )
    session = f"{world.name}/lost"

    async def refused() -> bool:
        return bool(told(operator, session=session))

    await world.eventually(refused, "refused")
    await world.session("other", routers=1)
    await world.ready("other")
    (line,) = told(operator, session=session)
    assert (line["reason"], line["level"]) == ("ClusterNotFoundOrForbidden", "warning")
    assert "correct spec.clusterRef" in line["message"]


async def test_a_burst_costs_eight_lines_a_session_of_two_routers(world: World) -> None:
    await world.cluster_of(servers=3, workers=4)
    operator = await world.operator()
    await world.connected()
    names = [f"s{number}" for number in range(40)]
    for name in names:
        await world.session(name)
    await world.ready(*names, timeout=60)
    lines = Counter(line["session"] for line in told(operator) if "session" in line)
    print(f"lines a session: {sorted(Counter(lines.values()).items())}")
    assert len(lines) == 40
    assert max(lines.values()) <= 8


async def test_a_standby_and_a_new_leader_tell_nothing_that_was_told(world: World) -> None:
    await world.cluster_of(servers=2)
    leader = await world.operator(identity="leader")
    await world.session("one")
    await world.ready("one")
    standby = await world.operator(identity="standby")

    async def standing_by() -> bool:
        return "standing by" in standby.output

    await world.eventually(standing_by, "standing by")
    leader.kill()
    await world.session("two")
    await world.ready("two", timeout=30)
    await world.consistent(2, sessions=2)
    assert told(standby, session=f"{world.name}/one") == []
    assert len(told(standby, session=f"{world.name}/two")) == 8
