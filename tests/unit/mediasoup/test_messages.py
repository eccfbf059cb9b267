"""Messages against bytes that flatc made from JSON, and against damage."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver.mediasoup import flatbuffer
from mediaserver.mediasoup._fbs import (
    consumer,
    message,
    notification,
    plain_transport,
    request,
    rtp_parameters,
    transport,
    worker,
)
from mediaserver.mediasoup.messages import (
    READ_ERRORS,
    Event,
    Method,
    Notification,
    Response,
    decode,
    encode_notification,
    encode_request,
)

# flatc --binary --size-prefixed message.fbs, from JSON with these values.
CONSUME_RESPONSE = bytes.fromhex(
    "7c0000000c00000008000c00070008000800000000000002100000000c0010000800060007000c000c00000000000106"
    "07000000100000000c0010000700000008000c000c00000000000001200000000c000000080006000400050008000000"
    "02010a000c000600070008000a00000000000908040000000300000007060500"
)
TUPLE_NOTIFICATION = bytes.fromhex(
    "880000000c00000008000c00070008000800000000000003100000000c0012000800060007000c000c00000000000b0a"
    "540000000c000000000006000800040006000000100000000c001000080004000c0006000c000000409c50c318000000"
    "040000000800000031302e302e302e32000000000800000031302e302e302e31000000000200000074310000"
)
PRODUCE_REQUEST = bytes.fromhex(
    "040200000c00000008000e000700080008000000000000011400000000000e001600080006000c00070010000e000000"
    "0000191103000000c80100001400000000000e001400080006000c00100007000e00000000000101a001000058000000"
    "0400000014ffffff2800000004000000010000001000000000000a000c000000040008000a0000000b00000063000000"
    "010000000c00000008000600040005000800000060650e0014000000040008000c0010000e0000006000000058000000"
    "1800000004000000f6feffff040000000100000063000000010000001800000000001200180004000000000008000000"
    "00000c00120000000b0000001000000000f2052a01000000000000003affffff0c000000000000000100000014000000"
    "10001800080007000c000000100014001000000000000060b0000000905f01003800000004000000010000000c000000"
    "08000c000400080008000000100000000400000003000000706c6900040000006e61636b000000000200000044000000"
    "1000000000000a001000080007000c000a000000000000041800000004000000ceffffff04000000010000007a000000"
    "0100000079000a001200080007000c000a00000000000002180000000c000000000006000800040006000000fbffffff"
    "010000007800000009000000766964656f2f56503800000002000000703100000200000074310000"
)

PRODUCE = transport.ProduceRequest(
    producer_id="p1",
    kind=rtp_parameters.MediaKind.VIDEO,
    paused=True,
    rtp_parameters=rtp_parameters.RtpParameters(
        codecs=[
            rtp_parameters.RtpCodecParameters(
                mime_type="video/VP8",
                payload_type=96,
                clock_rate=90_000,
                parameters=[
                    rtp_parameters.Parameter(name="x", value=rtp_parameters.Integer32(value=-5)),
                    rtp_parameters.Parameter(name="y", value=rtp_parameters.String(value="z")),
                ],
                rtcp_feedback=[rtp_parameters.RtcpFeedback(type="nack", parameter="pli")],
            )
        ],
        header_extensions=[],
        encodings=[
            rtp_parameters.RtpEncodingParameters(
                ssrc=11, rtx=rtp_parameters.Rtx(ssrc=12), max_bitrate=5_000_000_000
            )
        ],
        rtcp=rtp_parameters.RtcpParameters(cname="c"),
    ),
    rtp_mapping=rtp_parameters.RtpMapping(
        codecs=[rtp_parameters.CodecMapping(payload_type=96, mapped_payload_type=101)],
        encodings=[rtp_parameters.EncodingMapping(ssrc=11, mapped_ssrc=99)],
    ),
)


def read_message(data: bytes) -> flatbuffer.Table:
    """A whole message, read by the generated code alone."""
    assert int.from_bytes(data[:4], "little") == len(data) - 4
    return message.Message.read(data, flatbuffer.follow(data, 4)).data


def test_a_response_of_flatc_is_read() -> None:
    response = decode(CONSUME_RESPONSE[4:])
    assert isinstance(response, Response)
    assert (response.id, response.accepted, response.error, response.reason) == (7, True, "", "")
    assert response.body.read(transport.ConsumeResponse) == transport.ConsumeResponse(
        paused=True,
        producer_paused=False,
        score=consumer.ConsumerScore(score=9, producer_score=8, producer_scores=[7, 6, 5]),
        preferred_layers=consumer.ConsumerLayers(spatial_layer=2, temporal_layer=1),
    )
    with pytest.raises(ValueError, match="where ProduceResponse is expected"):
        response.body.read(transport.ProduceResponse)


def test_a_notification_of_flatc_is_read() -> None:
    decoded = decode(TUPLE_NOTIFICATION[4:])
    assert isinstance(decoded, Notification)
    assert (decoded.handler_id, decoded.event) == ("t1", Event.PLAINTRANSPORT_TUPLE)
    value = decoded.body.read(plain_transport.TupleNotification).tuple
    assert (value.local_address, value.local_port) == ("10.0.0.1", 40_000)
    assert (value.remote_ip, value.remote_port, value.protocol) == (
        "10.0.0.2",
        50_000,
        transport.Protocol.UDP,
    )


def test_a_request_of_flatc_is_read_as_what_we_write() -> None:
    theirs = read_message(PRODUCE_REQUEST)
    ours = read_message(encode_request(3, Method.TRANSPORT_PRODUCE, "t1", PRODUCE))
    assert (
        theirs
        == ours
        == request.Request(id=3, method=Method.TRANSPORT_PRODUCE, handler_id="t1", body=PRODUCE)
    )


def test_wide_numbers_are_aligned_from_the_size_prefix_on() -> None:
    for handler in ("", "a", "ab", "abc", "abcd"):
        data = encode_request(1, Method.TRANSPORT_PRODUCE, handler, PRODUCE)
        assert data.index((5_000_000_000).to_bytes(8, "little")) % 8 == 0
        assert len(data) % 8 == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from(list(Method)), st.text(max_size=40), st.text(max_size=40))
def test_requests_are_read_as_written(number: int, method: Method, handler: str, router: str) -> None:
    body = worker.CreateRouterRequest(router_id=router)
    expected = request.Request(id=number, method=method, handler_id=handler, body=body)
    assert read_message(encode_request(number, method, handler, body)) == expected
    expected.body = None
    assert read_message(encode_request(number, method, handler, None)) == expected
    closing = read_message(encode_notification(Event.WORKER_CLOSE, handler, None))
    assert closing == notification.Notification(handler_id=handler, event=Event.WORKER_CLOSE)


def test_what_only_we_send_is_not_taken_from_the_worker() -> None:
    with pytest.raises(ValueError, match="unexpected type"):
        decode(PRODUCE_REQUEST[4:])


@given(
    st.sampled_from([CONSUME_RESPONSE, TUPLE_NOTIFICATION, PRODUCE_REQUEST]),
    st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, 600),
)
def test_damage_is_an_error_or_another_value_never_something_else(
    data: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(data[4:])
    for position, value in changes:
        damaged[position % len(damaged)] = value
    if cut < len(damaged):
        del damaged[cut:]
    with contextlib.suppress(*READ_ERRORS):
        message.Message.read(bytes(damaged), flatbuffer.follow(bytes(damaged), 0))
    with contextlib.suppress(*READ_ERRORS):
        decoded = decode(bytes(damaged))
        if isinstance(decoded, Response):
            decoded.body.read(transport.ConsumeResponse)
        elif isinstance(decoded, Notification):
            decoded.body.read(plain_transport.TupleNotification)
