"""Cases of test-WebRtcTransport.js: candidates, DTLS parameters, limits, events."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from msgspec.structs import replace
from support.mediasoup_suite import (
    LISTEN,
    LISTEN_TCP,
    MEDIA_CODECS,
    UNBINDABLE,
    case,
    counters,
    free_port,
    refused,
    rejected,
    seen,
    soon,
    worker_says,
)

from mediaserver.mediasoup import (
    CloseReason,
    DtlsFingerprint,
    DtlsParameters,
    InvalidArgumentError,
    RequestRejectedError,
    Router,
    SctpOptions,
    TransportListenInfo,
    TransportPortRange,
    TransportSocketFlags,
    TransportTuple,
    WebRtcTransport,
    Worker,
)
from mediaserver.mediasoup._fbs import transport as fbs_transport
from mediaserver.mediasoup._fbs import web_rtc_transport as fbs
from mediaserver.mediasoup.channel import Event as WorkerEvent
from mediaserver.mediasoup.types import SctpNegotiatedCapabilities

FINGERPRINT = DtlsFingerprint(algorithm="sha-256", value=":".join(f"{byte:02X}" for byte in range(100, 132)))


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router(media_codecs=MEDIA_CODECS)


@pytest.fixture
async def transport(router: Router) -> WebRtcTransport:
    return await router.create_webrtc_transport(listen_infos=[LISTEN])


@case("test-WebRtcTransport", "router.createWebRtcTransport() succeeds")
async def test_create(router: Router) -> None:
    made = seen(router.observer.on_new_transport)
    transport = await router.create_webrtc_transport(
        listen_infos=[
            replace(LISTEN, announced_address="192.0.2.1", expose_internal_ip=True),
            replace(LISTEN_TCP, announced_address="192.0.2.1"),
            TransportListenInfo(ip="0.0.0.0", announced_address="one.example.com"),
            TransportListenInfo(ip="0.0.0.0", protocol="tcp", announced_address="two.example.com"),
            LISTEN,
            LISTEN_TCP,
        ],
        enable_tcp=True,
        prefer_udp=True,
        enable_sctp=True,
        sctp_options=SctpOptions(
            max_send_message_size=1_000_001,
            max_receive_message_size=1_000_002,
            send_buffer_size=2_000_001,
            per_stream_send_queue_limit=2_000_002,
            max_receiver_window_buffer_size=2_000_003,
        ),
        app_data={"who": "ann"},
    )
    assert (await router.dump()).transport_ids == [transport.id]
    assert made == [transport]
    assert (transport.closed, transport.type, transport.app_data) == (False, "webrtc", {"who": "ann"})
    assert (transport.ice_role, transport.ice_parameters.ice_lite) == ("controlled", True)
    assert transport.ice_parameters.username_fragment
    assert transport.ice_parameters.password
    sctp = transport.sctp_parameters
    assert sctp is not None
    assert (sctp.port, sctp.is_data_channel) == (5_000, True)
    assert (sctp.max_send_message_size, sctp.max_receive_message_size) == (1_000_001, 1_000_002)
    assert (sctp.send_buffer_size, sctp.per_stream_send_queue_limit) == (2_000_001, 2_000_002)
    assert sctp.max_receiver_window_buffer_size == 2_000_003
    candidates = transport.ice_candidates
    assert [(found.ip, found.protocol, found.tcp_type) for found in candidates] == [
        ("192.0.2.1", "udp", None),
        ("127.0.0.1", "udp", None),
        ("192.0.2.1", "tcp", "passive"),
        ("one.example.com", "udp", None),
        ("two.example.com", "tcp", "passive"),
        ("127.0.0.1", "udp", None),
        ("127.0.0.1", "tcp", "passive"),
    ]
    assert {found.type for found in candidates} == {"host"}
    assert all(one.priority > next_.priority for one, next_ in itertools.pairwise(candidates))
    assert (transport.ice_state, transport.ice_selected_tuple) == ("new", None)
    assert transport.dtls_parameters.fingerprints
    assert (transport.dtls_parameters.role, transport.dtls_state) == ("auto", "new")
    assert (transport.dtls_remote_cert, transport.sctp_state) == (None, "new")
    assert transport.sctp_negotiated_capabilities is None
    dump = await transport.dump()
    assert (dump.id, dump.producer_ids, dump.consumer_ids) == (transport.id, [], [])
    for name in (
        *("ice_role", "ice_parameters", "ice_candidates", "ice_state", "ice_selected_tuple"),
        *("dtls_parameters", "dtls_state", "sctp_parameters", "sctp_state"),
    ):
        assert getattr(dump, name) == getattr(transport, name), name
    assert dump.sctp_negotiated_capabilities == SctpNegotiatedCapabilities(
        negotiated_max_outbound_streams=0, negotiated_max_inbound_streams=0
    )
    assert dump.rtp_listener.ssrc_table == {}
    assert dump.recv_rtp_header_extensions.mid is None
    transport.close()
    assert transport.closed


@case("test-WebRtcTransport", "router.createWebRtcTransport() with fixed port succeeds")
async def test_create_fixed_port(router: Router) -> None:
    port = free_port("tcp")
    # udp_reuse_port means nothing for TCP.
    info = replace(LISTEN_TCP, port=port, flags=TransportSocketFlags(udp_reuse_port=True))
    transport = await router.create_webrtc_transport(listen_infos=[info])
    assert [candidate.port for candidate in transport.ice_candidates] == [port]


@case("test-WebRtcTransport", "router.createWebRtcTransport() with portRange succeeds")
async def test_create_port_range(router: Router) -> None:
    port = free_port()
    info = replace(LISTEN, port_range=TransportPortRange(min=port, max=port))
    first = await router.create_webrtc_transport(listen_infos=[info])
    (candidate,) = first.ice_candidates
    assert (candidate.ip, candidate.port, candidate.protocol) == ("127.0.0.1", port, "udp")
    await rejected(RequestRejectedError, router.create_webrtc_transport(listen_infos=[info]))
    first.close()
    second = await router.create_webrtc_transport(listen_infos=[info])
    assert second.ice_candidates[0].port == port


@case("test-WebRtcTransport", "router.createWebRtcTransport() with wrong arguments rejects with TypeError")
async def test_create_wrong(router: Router) -> None:
    reversed_range = TransportPortRange(min=4_000, max=3_000)
    await rejected(InvalidArgumentError, router.create_webrtc_transport())
    for info in (
        replace(LISTEN, port_range=reversed_range),
        TransportListenInfo(ip="123"),
        TransportListenInfo(ip=""),
    ):
        await rejected(RequestRejectedError, router.create_webrtc_transport(listen_infos=[info]))
    assert (await router.dump()).transport_ids == []


@case("test-WebRtcTransport", "router.createWebRtcTransport() with non bindable IP rejects with Error")
async def test_create_not_bindable(router: Router) -> None:
    info = TransportListenInfo(ip=UNBINDABLE)
    await rejected(RequestRejectedError, router.create_webrtc_transport(listen_infos=[info]))


@case("test-WebRtcTransport", "webRtcTransport.getStats() succeeds")
async def test_get_stats(transport: WebRtcTransport) -> None:
    stats = await transport.get_stats()
    assert (stats.type, stats.transport_id) == ("webrtc-transport", transport.id)
    assert stats.timestamp > 0
    assert (stats.ice_role, stats.ice_state, stats.dtls_state) == ("controlled", "new", "new")
    assert (stats.sctp_state, stats.ice_selected_tuple, stats.max_incoming_bitrate) == (None, None, None)
    assert set(counters(stats).values()) == {0}


@case("test-WebRtcTransport", "webRtcTransport.connect() succeeds")
async def test_connect(transport: WebRtcTransport) -> None:
    theirs = DtlsParameters(fingerprints=[FINGERPRINT], role="client")
    await transport.connect(dtls_parameters=theirs)
    await rejected(RequestRejectedError, transport.connect(dtls_parameters=theirs))
    assert transport.dtls_parameters.role == "server"


@case("test-WebRtcTransport", "webRtcTransport.connect() with wrong arguments rejects with TypeError")
async def test_connect_wrong(transport: WebRtcTransport) -> None:
    connect: Any = transport.connect
    with pytest.raises(TypeError):
        await connect()
    wrong: Any = "chicken"
    no_algorithm = DtlsFingerprint(algorithm=wrong, value=FINGERPRINT.value)
    for theirs in (
        DtlsParameters(fingerprints=[no_algorithm], role="client"),
        DtlsParameters(fingerprints=[FINGERPRINT], role=wrong),
    ):
        await rejected(InvalidArgumentError, transport.connect(dtls_parameters=theirs))
    await rejected(
        RequestRejectedError,
        transport.connect(dtls_parameters=DtlsParameters(fingerprints=[], role="client")),
    )
    assert transport.dtls_parameters.role == "auto"


@case("test-WebRtcTransport", "webRtcTransport.setMaxIncomingBitrate() succeeds")
async def test_max_incoming_bitrate(transport: WebRtcTransport) -> None:
    await transport.set_max_incoming_bitrate(1_000_000)
    assert (await transport.get_stats()).max_incoming_bitrate == 1_000_000
    await transport.set_max_incoming_bitrate(0)
    assert (await transport.get_stats()).max_incoming_bitrate is None


@case("test-WebRtcTransport", "webRtcTransport.setMaxOutgoingBitrate() succeeds")
async def test_max_outgoing_bitrate(transport: WebRtcTransport) -> None:
    await transport.set_max_outgoing_bitrate(2_000_000)
    assert (await transport.get_stats()).max_outgoing_bitrate == 2_000_000
    await transport.set_max_outgoing_bitrate(0)
    assert (await transport.get_stats()).max_outgoing_bitrate is None


@case("test-WebRtcTransport", "webRtcTransport.setMinOutgoingBitrate() succeeds")
async def test_min_outgoing_bitrate(transport: WebRtcTransport) -> None:
    await transport.set_min_outgoing_bitrate(100_000)
    assert (await transport.get_stats()).min_outgoing_bitrate == 100_000
    await transport.set_min_outgoing_bitrate(0)
    assert (await transport.get_stats()).min_outgoing_bitrate is None


@case(
    "test-WebRtcTransport",
    "webRtcTransport.setMaxOutgoingBitrate() fails if value is lower than current min limit",
)
async def test_max_below_min(transport: WebRtcTransport) -> None:
    await transport.set_min_outgoing_bitrate(3_000_000)
    await rejected(RequestRejectedError, transport.set_max_outgoing_bitrate(2_000_000))
    await transport.set_min_outgoing_bitrate(0)
    await transport.set_max_outgoing_bitrate(2_000_000)


@case(
    "test-WebRtcTransport",
    "webRtcTransport.setMinOutgoingBitrate() fails if value is higher than current max limit",
)
async def test_min_above_max(transport: WebRtcTransport) -> None:
    await transport.set_max_outgoing_bitrate(2_000_000)
    await rejected(RequestRejectedError, transport.set_min_outgoing_bitrate(3_000_000))
    await transport.set_max_outgoing_bitrate(0)
    await transport.set_min_outgoing_bitrate(3_000_000)


@case("test-WebRtcTransport", "webRtcTransport.restartIce() succeeds")
async def test_restart_ice(transport: WebRtcTransport) -> None:
    before = transport.ice_parameters
    after = await transport.restart_ice()
    assert after == transport.ice_parameters
    assert after.ice_lite
    assert after.username_fragment != before.username_fragment
    assert after.password != before.password


@case("test-WebRtcTransport", "transport.enableTraceEvent() succeed")
async def test_enable_trace_event(transport: WebRtcTransport) -> None:
    for types in (["probation"], [], ["probation", "bwe"], []):
        wanted: Any = types
        await transport.enable_trace_event(wanted)
        assert (await transport.dump()).trace_event_types == types
    await transport.enable_trace_event(["bwe"])
    await transport.enable_trace_event()
    assert (await transport.dump()).trace_event_types == []


@case("test-WebRtcTransport", "transport.enableTraceEvent() with wrong arguments rejects with TypeError")
@pytest.mark.parametrize("wrong", ["probation", ["probation", "chicken"], ["probation", 123.1]])
async def test_enable_trace_event_wrong(transport: WebRtcTransport, wrong: Any) -> None:
    await rejected(InvalidArgumentError, transport.enable_trace_event(wrong))
    assert (await transport.dump()).trace_event_types == []


@case("test-WebRtcTransport", "WebRtcTransport events succeed")
async def test_events(transport: WebRtcTransport) -> None:
    states, tuples = seen(transport.on_ice_state_change), seen(transport.on_ice_selected_tuple_change)
    dtls = seen(transport.on_dtls_state_change)
    await worker_says(
        transport,
        WorkerEvent.WEBRTCTRANSPORT_ICE_STATE_CHANGE,
        fbs.IceStateChangeNotification(ice_state=fbs.IceState.COMPLETED),
    )
    assert (states, transport.ice_state) == (["completed"], "completed")
    found = TransportTuple(
        local_address="192.0.2.1", local_port=1_111, remote_ip="192.0.2.2", remote_port=2_222, protocol="udp"
    )
    selected = fbs_transport.Tuple(
        local_address="192.0.2.1",
        local_port=1_111,
        remote_ip="192.0.2.2",
        remote_port=2_222,
        protocol=fbs_transport.Protocol.UDP,
    )
    await worker_says(
        transport,
        WorkerEvent.WEBRTCTRANSPORT_ICE_SELECTED_TUPLE_CHANGE,
        fbs.IceSelectedTupleChangeNotification(tuple=selected),
    )
    assert (tuples, transport.ice_selected_tuple) == ([found], found)
    await worker_says(
        transport,
        WorkerEvent.WEBRTCTRANSPORT_DTLS_STATE_CHANGE,
        fbs.DtlsStateChangeNotification(dtls_state=fbs.DtlsState.CONNECTING),
    )
    assert (dtls, transport.dtls_state) == (["connecting"], "connecting")


@case("test-WebRtcTransport", "WebRtcTransport methods reject if closed")
async def test_closed(transport: WebRtcTransport) -> None:
    closes = seen(transport.observer.on_close)
    transport.close()
    assert closes == [CloseReason.CLOSED]
    assert (transport.closed, transport.ice_state, transport.dtls_state) == (True, "closed", "closed")
    assert (transport.ice_selected_tuple, transport.sctp_state) == (None, None)
    await refused(
        CloseReason.CLOSED,
        transport.dump(),
        transport.get_stats(),
        transport.connect(dtls_parameters=DtlsParameters(fingerprints=[FINGERPRINT])),
        transport.set_max_incoming_bitrate(200_000),
        transport.set_max_outgoing_bitrate(200_000),
        transport.set_min_outgoing_bitrate(100_000),
        transport.restart_ice(),
    )


@case("test-WebRtcTransport", 'WebRtcTransport emits "routerclose" if Router is closed')
async def test_router_close(router: Router) -> None:
    transport = await router.create_webrtc_transport(listen_infos=[LISTEN], enable_sctp=True)
    closes, told = seen(transport.observer.on_close), soon(transport.on_router_close)
    router.close()
    assert await told is CloseReason.ROUTER_CLOSED
    assert len(closes) == 1
    assert (transport.ice_state, transport.ice_selected_tuple) == ("closed", None)
    assert (transport.dtls_state, transport.sctp_state) == ("closed", "closed")
    await refused(CloseReason.ROUTER_CLOSED, transport.dump())


@case("test-WebRtcTransport", 'WebRtcTransport emits "routerclose" if Worker is closed')
async def test_worker_close(worker: Worker, transport: WebRtcTransport) -> None:
    closes, told = seen(transport.observer.on_close), soon(transport.on_router_close)
    worker.close()
    assert await told is CloseReason.WORKER_CLOSED
    assert len(closes) == 1
    assert (transport.ice_state, transport.ice_selected_tuple) == ("closed", None)
    assert (transport.dtls_state, transport.sctp_state) == ("closed", None)
    await refused(CloseReason.WORKER_CLOSED, transport.dump())
