from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from mediaserver.control.contract import Address
from mediaserver.gateway.placement import AVOID_SECONDS, RECENT_SECONDS, Candidate, Placements
from mediaserver.gateway.resources import ObjectKey


def candidate(name: str, participants: int = 0, *, ready: bool = True) -> Candidate:
    server = ObjectKey("media", f"server-of-{name}")
    return Candidate(ObjectKey("shop", name), server, Address(host="h", port=1), participants, ready)


def names(candidates: list[Candidate]) -> list[str]:
    return [candidate.router.name for candidate in candidates]


def test_least_loaded_first_ties_by_name() -> None:
    routers = [candidate("c", 1), candidate("b", 2), candidate("a", 1)]
    assert names(Placements().order(routers, 0)) == ["a", "c", "b"]


def test_own_placements_count_for_a_while() -> None:
    placements = Placements()
    routers = [candidate("a"), candidate("b")]
    placements.placed(ObjectKey("shop", "a"), 100)
    assert names(placements.order(routers, 100 + RECENT_SECONDS - 0.1)) == ["b", "a"]
    assert names(placements.order(routers, 100 + RECENT_SECONDS)) == ["a", "b"]


def test_not_ready_by_status_comes_last_but_comes() -> None:
    routers = [candidate("a", 0, ready=False), candidate("b", 9)]
    assert names(Placements().order(routers, 0)) == ["b", "a"]


def test_who_leaves_comes_last_but_comes() -> None:
    routers = [
        replace(candidate("a", 0), leaving=2),
        replace(candidate("b", 3), leaving=1),
        candidate("c", 9, ready=False),
    ]
    assert names(Placements().order(routers, 0)) == ["c", "b", "a"]


def test_who_refused_comes_last_for_a_while() -> None:
    placements = Placements()
    routers = [candidate("a"), candidate("b", 9)]
    placements.refused(ObjectKey("shop", "a"), 100)
    assert names(placements.order(routers, 100 + AVOID_SECONDS - 0.1)) == ["b", "a"]
    assert names(placements.order(routers, 100 + AVOID_SECONDS)) == ["a", "b"]


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(1, 60))
def test_a_burst_levels_the_load(loads: list[int], count: int) -> None:
    """Before any report comes: as if each placement had been reported at once."""
    placements = Placements()
    routers = [candidate(f"r{i}", load) for i, load in enumerate(loads)]
    expected = list(loads)
    for _ in range(count):
        best = min(range(len(expected)), key=lambda i: (expected[i], i))
        chosen = placements.order(routers, 5)[0].router
        assert chosen.name == f"r{best}"
        placements.placed(chosen, 5)
        expected[best] += 1
