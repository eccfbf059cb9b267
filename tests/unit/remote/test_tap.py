"""The tap: what passes, what is changed, what is refused, and what it makes of anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from unit.remote.channel_data import (
    APPLICATION_PID,
    KEEP,
    NODE_REQUESTS,
    POLICY,
    WORKER_PID,
    OpenGate,
    accept,
    ask,
    consume,
    direct,
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
    stats,
    webrtc,
    webrtc_server,
    webrtc_with_server,
)

from mediaserver.mediasoup import messages
from mediaserver.mediasoup._fbs import (
    pipe_transport,
    plain_transport,
    response,
    router,
    transport,
    web_rtc_transport,
    worker,
)
from mediaserver.mediasoup.flatbuffer import U32, Table
from mediaserver.mediasoup.messages import MAX_MESSAGE, Event, Method
from mediaserver.remote.asks import LONGEST_CREATION, LONGEST_ID
from mediaserver.remote.envelope import RESPONSE, Layout, encode
from mediaserver.remote.rewriting import MOST_LISTEN_INFOS
from mediaserver.remote.tap import FIRST_OWN, MOST_PENDING, ChannelTap, TapError

PAUSE = ask(7, Method.PRODUCER_PAUSE, "producer")


def send(tap: ChannelTap, number: int, method: Method, handler: str, body: Table | None = None) -> bytes:
    """The one request that reaches the worker of this one."""
    to_worker, answers = tap.to_worker(ask(number, method, handler, body))
    assert answers == b""
    (message,) = split(to_worker)
    return message


def done(
    tap: ChannelTap,
    number: int,
    method: Method,
    handler: str,
    body: Table | None = None,
    *,
    accepted: bool = True,
) -> None:
    """Sends it and has the worker answer; the application gets the answer to its own number."""
    own = read_request(send(tap, number, method, handler, body)).id
    (answer,) = split(tap.to_application(accept(own) if accepted else refuse(own)))
    assert (read_answer(answer).id, read_answer(answer).accepted) == (number, accepted)


def refusal(
    tap: ChannelTap, number: int, method: Method, handler: str, body: Table | None
) -> messages.Response:
    to_worker, answers = tap.to_worker(ask(number, method, handler, body))
    assert to_worker == b""
    (answer,) = split(answers)
    read = read_answer(answer)
    assert (read.id, read.accepted, bool(read.body)) == (number, False, False)
    return read


def call(tap: ChannelTap) -> None:
    """A router with two transports, and a consumer on one of what is produced on the other."""
    done(tap, 1, Method.WORKER_CREATE_ROUTER, "", worker.CreateRouterRequest(router_id="r"))
    done(tap, 2, Method.ROUTER_CREATE_WEBRTCTRANSPORT, "r", webrtc("t1"))
    done(tap, 3, Method.ROUTER_CREATE_DIRECTTRANSPORT, "r", direct("t2"))
    done(tap, 4, Method.TRANSPORT_PRODUCE, "t1", produce("p"))
    done(tap, 5, Method.TRANSPORT_CONSUME, "t2", consume("c", "p"))
    assert (tap.consumers, tap.transports) == (1, 2)


# -- what passes -------------------------------------------------------------------------------------------


def test_what_is_not_watched_passes_as_it_is() -> None:
    tap = new_tap()
    stream = b"".join(
        ask(number, method, "x" * 36)
        for number, method in enumerate(Method, start=1)
        if method.name.endswith(("_STATS", "_PAUSE", "_RESUME")) or method is Method.WORKER_DUMP
    )
    stream += messages.encode_notification(Event.WORKER_CLOSE, "", None) + messages.encode_notification(
        Event.TRANSPORT_SEND_RTCP, "t", transport.SendRtcpNotification(data=b"x" * 99)
    )
    to_worker, answers = tap.to_worker(stream)
    assert to_worker is stream
    assert answers == b""
    back = running_notification() + log_line("Wsomething") + accept(7) + refuse(8)
    tap = new_tap()
    assert tap.to_application(back) is back


def test_in_pieces_only_whole_messages_pass() -> None:
    tap = new_tap()
    for at in range(1, len(PAUSE)):
        assert tap.to_worker(PAUSE[:at]) == (b"", b"")
        assert tap.to_worker(PAUSE[at:] + PAUSE) == (PAUSE + PAUSE, b"")
        assert tap.to_application(PAUSE[:at]) == b""
        assert tap.to_application(PAUSE[at:] + PAUSE) == PAUSE + PAUSE
    for byte in PAUSE[:-1]:
        assert tap.to_worker(bytes([byte])) == (b"", b"")
    assert tap.to_worker(PAUSE[-1:] + PAUSE[:3]) == (PAUSE, b"")


def test_a_large_message_in_small_pieces() -> None:
    tap = new_tap()
    empty = messages.encode_notification(Event.TRANSPORT_SEND_RTCP, "p", _rtcp(b""))
    room = MAX_MESSAGE - len(empty)
    large = messages.encode_notification(Event.TRANSPORT_SEND_RTCP, "p", _rtcp(bytes(room)))
    assert len(large) == MAX_MESSAGE
    got = [tap.to_worker(large[at : at + 65_536])[0] for at in range(0, len(large), 65_536)]
    assert got[:-1] == [b""] * (len(got) - 1)
    assert got[-1] == large
    with pytest.raises(TapError, match="8388605 bytes"):
        tap.to_worker(U32.pack(MAX_MESSAGE - 3))


def _rtcp(data: bytes) -> transport.SendRtcpNotification:
    return transport.SendRtcpNotification(data=data)


def test_requests_as_node_writes_them() -> None:
    """Watched ones reach the worker with the same content but for numbers and addresses."""
    tap = new_tap()
    to_worker, answers = tap.to_worker(NODE_REQUESTS)
    assert answers == b""
    before, after = list(split(NODE_REQUESTS)), list(split(to_worker))
    assert len(before) == len(after) > 20
    changed = []
    for sent, got in zip(before, after, strict=True):
        if sent == got:
            continue
        asked, passed = read_request(sent), read_request(got)
        assert passed.id >= FIRST_OWN
        assert (asked.method, asked.handler_id, type(asked.body)) == (
            passed.method,
            passed.handler_id,
            type(passed.body),
        )
        if asked.body != passed.body:
            changed.append(Method(passed.method).name)
            assert POLICY.client_host in repr(passed.body) or POLICY.pipe_host in repr(passed.body)
            assert "127.0.0.1" not in repr(passed.body)
    assert changed == [
        "WORKER_CREATE_WEBRTCSERVER",
        "ROUTER_CREATE_WEBRTCTRANSPORT",
        "ROUTER_CREATE_PLAINTRANSPORT",
        "ROUTER_CREATE_PIPETRANSPORT",
    ]


# -- the worker's own number -------------------------------------------------------------------------------


def test_the_worker_runs_under_the_applications_pid() -> None:
    tap = new_tap(running=False)
    first, last = log_line("Dstarting"), log_line("Dmore")
    whole = first + running_notification() + last + accept(1)
    expected = first + running_notification(APPLICATION_PID) + last + accept(1)
    for at in range(len(whole) + 1):
        tap = new_tap(running=False)
        assert not tap.running
        assert tap.to_application(whole[:at]) + tap.to_application(whole[at:]) == expected
        assert tap.running


@pytest.mark.parametrize("number", [1, 0xFFFFFFFF])
def test_the_dump_has_the_applications_pid(number: int) -> None:
    tap = new_tap()
    request = send(tap, number, Method.WORKER_DUMP, "")
    own = read_request(request).id
    assert own == 1 if number == 1 else own >= FIRST_OWN
    noise = log_line("D") + accept(99)
    got = tap.to_application(noise + accept(own, dump()) + noise)
    assert got == noise + accept(number, dump(APPLICATION_PID)) + noise
    # Nothing else is touched: not the same answer again, nor a number that happens to be the same.
    assert tap.to_application(accept(number, dump())) == accept(number, dump())
    own = read_request(send(tap, number, Method.WORKER_DUMP, "")).id
    assert tap.to_application(accept(own, dump(12))) == accept(number, dump(12))
    own = read_request(send(tap, number, Method.WORKER_DUMP, "")).id
    assert tap.to_application(refuse(own)) == refuse(number)


# -- addresses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "body"),
    [
        (Method.WORKER_CREATE_WEBRTCSERVER, webrtc_server("s", info("0.0.0.0"), info("::"))),
        (Method.ROUTER_CREATE_WEBRTCTRANSPORT, webrtc("t", info("8.8.8.8", port=22))),
        (Method.ROUTER_CREATE_PLAINTRANSPORT, plain("t", info("0.0.0.0"), info("0.0.0.0"))),
        (Method.ROUTER_CREATE_PIPETRANSPORT, pipe("t")),
    ],
)
def test_listen_infos_reach_the_worker_put_right(method: Method, body: Table) -> None:
    passed = read_request(send(new_tap(), 1, method, "r", body)).body
    text = repr(passed)
    assert ("10.2.0.5" if method is Method.ROUTER_CREATE_PIPETRANSPORT else "10.1.0.5") in text
    for foreign in ("127.0.0.1", "0.0.0.0", "'::'", "8.8.8.8", "port=22"):
        assert foreign not in text
    kept = read_request(send(new_tap(KEEP), 1, method, "r", body))
    assert (kept.body, kept.id >= FIRST_OWN) == (body, True)
    some = replace(KEEP, addresses="RewritePipes")
    passed = read_request(send(new_tap(some), 1, method, "r", body)).body
    assert (passed == body) is (method is not Method.ROUTER_CREATE_PIPETRANSPORT)


def test_a_malformed_address_is_answered_as_the_worker_would() -> None:
    tap = new_tap()
    for method, body in (
        (Method.WORKER_CREATE_WEBRTCSERVER, webrtc_server("s", info("media.example.org"))),
        (Method.ROUTER_CREATE_PLAINTRANSPORT, plain("t", info("123"))),
    ):
        answer = refusal(tap, 5, method, "r", body)
        assert answer.error == "TypeError"
        assert answer.reason.startswith("invalid IP")
    # What comes with it passes in order.
    mixed = PAUSE + ask(5, Method.ROUTER_CREATE_PLAINTRANSPORT, "r", plain("t", info("123"))) + PAUSE[:-1]
    to_worker, answers = tap.to_worker(mixed)
    assert to_worker == PAUSE
    assert read_answer(answers).id == 5
    assert tap.to_worker(PAUSE[-1:]) == (PAUSE, b"")


# -- bounds ------------------------------------------------------------------------------------------------


def test_what_the_gate_refuses_does_not_reach_the_worker() -> None:
    gate = OpenGate()
    tap = new_tap(gate=gate)
    call(tap)
    gate.consume, gate.produce = "no more consumers; close some", "too much traffic; close something"
    answer = refusal(tap, 6, Method.TRANSPORT_CONSUME, "t2", consume("c2", "p"))
    assert (answer.error, answer.reason) == ("Error", "no more consumers; close some")
    answer = refusal(tap, 7, Method.TRANSPORT_PRODUCE, "t1", produce("p2"))
    assert (answer.error, answer.reason) == ("Error", "too much traffic; close something")
    assert tap.consumers == 1
    done(tap, 8, Method.TRANSPORT_CLOSE_CONSUMER, "t2", transport.CloseConsumerRequest(consumer_id="c"))
    done(tap, 9, Method.ROUTER_CREATE_PIPETRANSPORT, "r", pipe("t3"))
    assert (tap.consumers, tap.transports) == (0, 3)
    gate.consume = gate.produce = None
    done(tap, 10, Method.TRANSPORT_CONSUME, "t2", consume("c2", "p"))
    assert tap.consumers == 1


def test_a_bound_holds_for_requests_sent_all_at_once() -> None:
    class TwoConsumers(OpenGate):
        def may_consume(self) -> str | None:
            return "two are enough" if tap.consumers >= 2 else None

    tap = new_tap(gate=TwoConsumers())
    requests = [ask(n, Method.TRANSPORT_CONSUME, "t", consume(f"c{n}", "p")) for n in range(1, 6)]
    to_worker, answers = tap.to_worker(b"".join(requests))
    asked = [read_request(message).id for message in split(to_worker)]
    assert len(asked) == 2
    assert [read_answer(message).id for message in split(answers)] == [3, 4, 5]
    tap.to_application(refuse(asked[0]) + refuse(asked[1]))
    assert tap.consumers == 0


CLOSES: list[tuple[Method, str, Table]] = [
    (Method.TRANSPORT_CLOSE_CONSUMER, "t2", transport.CloseConsumerRequest(consumer_id="c")),
    (Method.TRANSPORT_CLOSE_PRODUCER, "t1", transport.CloseProducerRequest(producer_id="p")),
    (Method.ROUTER_CLOSE_TRANSPORT, "r", router.CloseTransportRequest(transport_id="t1")),
    (Method.ROUTER_CLOSE_TRANSPORT, "r", router.CloseTransportRequest(transport_id="t2")),
    (Method.WORKER_CLOSE_ROUTER, "", worker.CloseRouterRequest(router_id="r")),
]


@pytest.mark.parametrize(("method", "handler", "body"), CLOSES)
def test_closes_are_counted_when_accepted(method: Method, handler: str, body: Table) -> None:
    tap = new_tap()
    call(tap)
    done(tap, 6, method, handler, body, accepted=False)
    assert tap.consumers == 1
    done(tap, 7, method, handler, body)
    assert tap.consumers == 0


def test_transports_end_with_their_webrtc_server() -> None:
    tap = new_tap()
    done(tap, 1, Method.WORKER_CREATE_WEBRTCSERVER, "", webrtc_server("s", info()))
    done(tap, 2, Method.WORKER_CREATE_ROUTER, "", worker.CreateRouterRequest(router_id="r"))
    method = Method.ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER
    done(tap, 3, method, "r", webrtc_with_server("t", "s"))
    done(tap, 4, method, "r", webrtc_with_server("t9", "s"), accepted=False)
    assert tap.transports == 1
    close = worker.CloseWebRtcServerRequest(web_rtc_server_id="s")
    done(tap, 5, Method.WORKER_WEBRTCSERVER_CLOSE, "", close)
    assert tap.transports == 0


def test_numbers_that_an_application_uses_twice_confuse_nobody() -> None:
    """The first answer is to the pause, which is none of ours, and says nothing about the consumer."""
    tap = new_tap()
    call(tap)
    stream = ask(7, Method.PRODUCER_PAUSE, "p") + ask(7, Method.TRANSPORT_CONSUME, "t2", consume("c2", "p"))
    to_worker, _ = tap.to_worker(stream)
    own = read_request(list(split(to_worker))[1]).id
    assert tap.to_application(refuse(7) + accept(own)) == refuse(7) + accept(7)
    assert tap.consumers == 2


def test_numbers_in_our_range_get_others() -> None:
    tap = new_tap()
    numbers = [FIRST_OWN, 0xFFFFFFFF, FIRST_OWN]
    to_worker, answers = tap.to_worker(b"".join(ask(n, Method.PRODUCER_PAUSE, "p") for n in numbers))
    assert answers == b""
    owns = [read_request(message).id for message in split(to_worker)]
    assert len(set(owns)) == 3
    assert min(owns) >= FIRST_OWN
    back = tap.to_application(b"".join(accept(own) for own in owns))
    assert [read_answer(message).id for message in split(back)] == numbers
    send(tap, 1, Method.WORKER_DUMP, "")  # so that answers are looked at
    with pytest.raises(TapError, match="never sent"):
        tap.to_application(accept(owns[0]))


def test_only_so_many_requests_may_wait() -> None:
    tap = new_tap()
    close = ask(1, Method.WORKER_CLOSE_ROUTER, "", worker.CloseRouterRequest(router_id="r"))
    to_worker, answers = tap.to_worker(close * (MOST_PENDING + 2))
    assert len(list(split(to_worker))) == MOST_PENDING
    refused = [read_answer(message) for message in split(answers)]
    assert [answer.id for answer in refused] == [1, 1]
    assert str(MOST_PENDING) in refused[0].reason


# -- figures -----------------------------------------------------------------------------------------------


def test_bitrate_is_what_all_transports_send_and_receive() -> None:
    tap = new_tap()
    assert tap.stats_requests() == b""
    call(tap)
    done(tap, 6, Method.ROUTER_CREATE_PLAINTRANSPORT, "r", plain("t3"))
    done(tap, 7, Method.ROUTER_CREATE_PIPETRANSPORT, "r", pipe("t4"))
    requests = [read_request(message) for message in split(tap.stats_requests())]
    assert [(r.method, r.handler_id, r.body) for r in requests] == [
        (Method.TRANSPORT_GET_STATS, name, None) for name in ("t1", "t3", "t4")
    ]
    assert tap.stats_requests() == b""
    kinds = (web_rtc_transport, plain_transport, pipe_transport)
    answers = [
        accept(request.id, stats(kind.GetStatsResponse, 10**n, 2 * 10**n))
        for n, (request, kind) in enumerate(zip(requests, kinds, strict=True))
    ]
    assert tap.to_application(accept(1) + answers[0] + accept(2) + answers[1] + accept(3)) == b"".join(
        accept(n) for n in (1, 2, 3)
    )
    assert tap.bitrate == 0
    assert tap.to_application(answers[2]) == b""
    assert tap.bitrate == 333

    requests = [read_request(message) for message in split(tap.stats_requests())]
    assert tap.bitrate == 333
    # One is closed by now.
    back = [accept(r.id, stats(plain_transport.GetStatsResponse, 1, 0)) for r in requests[:2]]
    assert tap.to_application(b"".join(back) + refuse(requests[2].id)) == b""
    assert tap.bitrate == 2
    done(tap, 8, Method.WORKER_CLOSE_ROUTER, "", worker.CloseRouterRequest(router_id="r"))
    assert tap.stats_requests() == b""
    assert tap.bitrate == 0


def test_an_application_cannot_answer_for_our_figures() -> None:
    tap = new_tap()
    call(tap)
    (ours,) = split(tap.stats_requests())
    own = read_request(ours).id
    theirs = read_request(send(tap, own, Method.TRANSPORT_GET_STATS, "t2")).id
    assert theirs != own
    idle = stats(web_rtc_transport.GetStatsResponse, 0, 0)
    busy = stats(web_rtc_transport.GetStatsResponse, 5_000_000, 1)
    assert tap.to_application(accept(theirs, idle)) == accept(own, idle)
    assert tap.to_application(accept(own, busy)) == b""
    assert tap.bitrate == 5_000_001


# -- what is no channel ------------------------------------------------------------------------------------


def hostile() -> Iterator[tuple[str, bytes]]:
    def change(at: int, value: bytes, message: bytes = PAUSE) -> bytes:
        return message[:at] + value + message[at + len(value) :]

    layout = Layout(PAUSE)
    first, second, *_ = layout.at
    root = 4 + U32.unpack_from(PAUSE, 4)[0]
    yield "an empty message", U32.pack(0) + PAUSE
    yield "a size below any message's", U32.pack(7) + PAUSE
    yield "a root beyond its end", change(4, U32.pack(len(PAUSE))) + PAUSE
    yield "a root in the size prefix", change(4, U32.pack(2**32 - 4))
    yield (
        "a vtable beyond its end",
        change(root, (-len(PAUSE)).to_bytes(4, "little", signed=True)) + PAUSE * 2,
    )
    yield "a vtable before it", change(root, (root + 8).to_bytes(4, "little", signed=True))
    yield "a vtable in the size prefix", change(root, (root - 2).to_bytes(4, "little", signed=True))
    far = root - 8 + len(PAUSE)  # where Python would count from the end, and find the right one
    yield "a vtable far before it", change(root, far.to_bytes(4, "little", signed=True))
    yield "a vtable of odd size", change(8, b"\x07\x00")
    yield "a request's vtable of odd size", change(28, b"\x07\x00")
    yield "a vtable without room for its size", change(8, b"\x02\x00")
    yield "a table beyond its end", change(root + 4, U32.pack(len(PAUSE)))
    yield "an answer to the worker", change(root + 8, bytes([RESPONSE]))
    yield "an unknown kind", change(root + 8, b"\x63")
    yield "no kind", change(root + 8, b"\0")
    yield "a method beyond its end", PAUSE[:32] + PAUSE[32:34] + b"\xff\x00" + PAUSE[36:] + PAUSE * 3
    assert (first, second) == (48, 60)
    # Its end is where the bytes begin that no writer varies, and what follows goes on as it would have.
    yield "fields in the message after it", U32.pack(36) + PAUSE[4:42] + b"\x01\x00" + PAUSE[44:]
    yield "a watched request without a body", ask(1, Method.TRANSPORT_CONSUME, "t")
    yield "with another's body", ask(1, Method.TRANSPORT_CONSUME, "t", produce("p"))
    other = transport.CloseConsumerRequest(consumer_id="c")
    yield "with a body of the same shape", ask(1, Method.TRANSPORT_CLOSE_PRODUCER, "t", other)
    yield "a pipe as a plain transport", ask(1, Method.ROUTER_CREATE_PLAINTRANSPORT, "r", pipe("t"))
    yield "no server in its place", ask(1, Method.ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER, "r", webrtc("t"))
    with_server = webrtc_with_server("t", "s")
    yield "no addresses in their place", ask(1, Method.ROUTER_CREATE_WEBRTCTRANSPORT, "r", with_server)
    text = ask(1, Method.WORKER_CREATE_ROUTER, "", worker.CreateRouterRequest(router_id="abcdefgh"))
    at = text.index(b"abcdefgh")
    yield "an id that is no text", change(at, b"\xff\xfe", text)
    yield "an id beyond its end", change(at - 4, U32.pack(10**6), text)


@pytest.mark.parametrize(
    ("_name", "stream"), list(hostile()), ids=lambda value: value if isinstance(value, str) else ""
)
@pytest.mark.parametrize("learned", [False, True], ids=["first", "later"])
def test_what_would_lead_the_worker_astray_does_not_reach_it(
    _name: str, stream: bytes, learned: bool
) -> None:
    tap = new_tap()
    if learned:
        tap.to_worker(PAUSE + NODE_REQUESTS)
    with pytest.raises(TapError):
        tap.to_worker(stream)


def test_a_number_that_is_also_something_else_is_no_number() -> None:
    """Ours is written over it, so it must not be the method, an id's text or an offset as well."""
    body = worker.CloseRouterRequest(router_id="AAAABBBB")
    request = ask(0x0600, Method.WORKER_CLOSE_ROUTER, "", body)
    number, method, _, _, offset = Layout(request).at
    vtable, table = 28, 44

    def lay_out(number_at: int, method_at: int, stream: bytes) -> bytes:
        entries = (number_at - table).to_bytes(2, "little") + (method_at - table).to_bytes(2, "little")
        stream = stream[: vtable + 4] + entries + stream[vtable + 8 :]
        return U32.pack(len(stream) - 4) + stream[4:]

    assert lay_out(number, method, request) == request
    end = len(request)
    longer = request + U32.pack(0x0600) + bytes(4)
    to_worker, _ = new_tap().to_worker(lay_out(end, method, longer))
    assert read_request(to_worker).body == body
    for number_at, method_at, stream in (
        (request.index(b"AAAABBBB"), method, request),
        (offset, method, request),
        (end, end + 1, longer),  # the method is a byte of the number, and becomes another
    ):
        with pytest.raises(TapError):
            new_tap().to_worker(lay_out(number_at, method_at, stream))


@pytest.mark.parametrize(
    ("method", "body", "reason"),
    [
        (
            Method.WORKER_CREATE_WEBRTCSERVER,
            webrtc_server("s", *(info(port=41_000 + n) for n in range(MOST_LISTEN_INFOS + 1))),
            "33 listen infos",
        ),
        (
            Method.ROUTER_CREATE_WEBRTCTRANSPORT,
            webrtc("t", *(info() for _ in range(MOST_LISTEN_INFOS + 1))),
            "33 listen infos",
        ),
        (Method.ROUTER_CREATE_PIPETRANSPORT, pipe("t", info(announced="x" * LONGEST_CREATION)), "bytes"),
        (Method.ROUTER_CREATE_PLAINTRANSPORT, plain("t", info(announced="x" * LONGEST_CREATION)), "bytes"),
        (Method.TRANSPORT_PRODUCE, produce("x" * (LONGEST_ID + 1)), "an id of 257 characters"),
        (Method.ROUTER_CREATE_DIRECTTRANSPORT, direct("x" * (LONGEST_ID + 1)), "an id of 257 characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_cost_too_much_is_refused(method: Method, body: Table, reason: str) -> None:
    assert reason in refusal(new_tap(), 1, method, "r", body).reason


def test_an_absent_method_is_the_first() -> None:
    """As Node writes a request for the worker's dump."""
    (request, *_) = split(NODE_REQUESTS)
    assert Layout(request).second_at == 0
    tap = new_tap()
    assert tap.to_worker(request) == (request, b"")
    number = read_request(request).id
    assert tap.to_application(accept(number, dump())) == accept(number, dump(APPLICATION_PID))


def test_answers_that_lead_nowhere_are_told() -> None:
    def fails(change: Callable[[bytes], bytes]) -> None:
        tap = new_tap()
        send(tap, 1, Method.WORKER_DUMP, "")
        with pytest.raises(TapError):
            tap.to_application(change(accept(1, dump())))

    fails(lambda answer: answer[:4] + U32.pack(10**6) + answer[8:])
    body = Layout(accept(1, dump())).at[3]
    fails(lambda answer: answer[:body] + U32.pack(10**6) + answer[body + 4 :])
    fails(lambda answer: U32.pack(3) + answer[4:])
    with pytest.raises(TapError):
        new_tap().to_application(U32.pack(MAX_MESSAGE))
    refused = encode(response.Response(id=1, error="Error", reason="r"))
    tap = new_tap()
    send(tap, 1, Method.WORKER_DUMP, "")
    assert tap.to_application(refused + accept(1, dump(WORKER_PID))) == refused + accept(1, dump(WORKER_PID))
