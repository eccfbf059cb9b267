"""The order of openings and closings, as the pure decider gives it."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.control.contract import (
    Address,
    DesiredEntry,
    LinkEntry,
    RouterEntry,
    SessionEntry,
    WorkerState,
    link_key,
    router_key,
    session_key,
)
from mediaserver.control.diff import (
    Actual,
    CloseLink,
    CloseRouter,
    OpenLink,
    OpenRouter,
    decide,
)

REMOTE = Address(host="192.0.2.1", port=4000)
SESSION = SessionEntry(namespace="shop", name="standup", uid="s1", issuers=["main"], token_keys={})


def router(name: str, slot: int = 0, **changes: object) -> RouterEntry:
    entry = RouterEntry(
        namespace="shop",
        name=name,
        uid=f"uid-{name}",
        session="standup",
        session_uid="s1",
        worker_slot=slot,
        media_codecs=[],
    )
    return msgspec.structs.replace(entry, **changes)


def link(local: str, remote: str, *, peer: Address | None = REMOTE) -> LinkEntry:
    return LinkEntry(
        namespace="shop",
        session_uid="s1",
        local_router=local,
        remote_router=remote,
        remote_server="media/other",
        remote_peer=peer,
        srtp=peer is not None,
        rtx=True,
    )


def wanted(*entries: DesiredEntry, session: bool = True) -> dict[str, DesiredEntry]:
    desired: dict[str, DesiredEntry] = {}
    if session:
        desired[session_key("shop", "standup")] = SESSION
    for entry in entries:
        if isinstance(entry, RouterEntry):
            desired[router_key("shop", entry.name)] = entry
        elif isinstance(entry, LinkEntry):
            desired[link_key("shop", entry.local_router, entry.remote_router)] = entry
    return desired


def actual(
    *entries: RouterEntry | LinkEntry,
    failing: int | None = None,
    opening: frozenset[str] = frozenset(),
    draining: bool = False,
) -> Actual:
    workers = {slot: WorkerState(slot=slot, state="Running") for slot in range(2)}
    if failing is not None:
        workers[failing] = WorkerState(slot=failing, state="Failing", reason="worker 7 died")
    return Actual(
        routers={router_key("shop", e.name): e for e in entries if isinstance(e, RouterEntry)},
        links={
            link_key("shop", e.local_router, e.remote_router): e for e in entries if isinstance(e, LinkEntry)
        },
        workers=workers,
        opening=opening,
        draining=draining,
    )


A, B = router("a"), router("b", slot=1)
KEY_A, KEY_B = router_key("shop", "a"), router_key("shop", "b")
LINK_KEY = link_key("shop", "a", "b")


def test_nothing_to_do_when_all_is_as_desired() -> None:
    decision = decide(wanted(A, link("a", "z")), actual(A, link("a", "z")))
    assert decision.steps == ()
    assert decision.problems == {}


def test_routers_open_before_their_links() -> None:
    decision = decide(wanted(A, link("a", "z")), actual())
    assert decision.steps == (OpenRouter(KEY_A, A, SESSION),)
    assert decision.problems[link_key("shop", "a", "z")].reason == "Opening"


def test_a_link_waits_while_its_router_is_opening() -> None:
    decision = decide(wanted(A, link("a", "z")), actual(A, opening=frozenset({KEY_A})))
    assert decision.steps == ()


def test_a_link_opens_once_its_router_is_there() -> None:
    entry = link("a", "z")
    assert decide(wanted(A, entry), actual(A)).steps == (OpenLink(link_key("shop", "a", "z"), entry),)


def test_a_link_inside_the_server_waits_for_both_routers() -> None:
    entry = link("a", "b", peer=None)
    assert decide(wanted(A, B, entry), actual(A)).steps == (OpenRouter(KEY_B, B, SESSION),)
    assert decide(wanted(A, B, entry), actual(A, B)).steps == (OpenLink(LINK_KEY, entry),)


def test_links_close_before_their_routers() -> None:
    now = actual(A, link("a", "z"))
    assert decide({}, now).steps == (CloseLink(link_key("shop", "a", "z"), "no longer desired"),)
    assert decide({}, actual(A)).steps == (CloseRouter(KEY_A, "no longer desired"),)


def test_a_router_that_is_to_be_left_is_not_opened_anew() -> None:
    entry = link("a", "z")
    leaving = msgspec.structs.replace(A, leaving=True)
    assert decide(wanted(leaving, entry), actual(A, entry)).steps == ()
    assert decide(wanted(A, entry), actual(leaving, entry)).steps == ()
    other = msgspec.structs.replace(leaving, worker_slot=1)
    assert decide(wanted(other), actual(A)).steps == (CloseRouter(KEY_A, "changed"),)


def test_a_router_that_moved_slot_is_closed_with_its_links_then_opened() -> None:
    moved = router("a", slot=1)
    desired = wanted(moved, link("a", "z"))
    first = decide(desired, actual(A, link("a", "z")))
    assert [type(step) for step in first.steps] == [CloseLink]
    second = decide(desired, actual(A))
    assert second.steps == (CloseRouter(KEY_A, "changed"),)
    third = decide(desired, actual())
    assert third.steps == (OpenRouter(KEY_A, moved, SESSION),)


def test_a_changed_link_is_closed_then_opened() -> None:
    changed = msgspec.structs.replace(link("a", "z"), rtx=False)
    desired = wanted(A, changed)
    assert [type(step) for step in decide(desired, actual(A, link("a", "z"))).steps] == [CloseLink]
    assert decide(desired, actual(A)).steps == (OpenLink(link_key("shop", "a", "z"), changed),)


def test_a_router_lost_with_its_worker_is_reopened_after_its_links_were_closed() -> None:
    desired = wanted(A, link("a", "z"))
    first = decide(desired, actual(link("a", "z")))
    assert first.steps == (CloseLink(link_key("shop", "a", "z"), "its router closes or has closed"),)
    assert decide(desired, actual()).steps == (OpenRouter(KEY_A, A, SESSION),)


def test_a_router_waits_for_its_worker_and_says_why() -> None:
    decision = decide(wanted(A), actual(failing=0))
    assert decision.steps == ()
    problem = decision.problems[KEY_A]
    assert (problem.reason, problem.message) == ("WorkerFailing", "worker 7 died")


def test_a_slot_that_does_not_exist() -> None:
    problem = decide(wanted(router("a", slot=2)), actual()).problems[KEY_A]
    assert problem.reason == "NoSuchSlot"
    assert "0 to 1" in problem.message


def test_a_session_has_one_router_on_a_worker() -> None:
    rival = router("b")
    assert decide(wanted(rival), actual(A)).problems[KEY_B].reason == "SlotTaken"
    both = decide(wanted(A, rival), actual())
    assert both.steps == (OpenRouter(KEY_A, A, SESSION),)
    assert both.problems[KEY_B].reason == "SlotTaken"


def test_routers_of_two_sessions_share_a_worker() -> None:
    other = router("b", session_uid="s2")
    assert len(decide(wanted(A, other), actual()).steps) == 2


def test_a_router_without_its_session_waits() -> None:
    assert decide(wanted(A, session=False), actual()).problems[KEY_A].reason == "SessionMissing"


def test_a_link_between_routers_that_are_elsewhere_fails() -> None:
    problem = decide(wanted(link("x", "z")), actual()).problems[link_key("shop", "x", "z")]
    assert problem.reason == "Failed"


def test_draining_opens_no_router_and_closes_none() -> None:
    decision = decide(wanted(A, B), actual(A, draining=True))
    assert decision.steps == ()
    assert decision.problems[KEY_B].reason == "Draining"


ENTRIES = st.lists(
    st.sampled_from(
        [
            A,
            router("a", slot=1),
            B,
            router("b"),
            router("c", slot=1, session_uid="s2"),
            link("a", "z"),
            link("b", "z"),
            link("a", "b", peer=None),
            msgspec.structs.replace(link("a", "z"), srtp=False),
        ]
    ),
    max_size=6,
)


@given(before=ENTRIES, after=ENTRIES)
def test_every_state_reaches_every_other_by_safe_steps(
    before: list[RouterEntry | LinkEntry], after: list[RouterEntry | LinkEntry]
) -> None:
    """Taking the steps one round after another ends with no step left, and never leaves an order broken."""
    start = actual(*before)
    routers, links = dict(start.routers), dict(start.links)
    desired = wanted(*after)
    for _ in range(20):
        decision = decide(desired, Actual(routers=routers, links=links, workers=start.workers))
        if not decision.steps:
            break
        for step in decision.steps:
            match step:
                case CloseLink(key):
                    del links[key]
                case CloseRouter(key):
                    assert not any(key == router_key("shop", entry.local_router) for entry in links.values())
                    del routers[key]
                case OpenRouter(key, entry):
                    assert key not in routers
                    taken = {(r.session_uid, r.worker_slot) for r in routers.values()}
                    assert (entry.session_uid, entry.worker_slot) not in taken
                    routers[key] = entry
                case OpenLink(key, entry):
                    assert routers[router_key("shop", entry.local_router)]
                    links[key] = entry
    else:
        raise AssertionError("does not settle")
    missing = {key for key, entry in desired.items() if not isinstance(entry, SessionEntry)}
    assert missing - routers.keys() - links.keys() == decision.problems.keys()
    assert routers.items() <= desired.items()
    assert links.items() <= desired.items()
