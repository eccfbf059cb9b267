"""The tap with streams in any pieces, of any bytes, and with applications that number as they please."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from unit.remote.channel_data import (
    APPLICATION_PID,
    NODE_REQUESTS,
    POLICY,
    accept,
    ask,
    consume,
    dump,
    info,
    log_line,
    new_tap,
    pipe,
    plain,
    produce,
    read_answer,
    read_request,
    refuse,
    running_notification,
    split,
    webrtc,
    webrtc_server,
)

from mediaserver.mediasoup._fbs import request, router, transport, web_rtc_transport, worker
from mediaserver.mediasoup.flatbuffer import U16, U32, Table
from mediaserver.mediasoup.messages import Method
from mediaserver.remote.ledger import Change, Closing, Kind, Ledger, Opening
from mediaserver.remote.tap import FIRST_OWN, ChannelTap, TapError

REQUESTS = [
    *split(NODE_REQUESTS),
    ask(3, Method.WORKER_DUMP, ""),
    ask(4, Method.PRODUCER_PAUSE, "p"),
    ask(5, Method.ROUTER_CREATE_PLAINTRANSPORT, "r", plain("t", info("localhost"))),
    ask(6, Method.ROUTER_CREATE_PIPETRANSPORT, "r", pipe("t")),
    ask(
        7, Method.WORKER_CREATE_WEBRTCSERVER, "", webrtc_server("s", info("0.0.0.0"), info("::", protocol=2))
    ),
    ask(0xFFFFFFFF, Method.PRODUCER_RESUME, "p"),
]
ANSWERS = [
    log_line("Dlog"),
    accept(1),
    refuse(2),
    accept(3, dump()),
    running_notification(),
    accept(99, dump()),
]


def pieces(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    ends = sorted(cut % (len(stream) + 1) for cut in cuts)
    for start, stop in zip([0, *ends], [*ends, len(stream)], strict=True):
        yield stream[start:stop]


CUTS = st.lists(st.integers(0, 10**6), max_size=12)


@given(st.lists(st.sampled_from(REQUESTS), max_size=12), CUTS)
def test_requests_come_in_any_pieces(requests: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(requests)
    expected = new_tap().to_worker(stream)
    tap = new_tap()
    parts = [tap.to_worker(piece) for piece in pieces(stream, cuts)]
    assert (b"".join(part[0] for part in parts), b"".join(part[1] for part in parts)) == expected
    assert sum(1 for _ in split(expected[0])) + sum(1 for _ in split(expected[1])) == len(requests)


@given(st.lists(st.sampled_from(ANSWERS), max_size=12), CUTS, st.booleans())
def test_answers_come_in_any_pieces(answers: list[bytes], cuts: list[int], asked: bool) -> None:
    def tap_of() -> ChannelTap:
        tap = new_tap(running=False)
        if asked:
            tap.to_worker(ask(3, Method.WORKER_DUMP, ""))
        return tap

    stream = b"".join(answers)
    expected = tap_of().to_application(stream)
    tap = tap_of()
    assert b"".join(map(tap.to_application, pieces(stream, cuts))) == expected
    assert tap.running == (running_notification() in answers)
    if tap.running:
        assert running_notification(APPLICATION_PID) in expected


@settings(max_examples=20000)
@given(st.lists(st.binary(max_size=200), max_size=5), st.booleans())
def test_garbage_raises_nothing_but_tap_errors(chunks: list[bytes], framed: bool) -> None:
    tap = new_tap(running=False)
    tap.to_worker(ask(3, Method.WORKER_DUMP, "") + ask(4, Method.WORKER_CLOSE_ROUTER, "", _close("r")))
    for way in (tap.to_worker, tap.to_application):
        with contextlib.suppress(TapError):
            for chunk in chunks:
                way(U32.pack(len(chunk)) + chunk if framed else chunk)


def _close(router_id: str) -> worker.CloseRouterRequest:
    return worker.CloseRouterRequest(router_id=router_id)


# -- altered messages: what still passes is what it was taken for ------------------------------------------


@st.composite
def altered(draw: st.DrawFn, messages: list[bytes]) -> bytes:
    """A message some of whose bytes, mostly those that lead to others, are other ones."""
    message = bytearray(draw(st.sampled_from(messages)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.one_of(st.integers(4, min(79, len(message) - 1)), st.integers(4, len(message) - 1)))
        value = draw(st.one_of(st.integers(0, 255), st.integers(0, 40), st.sampled_from(message)))
        message[at] = value
    return bytes(message)


class Reader:
    """Reads as the worker does: whatever the offsets say. Raises IndexError only where the stream ends."""

    def __init__(self, stream: bytes, start: int) -> None:
        self.stream = stream
        self.start = start + 4

    def _at(self, at: int, size: int) -> bytes:
        if at < 0 or at + size > len(self.stream):
            raise IndexError(at)
        return self.stream[at : at + size]

    def follow(self, at: int) -> int:
        return at + int(U32.unpack(self._at(at, 4))[0])

    def field(self, table: int, index: int) -> int:
        vtable = table - int.from_bytes(self._at(table, 4), "little", signed=True)
        entry = 4 + 2 * index
        if entry >= U16.unpack(self._at(vtable, 2))[0]:
            return 0
        offset = int(U16.unpack(self._at(vtable + entry, 2))[0])
        return table + offset if offset else 0

    def request(self) -> tuple[int, int, int] | None:
        """Method, the body's kind and where it is; None if it is no request."""
        root = self.follow(self.start)
        kind = self.field(root, 0)
        if not kind or self._at(kind, 1)[0] != 1:
            return None
        table = self.follow(self.field(root, 1))
        method, body_kind, body = (self.field(table, index) for index in (1, 3, 4))
        return (
            self._at(method, 1)[0] if method else 0,
            self._at(body_kind, 1)[0] if body_kind else 0,
            self.follow(body) if body else 0,
        )


def infos_of(body: Table) -> list[transport.ListenInfo]:
    if isinstance(body, worker.CreateWebRtcServerRequest):
        return body.listen_infos or []
    if isinstance(body, router.CreateWebRtcTransportRequest):
        listen = body.options.listen
        return listen.listen_infos if isinstance(listen, web_rtc_transport.ListenIndividual) else []
    if isinstance(body, router.CreatePlainTransportRequest):
        options = body.options
        return [options.listen_info, *([options.rtcp_listen_info] if options.rtcp_listen_info else [])]
    if isinstance(body, router.CreatePipeTransportRequest):
        return [body.options.listen_info]
    return []


BINDING = {
    Method.WORKER_CREATE_WEBRTCSERVER,
    Method.ROUTER_CREATE_WEBRTCTRANSPORT,
    Method.ROUTER_CREATE_PLAINTRANSPORT,
    Method.ROUTER_CREATE_PIPETRANSPORT,
}


def check_inside(stream: bytes) -> None:
    """No request of these binds what the policy does not allow, as the worker reads it."""
    position = 0
    while position < len(stream):
        read = Reader(stream, position).request()
        size = U32.unpack_from(stream, position)[0]
        if read is not None and read[0] in BINDING:
            message = stream[position : position + 4 + size]
            body = read_request(message).body
            assert body is not None
            assert request.Body_TYPES[type(body)] == read[1]
            pipes = isinstance(body, router.CreatePipeTransportRequest)
            first, last = POLICY.pipe_ports if pipes else POLICY.client_ports
            for entry in infos_of(body):
                assert entry.ip == (POLICY.pipe_host if pipes else POLICY.client_host)
                ipaddress.ip_address(entry.ip)
                ports = entry.port_range
                assert first <= (ports.min or entry.port) <= (ports.max or entry.port) <= last
        position += 4 + size


@settings(max_examples=30000)
@given(st.lists(st.one_of(altered(REQUESTS), st.sampled_from(REQUESTS)), min_size=1, max_size=4))
def test_altered_requests_bind_nothing_outside_of_the_policy(requests: list[bytes]) -> None:
    """What has been learned from good ones makes no difference to what becomes of bad ones."""
    fresh, learned = new_tap(), new_tap()
    learned.to_worker(b"".join(REQUESTS))
    fresh._last_own = learned._last_own  # an altered message may have its number in other fields as well
    for message in requests:
        outcomes: list[tuple[bytes, bytes] | None] = []
        for tap in (fresh, learned):
            try:
                to_worker, answers = tap.to_worker(message)
            except TapError:
                outcomes.append(None)
                continue
            check_inside(to_worker)
            outcomes.append((to_worker, answers))
        assert outcomes[0] == outcomes[1]
        if outcomes[0] is None:
            return


@settings(max_examples=30000)
@given(st.lists(st.one_of(altered(ANSWERS), st.sampled_from(ANSWERS)), min_size=1, max_size=4))
def test_altered_answers_make_no_difference_to_what_was_learned(answers: list[bytes]) -> None:
    fresh, learned = new_tap(), new_tap()
    for tap in (fresh, learned):
        tap.to_worker(ask(3, Method.WORKER_DUMP, "") + ask(1, Method.WORKER_DUMP, ""))
    learned._look(log_line("Dlog") + accept(8) + refuse(9) + accept(10, dump()))
    for message in answers:
        outcomes = []
        for tap in (fresh, learned):
            try:
                outcomes.append(tap.to_application(message))
            except TapError as error:
                outcomes.append(str(error).encode())
        assert outcomes[0] == outcomes[1]


# -- a worker that answers as it likes, and an application that numbers as it likes ------------------------

NUMBERS = st.one_of(st.integers(1, 4), st.integers(FIRST_OWN, 0xFFFFFFFF), st.just(0xFFFFFFFF))


@st.composite
def steps(draw: st.DrawFn) -> tuple[bytes, Change | None, bool]:
    """A request, what it changes, and whether it is accepted."""
    number = draw(NUMBERS)
    ids = [f"x{draw(st.integers(0, 4))}" for _ in range(3)]
    what = draw(st.sampled_from(["router", "transport", "produce", "consume", "close", "pause", "dump"]))
    accepted = draw(st.booleans())
    if what == "router":
        body: Table = worker.CreateRouterRequest(router_id=ids[0])
        opening = Opening(kind=Kind.ROUTER, id=ids[0])
        return ask(number, Method.WORKER_CREATE_ROUTER, "", body), opening, accepted
    if what == "transport":
        opening = Opening(kind=Kind.TRANSPORT, id=ids[0], owners=(ids[1],))
        return ask(number, Method.ROUTER_CREATE_WEBRTCTRANSPORT, ids[1], webrtc(ids[0])), opening, accepted
    if what == "produce":
        opening = Opening(kind=Kind.PRODUCER, id=ids[0], owners=(ids[1],))
        return ask(number, Method.TRANSPORT_PRODUCE, ids[1], produce(ids[0])), opening, accepted
    if what == "consume":
        opening = Opening(kind=Kind.CONSUMER, id=ids[0], owners=(ids[1], ids[2]))
        return ask(number, Method.TRANSPORT_CONSUME, ids[1], consume(ids[0], ids[2])), opening, accepted
    if what == "close":
        body = transport.CloseProducerRequest(producer_id=ids[0])
        return ask(number, Method.TRANSPORT_CLOSE_PRODUCER, ids[1], body), Closing(id=ids[0]), accepted
    if what == "dump":
        return ask(number, Method.WORKER_DUMP, ""), None, True
    return ask(number, Method.PRODUCER_PAUSE, ids[0]), None, accepted


@settings(max_examples=3000)
@given(st.lists(st.tuples(steps(), st.integers(0, 3), st.booleans()), max_size=30))
def test_whatever_the_numbers_each_answer_goes_to_its_request(
    script: list[tuple[tuple[bytes, Change | None, bool], int, bool]],
) -> None:
    """Our own requests come in between; the worker answers in order, some requests late."""
    tap, ledger = new_tap(), Ledger()
    waiting: list[tuple[int, int | None, Change | None, bool]] = []

    def answer() -> None:
        number, theirs, change, accepted = waiting.pop(0)
        body = dump() if change is None and theirs is not None and accepted else None
        got = tap.to_application(accept(number, body) if accepted else refuse(number))
        if theirs is None:
            assert got == b""
            return
        read = read_answer(got)
        assert (read.id, read.accepted) == (theirs, accepted)
        if change is not None:
            ledger.answer(change, accepted)

    for (message, change, accepted), late, figures in script:
        to_worker, answers = tap.to_worker(message)
        assert answers == b""
        (passed,) = split(to_worker)
        waiting.append((read_request(passed).id, read_request(message).id, change, accepted))
        if change is not None:
            ledger.ask(change)
        if figures:
            for own in split(tap.stats_requests()):
                waiting.append((read_request(own).id, None, None, False))
        while len(waiting) > late:
            answer()
        assert (tap.consumers, tap.transports) == (ledger.consumers, ledger.transports)
    while waiting:
        answer()
    assert (tap.consumers, tap.transports) == (ledger.consumers, ledger.transports)
