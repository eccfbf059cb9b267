"""A route table alone: what each event makes it say and do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mediaserver.cascade.messages import (
    Announce,
    Ended,
    EntryKey,
    Join,
    Leave,
    LinkName,
    ParticipantInfo,
    Paused,
    Piped,
    PipeRef,
    Produced,
    ProducerInfo,
    RefreshEnd,
    RefreshStart,
    Refused,
    RouteMessage,
    RouterName,
    Routes,
    StandingJoin,
    Unpiped,
    Update,
    Withdraw,
)
from mediaserver.cascade.routes import (
    Attached,
    AttachFailed,
    Effect,
    Flow,
    Leg,
    Mirror,
    ParticipantAppeared,
    ParticipantGone,
    ParticipantReplaced,
    Produce,
    ProducerAppeared,
    ProducerChanged,
    ProducerGone,
    Restored,
    RouteTable,
    Send,
    Serve,
    Unproduce,
    Unserve,
)
from mediaserver.mediasoup import RtpParameters

A, B, C, D = (RouterName(name) for name in "abcd")
PRUNE = 10.0
RTP = RtpParameters(codecs=[])


def mic(router: str = "a", version: int = 0, **more: Any) -> ProducerInfo:
    return ProducerInfo(
        id="mic", kind="audio", peer_id="pat", source="mic", router=router, version=version, **more
    )


def pat(router: str, attachment: str, joined_at: int) -> ParticipantInfo:
    return ParticipantInfo(
        peer_id="pat", attachment=attachment, joined_at=joined_at, server=f"s/{router}", router=router
    )


KEY = mic().key


def announce(*path: str, entry: ProducerInfo | ParticipantInfo | None = None) -> Announce:
    return Announce(entry=entry or mic(path[-1]), path=[RouterName(name) for name in path])


def sent(effects: list[Effect], link: RouterName | None = None) -> list[RouteMessage]:
    return [each.message for each in effects if isinstance(each, Send) and link in (None, each.link)]


def others(effects: list[Effect]) -> list[Effect]:
    return [each for each in effects if not isinstance(each, Send)]


def linked(name: RouterName, *links: RouterName) -> RouteTable:
    table = RouteTable(name, prune_delay=PRUNE)
    for link in links:
        table.link_up(link, 0.0)
    return table


class TestPaths:
    def test_a_local_entry_is_announced_to_every_neighbour(self) -> None:
        table = linked(A, B, C)
        effects = table.open(mic(), 0.0)
        assert sent(effects, B) == sent(effects, C) == [announce("a")]
        assert others(effects) == [ProducerAppeared(mic())]

    def test_the_whole_table_goes_to_a_new_neighbour(self) -> None:
        table = linked(A)
        table.open(mic(), 0.0)
        assert sent(table.link_up(B, 0.0)) == [RefreshStart(), announce("a"), RefreshEnd()]

    def test_it_is_passed_on_with_the_path_and_not_to_who_is_on_it(self) -> None:
        table = linked(C, A, B, D)
        effects = table.receive(B, announce("b", "a"), 0.0)
        assert sent(effects, D) == [announce("c", "b", "a")]
        assert not sent(effects, A)
        assert not sent(effects, B)

    def test_the_shortest_path_wins_and_ties_go_by_name(self) -> None:
        table = linked(D, A, B, C)
        table.receive(C, announce("c", "x", "a"), 0.0)
        table.receive(B, announce("b", "x", "a"), 0.0)
        assert table.path(KEY) == ("b", "x", "a")
        table.receive(A, announce("a"), 0.0)
        assert table.path(KEY) == ("a",)

    def test_an_announcement_that_contains_this_router_is_dropped(self) -> None:
        table = linked(B, C)
        table.receive(C, announce("c", "b", "a"), 0.0)
        assert not table.producers

    def test_it_also_takes_back_what_that_neighbour_announced_before(self) -> None:
        table = linked(B, C)
        table.receive(C, announce("c", "a"), 0.0)
        table.receive(C, announce("c", "b", "a"), 0.0)
        assert table.path(KEY) is None

    @pytest.mark.parametrize("path", [(), ("x", "a")])
    def test_a_path_that_does_not_begin_with_the_neighbour_is_ignored(self, path: tuple[str, ...]) -> None:
        table = linked(B, C)
        message = Announce(entry=mic(), path=[RouterName(name) for name in path])
        assert table.receive(C, message, 0.0) == []
        assert not table.producers

    def test_a_withdrawn_path_gives_way_to_the_next_best(self) -> None:
        table = linked(C, A, B)
        table.receive(A, announce("a"), 0.0)
        table.receive(B, announce("b", "a"), 0.0)
        effects = table.receive(A, Withdraw(key=KEY), 0.0)
        assert table.path(KEY) == ("b", "a")
        assert sent(effects, B) == [Withdraw(key=KEY)]

    def test_without_any_path_an_entry_is_held_and_then_forgotten(self) -> None:
        table = linked(C, A)
        table.receive(A, announce("a"), 0.0)
        assert others(table.link_down(A, 1.0)) == []
        assert table.producers
        assert table.deadline == 4.0
        assert others(table.tick(4.0)) == [ProducerGone(mic())]
        assert not table.producers
        assert table.deadline is None

    def test_a_path_that_returns_in_time_is_not_noticed(self) -> None:
        table = linked(C, A)
        table.receive(A, announce("a"), 0.0)
        table.link_down(A, 1.0)
        table.link_up(A, 2.0)
        assert others(table.receive(A, announce("a"), 2.0)) == []
        assert others(table.tick(9.0)) == []

    def test_the_end_spreads_at_once_and_no_late_announcement_undoes_it(self) -> None:
        table = linked(C, A, B)
        table.receive(A, announce("a"), 0.0)
        table.receive(B, announce("b", "a"), 0.0)
        effects = table.receive(A, Ended(key=KEY), 1.0)
        assert sent(effects) == [Ended(key=KEY)]
        assert others(effects) == [ProducerGone(mic())]
        assert table.receive(B, announce("b", "a"), 1.0) == []
        assert table.receive(B, Ended(key=KEY), 1.0) == []
        assert not table.producers

    def test_the_memory_of_what_has_ended_is_bounded_in_time(self) -> None:
        table = linked(C, A)
        table.receive(A, announce("a"), 0.0)
        table.receive(A, Ended(key=KEY), 0.0)
        assert table.deadline is not None
        table.tick(table.deadline)
        assert table.deadline is None

    def test_a_refresh_withdraws_what_it_leaves_out(self) -> None:
        table = linked(C, B)
        other = msgspec.structs.replace(mic("b"), id="cam")
        table.receive(B, announce("b", "a"), 0.0)
        table.receive(B, announce("b", entry=other), 0.0)
        table.receive(B, RefreshStart(), 0.0)
        effects = table.receive(B, RefreshEnd(), 0.0)
        assert others(effects) == [ProducerGone(other)]  # its origin itself left it out
        assert table.path(KEY) is None
        assert KEY.id in table.producers  # held

    def test_newer_versions_spread_and_older_ones_do_not(self) -> None:
        table = linked(C, A, B)
        table.receive(A, announce("a"), 0.0)
        newer = mic(version=2, paused=True)
        effects = table.receive(A, Update(entry=newer), 0.0)
        assert sent(effects, B) == [Update(entry=newer)]
        assert others(effects) == [ProducerChanged(newer)]
        assert table.receive(B, Update(entry=mic(version=1)), 0.0) == []
        assert table.producers["mic"].paused

    def test_messages_of_who_is_no_neighbour_are_ignored(self) -> None:
        table = linked(C)
        assert table.receive(A, announce("a"), 0.0) == []
        table.link_up(A, 0.0)
        table.link_down(A, 0.0)
        assert table.open(mic("c"), 0.0) == [ProducerAppeared(mic("c"))]

    def test_all_local_entries_end_with_the_router(self) -> None:
        table = linked(A, B)
        table.open(mic(), 0.0)
        table.open(pat("a", "one", 1), 0.0)
        messages = sent(table.end_all(0.0))
        assert messages == [Ended(key=KEY), Ended(key=EntryKey(kind="participant", id="one"))]


class TestParticipants:
    def test_the_newest_join_wins_and_the_older_one_ends_where_it_is(self) -> None:
        table = linked(A, B)
        table.open(pat("a", "one", 1), 0.0)
        effects = table.receive(B, announce("b", entry=pat("b", "two", 2)), 0.0)
        assert others(effects) == [
            ParticipantGone(pat("a", "one", 1)),
            ParticipantAppeared(pat("b", "two", 2)),
            ParticipantReplaced(pat("a", "one", 1)),
        ]
        assert sent(effects) == [Ended(key=EntryKey(kind="participant", id="one"))]
        assert table.end(EntryKey(kind="participant", id="one"), 0.0) == []

    def test_an_older_join_elsewhere_changes_nothing_here(self) -> None:
        table = linked(A, B)
        table.open(pat("a", "two", 2), 0.0)
        assert others(table.receive(B, announce("b", entry=pat("b", "one", 1)), 0.0)) == []
        assert table.participants["pat"].attachment == "two"

    def test_of_equal_times_the_greater_server_wins(self) -> None:
        table = linked(A, B)
        table.open(pat("a", "one", 1), 0.0)
        table.receive(B, announce("b", entry=pat("b", "two", 1)), 0.0)
        assert table.participants["pat"].router == "b"

    def test_an_attachment_that_is_late_loses_at_once(self) -> None:
        table = linked(A, B)
        table.receive(B, announce("b", entry=pat("b", "two", 2)), 0.0)
        assert ParticipantReplaced(pat("a", "one", 1)) in table.open(pat("a", "one", 1), 0.0)

    def test_a_new_name_is_a_change(self) -> None:
        table = linked(A, B)
        table.open(pat("a", "one", 1), 0.0)
        renamed = msgspec.structs.replace(pat("a", "one", 1), display_name="Pat", version=1)
        assert sent(table.open(renamed, 0.0)) == [Update(entry=renamed)]
        assert table.participants["pat"].display_name == "Pat"


def joined(table: RouteTable, link: RouterName) -> int:
    """The number of the join that the table has just sent; checks that it sent one."""
    effects = table.acquire("mic", 0.0)
    (message,) = sent(effects, link)
    assert isinstance(message, Join)
    return message.join


def piped(join: int, serve: int = 7, *, paused: bool = False) -> Piped:
    return Piped(producer="mic", join=join, serve=serve, kind="audio", rtp_parameters=RTP, paused=paused)


class TestJoins:
    def test_the_origin_serves_who_joins(self) -> None:
        table = linked(A, B)
        table.open(mic(), 0.0)
        (serve,) = table.receive(B, Join(producer="mic", join=3), 0.0)
        assert isinstance(serve, Serve)
        assert table.served(serve.leg, "audio", RTP, True) == [
            Send(B, piped(3, serve.leg.serve, paused=True))
        ]
        produced = Produced(producer="mic", join=3, serve=serve.leg.serve)
        assert table.receive(B, produced, 0.0) == [Flow(serve.leg)]
        assert table.receive(B, Leave(producer="mic", join=3), 0.0) == [Unserve(serve.leg)]
        assert not table.holds_joins

    def test_an_attach_returns_when_the_piped_producer_exists(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        (produce,) = table.receive(A, piped(join), 0.0)
        leg = Leg("mic", A, join, 7)
        assert produce == Produce(leg, "audio", RTP, False)
        assert table.produced(leg, 0.0) == [
            Send(A, Produced(producer="mic", join=join, serve=7)),
            Attached("mic"),
        ]
        assert table.acquire("mic", 0.0) == [Attached("mic")]
        assert table.references("mic") == 2

    def test_a_router_in_between_serves_only_once_it_has_the_producer(self) -> None:
        table = linked(B, A, C)
        table.receive(A, announce("a"), 0.0)
        (join,) = sent(table.receive(C, Join(producer="mic", join=5), 0.0), A)
        assert isinstance(join, Join)
        table.receive(A, piped(join.join), 0.0)
        effects = table.produced(Leg("mic", A, join.join, 7), 0.0)
        (serve,) = [each for each in effects if isinstance(each, Serve)]
        assert (serve.leg.link, serve.leg.join) == (C, 5)

    def test_prune_after_the_delay_and_not_when_wanted_again(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        table.receive(A, piped(join), 0.0)
        table.produced(Leg("mic", A, join, 7), 0.0)
        table.release("mic", 1.0)
        assert table.deadline == 1.0 + PRUNE
        table.acquire("mic", 2.0)
        assert table.deadline is None
        table.release("mic", 3.0)
        assert table.tick(3.0 + PRUNE) == [
            Unproduce(Leg("mic", A, join, 7)),
            Send(A, Leave(producer="mic", join=join)),
        ]
        assert not table.holds_joins

    def test_releasing_too_often_does_no_harm(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        assert table.release("mic", 0.0) == []
        assert not table.holds_joins

    def test_what_is_not_known_cannot_be_acquired(self) -> None:
        with pytest.raises(KeyError):
            linked(B, A).acquire("mic", 0.0)

    def test_a_lost_link_is_joined_around_and_told_as_restored(self) -> None:
        table = linked(B, A, C)
        table.receive(A, announce("a"), 0.0)
        table.receive(C, announce("c", "a"), 0.0)
        join = joined(table, A)
        table.receive(A, piped(join), 0.0)
        table.produced(Leg("mic", A, join, 7), 0.0)
        effects = table.link_down(A, 1.0)
        assert Unproduce(Leg("mic", A, join, 7)) in effects
        (again,) = [each for each in sent(effects, C) if isinstance(each, Join)]
        table.receive(C, piped(again.join), 1.0)
        assert Restored("mic") in table.produced(Leg("mic", C, again.join, 7), 1.0)

    def test_a_refused_join_is_tried_again(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        assert table.receive(A, Refused(producer="mic", join=join, reason="full"), 0.0) == [
            AttachFailed("mic", "full")
        ]
        assert table.deadline is not None
        (again,) = sent(table.tick(table.deadline), A)
        assert isinstance(again, Join)
        assert again.join > join

    def test_a_failed_consumer_refuses_the_neighbour(self) -> None:
        table = linked(A, B)
        table.open(mic(), 0.0)
        (serve,) = table.receive(B, Join(producer="mic", join=3), 0.0)
        assert isinstance(serve, Serve)
        refused = Refused(producer="mic", join=3, reason="no")
        assert table.serve_failed(serve.leg, "no", 0.0) == [Send(B, refused)]
        assert not table.holds_joins

    def test_a_failed_producer_leaves_and_tries_again(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        table.receive(A, piped(join), 0.0)
        effects = table.produce_failed(Leg("mic", A, join, 7), "no", 0.0)
        assert sent(effects) == [Leave(producer="mic", join=join)]
        assert AttachFailed("mic", "no") in effects
        assert table.deadline is not None

    def test_the_end_of_the_producer_voids_references(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        table.receive(A, piped(join), 0.0)
        table.produced(Leg("mic", A, join, 7), 0.0)
        effects = table.receive(A, Ended(key=KEY), 0.0)
        assert others(effects) == [
            Unproduce(Leg("mic", A, join, 7)),
            AttachFailed("mic", "the producer has ended"),
            ProducerGone(mic()),
        ]
        assert not table.holds_joins

    def test_pause_is_mirrored_for_the_present_serve_only(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        table.receive(A, piped(join), 0.0)
        pause = Paused(producer="mic", join=join, serve=7, paused=True)
        assert table.receive(A, pause, 0.0) == [Mirror(Leg("mic", A, join, 7), True)]
        assert table.receive(A, msgspec.structs.replace(pause, serve=6), 0.0) == []

    def test_what_is_made_too_late_is_closed(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        table.receive(A, piped(join, 7), 0.0)
        old = Leg("mic", A, join, 7)
        assert Unproduce(old) in table.receive(A, Unpiped(producer="mic", join=join, serve=7), 0.0)
        assert table.produced(old, 0.0) == [Unproduce(old)]
        table.receive(A, piped(join, 8), 0.0)
        assert Attached("mic") in table.produced(Leg("mic", A, join, 8), 0.0)


class TestRefreshOfJoins:
    def serving(self) -> tuple[RouteTable, Leg]:
        table = linked(A, B)
        table.open(mic(), 0.0)
        (serve,) = table.receive(B, Join(producer="mic", join=3), 0.0)
        assert isinstance(serve, Serve)
        table.served(serve.leg, "audio", RTP, False)
        return table, serve.leg

    def test_a_lost_leave_is_made_up_for(self) -> None:
        table, leg = self.serving()
        assert table.receive(B, RefreshStart(), 0.0) == [Unserve(leg)]
        assert not table.holds_joins

    def test_a_lost_join_is_made_up_for(self) -> None:
        table = linked(A, B)
        table.open(mic(), 0.0)
        wish = StandingJoin(producer="mic", join=9, serve=0)
        (serve,) = table.receive(B, RefreshStart(joins=[wish]), 0.0)
        assert isinstance(serve, Serve)

    def test_a_lost_answer_is_made_up_for(self) -> None:
        table, leg = self.serving()
        wish = StandingJoin(producer="mic", join=3, serve=0)
        effects = table.receive(B, RefreshStart(joins=[wish]), 0.0)
        (again,) = [each for each in effects if isinstance(each, Serve)]
        assert Unserve(leg) in effects
        assert again.leg.serve > leg.serve

    def test_a_lost_acknowledgement_is_made_up_for(self) -> None:
        table, leg = self.serving()
        wish = StandingJoin(producer="mic", join=3, serve=leg.serve)
        assert table.receive(B, RefreshStart(joins=[wish]), 0.0) == [Flow(leg)]

    def test_what_stands_is_told_in_a_refresh(self) -> None:
        table = linked(B, A)
        table.receive(A, announce("a"), 0.0)
        join = joined(table, A)
        assert sent(table.link_up(A, 0.0))[0] == RefreshStart(
            joins=[StandingJoin(producer="mic", join=join, serve=0)]
        )
        table.receive(A, piped(join), 0.0)
        table.produced(Leg("mic", A, join, 7), 0.0)
        assert sent(table.link_up(A, 0.0))[0] == RefreshStart(
            joins=[StandingJoin(producer="mic", join=join, serve=7)]
        )


def test_route_messages_survive_the_wire() -> None:
    messages: list[RouteMessage] = [
        announce("a"),
        announce("a", entry=pat("a", "one", 1)),
        piped(1),
        RefreshStart(joins=[StandingJoin(producer="mic", join=1, serve=0)]),
        Ended(key=KEY),
    ]
    routes = Routes(
        link=LinkName(namespace="n", first=A, second=B),
        pipe=PipeRef(opener="x", attempt=1),
        messages=messages,
    )
    wire = {**msgspec.to_builtins(routes), "fromANewerVersion": True}
    assert msgspec.json.decode(msgspec.json.encode(wire), type=Routes) == routes
