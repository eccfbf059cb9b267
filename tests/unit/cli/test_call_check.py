"""What `mafalda check` says of a call without media."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from mafalda_operator.cli.call_check import describe_silence
from mafalda_operator.cli.demo.call import Call
from mafalda_operator.cli.participant.reachability import Reachability

CANDIDATES = [{"ip": "127.0.0.1", "port": 9, "protocol": "udp"}]


def silent_call(*reachabilities: Reachability) -> Call:
    participants = {
        str(number): SimpleNamespace(reachability=one) for number, one in enumerate(reachabilities)
    }
    found = SimpleNamespace(participants=participants, describe=lambda: "0 of 4 flows.")
    return cast(Call, found)


async def test_addresses_that_do_not_answer_are_named_with_the_remedy() -> None:
    one, other = Reachability(), Reachability()
    one.tried(CANDIDATES)
    other.tried(CANDIDATES)
    said = await describe_silence(silent_call(one, other))
    assert said.count("127.0.0.1:9: UDP does not answer") == 1
    for words in ("signalling works", "firewall", "spec.network.announce", "0 of 4 flows."):
        assert words in said


async def test_addresses_that_answer_are_not_suspected() -> None:
    one = Reachability()
    one.tried(CANDIDATES)
    one.reached(CANDIDATES)
    said = await describe_silence(silent_call(one))
    assert "though the servers' addresses answer" in said
    assert "firewall" not in said
