"""Cases of test-PlainTransport.js: addresses, SRTP, comedia, shared ports."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from support.mediasoup_suite import (
    GCM_KEY,
    LISTEN,
    LISTEN_TCP,
    MEDIA_CODECS,
    SHA1_KEY,
    UNBINDABLE,
    case,
    counters,
    free_port,
    refused,
    rejected,
    seen,
    soon,
)

from mediaserver.mediasoup import (
    CloseReason,
    InvalidArgumentError,
    PlainTransport,
    RequestRejectedError,
    Router,
    SrtpParameters,
    TransportListenInfo,
    TransportPortRange,
    TransportSocketFlags,
    Worker,
)

MULTICAST = "224.0.0.1"


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router(media_codecs=MEDIA_CODECS)


@pytest.fixture
async def transport(router: Router) -> PlainTransport:
    return await router.create_plain_transport(listen_info=LISTEN)


@case("test-PlainTransport", "router.createPlainTransport() succeeds")
async def test_create(router: Router) -> None:
    first = await router.create_plain_transport(listen_info=LISTEN)
    assert (await router.dump()).transport_ids == [first.id]
    made = seen(router.observer.on_new_transport)
    second = await router.create_plain_transport(
        listen_info=replace(LISTEN, announced_address="192.0.2.1"), enable_sctp=True, app_data={"n": 2}
    )
    assert made == [second]
    assert (second.closed, second.type, second.app_data) == (False, "plain", {"n": 2})
    assert (second.tuple.local_address, second.tuple.protocol) == ("192.0.2.1", "udp")
    assert second.tuple.local_port > 0
    assert (second.rtcp_tuple, second.srtp_parameters) == (None, None)
    sctp = second.sctp_parameters
    assert sctp is not None
    assert (sctp.port, sctp.is_data_channel) == (5_000, False)
    assert (sctp.max_send_message_size, sctp.max_receive_message_size) == (262_144, 262_144)
    assert (sctp.send_buffer_size, sctp.per_stream_send_queue_limit) == (2_000_000, 2_000_000)
    assert sctp.max_receiver_window_buffer_size == 5_242_880
    assert (second.sctp_state, second.sctp_negotiated_capabilities) == ("new", None)
    dump = await second.dump()
    assert (dump.id, dump.producer_ids, dump.consumer_ids) == (second.id, [], [])
    assert (dump.tuple, dump.rtcp_tuple) == (second.tuple, None)
    assert (dump.sctp_parameters, dump.sctp_state) == (sctp, "new")
    assert dump.rtp_listener.ssrc_table == {}
    second.close()
    assert second.closed
    rtp, rtcp = replace(LISTEN, port=free_port()), replace(LISTEN, port=free_port())
    apart = await router.create_plain_transport(listen_info=rtp, rtcp_listen_info=rtcp, rtcp_mux=False)
    assert apart.app_data == {}
    assert (apart.tuple.local_address, apart.tuple.local_port) == ("127.0.0.1", rtp.port)
    assert apart.rtcp_tuple is not None
    assert (apart.rtcp_tuple.local_address, apart.rtcp_tuple.local_port) == ("127.0.0.1", rtcp.port)
    assert (apart.tuple.protocol, apart.rtcp_tuple.protocol) == ("udp", "udp")
    assert (apart.sctp_parameters, apart.sctp_state, apart.sctp_negotiated_capabilities) == (None,) * 3
    inside = await apart.dump()
    assert (inside.id, inside.tuple, inside.rtcp_tuple) == (apart.id, apart.tuple, apart.rtcp_tuple)
    assert inside.sctp_state is None


@case("test-PlainTransport", "router.createPlainTransport() with wrong arguments rejects with TypeError")
async def test_create_wrong(router: Router) -> None:
    create: Any = router.create_plain_transport
    with pytest.raises(TypeError):
        await create()
    for info in (
        replace(LISTEN, port_range=TransportPortRange(min=4_000, max=3_000)),
        TransportListenInfo(ip="123"),
        LISTEN_TCP,
    ):
        await rejected(RequestRejectedError, router.create_plain_transport(listen_info=info))
    await rejected(
        InvalidArgumentError, router.create_plain_transport(listen_info=LISTEN, rtcp_listen_info=LISTEN)
    )
    assert (await router.dump()).transport_ids == []


@case("test-PlainTransport", "router.createPlainTransport() with enableSrtp succeeds")
async def test_create_srtp(router: Router) -> None:
    transport = await router.create_plain_transport(listen_info=LISTEN, enable_srtp=True)
    ours = transport.srtp_parameters
    assert ours is not None
    assert (ours.crypto_suite, len(ours.key_base64)) == ("AES_CM_128_HMAC_SHA1_80", 40)
    wrong: Any = "chicken"
    there: dict[str, Any] = {"ip": "127.0.0.2", "port": 9_999}
    unknown_suite = SrtpParameters(crypto_suite=wrong, key_base64=SHA1_KEY.key_base64)
    await rejected(RequestRejectedError, transport.connect(**there))
    await rejected(InvalidArgumentError, transport.connect(**there, srtp_parameters=unknown_suite))
    for key in ("", "c2hvcnQ="):
        short = SrtpParameters(crypto_suite="AES_CM_128_HMAC_SHA1_80", key_base64=key)
        await rejected(RequestRejectedError, transport.connect(**there, srtp_parameters=short))
    await transport.connect(**there, srtp_parameters=GCM_KEY)
    ours = transport.srtp_parameters
    assert ours is not None
    assert (ours.crypto_suite, len(ours.key_base64)) == ("AEAD_AES_256_GCM", 60)


@case("test-PlainTransport", "plainTransport.connect() with srtpParameters and comedia enabled succeeds")
async def test_connect_srtp_comedia(router: Router) -> None:
    transport = await router.create_plain_transport(listen_info=LISTEN, enable_srtp=True, comedia=True)
    assert transport.srtp_parameters is not None
    assert len(transport.srtp_parameters.key_base64) == 40
    before = transport.tuple
    assert (before.local_address, before.protocol, before.remote_ip) == ("127.0.0.1", "udp", None)
    await transport.connect(srtp_parameters=GCM_KEY)
    assert transport.srtp_parameters.crypto_suite == "AEAD_AES_256_GCM"
    assert len(transport.srtp_parameters.key_base64) == 60
    assert transport.tuple.remote_ip is None


@case("test-PlainTransport", "router.createPlainTransport() with non bindable IP rejects with Error")
async def test_create_not_bindable(router: Router) -> None:
    info = TransportListenInfo(ip=UNBINDABLE)
    await rejected(RequestRejectedError, router.create_plain_transport(listen_info=info))


@case("test-PlainTransport", "two transports binding to the same IP:port with udpReusePort flag succeed")
async def test_reuse_port(router: Router) -> None:
    port = free_port(ip=MULTICAST)
    # ipv6_only means nothing for IPv4.
    flags = TransportSocketFlags(udp_reuse_port=True, ipv6_only=True)
    first = await router.create_plain_transport(
        listen_info=TransportListenInfo(ip=MULTICAST, port=port, flags=flags)
    )
    second = await router.create_plain_transport(
        listen_info=TransportListenInfo(ip=MULTICAST, port=port, flags=replace(flags, ipv6_only=False))
    )
    assert first.tuple.local_port == second.tuple.local_port == port


@case("test-PlainTransport", "two transports binding to the same IP:port without udpReusePort flag fail")
async def test_no_reuse_port(router: Router) -> None:
    info = TransportListenInfo(ip=MULTICAST, port=free_port(ip=MULTICAST))
    await router.create_plain_transport(listen_info=info)
    await rejected(RequestRejectedError, router.create_plain_transport(listen_info=info))


@case("test-PlainTransport", "plainTransport.getStats() succeeds")
async def test_get_stats(transport: PlainTransport) -> None:
    stats = await transport.get_stats()
    assert (stats.type, stats.transport_id) == ("plain-rtp-transport", transport.id)
    assert stats.timestamp > 0
    assert set(counters(stats).values()) == {0}
    assert (stats.tuple, stats.rtcp_tuple) == (transport.tuple, None)


@case("test-PlainTransport", "plainTransport.connect() succeeds")
async def test_connect(router: Router) -> None:
    transport = await router.create_plain_transport(listen_info=LISTEN, rtcp_mux=False)
    await transport.connect(ip="192.0.2.4", port=1_234, rtcp_port=1_235)
    await rejected(RequestRejectedError, transport.connect(ip="192.0.2.4", port=1_234, rtcp_port=1_235))
    rtp, rtcp = transport.tuple, transport.rtcp_tuple
    assert rtcp is not None
    assert (rtp.remote_ip, rtp.remote_port, rtp.protocol) == ("192.0.2.4", 1_234, "udp")
    assert (rtcp.remote_ip, rtcp.remote_port, rtcp.protocol) == ("192.0.2.4", 1_235, "udp")


@case("test-PlainTransport", "plainTransport.connect() with wrong arguments rejects with TypeError")
async def test_connect_wrong(router: Router) -> None:
    transport = await router.create_plain_transport(listen_info=LISTEN, rtcp_mux=False)
    await rejected(
        RequestRejectedError,
        # SRTP was not enabled.
        transport.connect(ip="127.0.0.2", port=9_998, rtcp_port=9_999, srtp_parameters=SHA1_KEY),
        transport.connect(),
        transport.connect(ip="::::1234"),
        transport.connect(ip="127.0.0.1", port=1_234),
        transport.connect(ip="127.0.0.1", rtcp_port=1_235),
    )
    assert transport.tuple.remote_ip is None


@case("test-PlainTransport", "PlainTransport methods reject if closed")
async def test_closed(transport: PlainTransport) -> None:
    closes = seen(transport.observer.on_close)
    transport.close()
    assert closes == [CloseReason.CLOSED]
    assert transport.closed
    await refused(CloseReason.CLOSED, transport.dump(), transport.get_stats(), transport.connect())


@case("test-PlainTransport", "router.createPlainTransport() with fixed port succeeds")
async def test_create_fixed_port(router: Router) -> None:
    port = free_port()
    transport = await router.create_plain_transport(listen_info=replace(LISTEN, port=port))
    assert transport.tuple.local_port == port


@case("test-PlainTransport", 'PlainTransport emits "routerclose" if Router is closed')
async def test_router_close(router: Router, transport: PlainTransport) -> None:
    closes, told = seen(transport.observer.on_close), soon(transport.on_router_close)
    router.close()
    assert await told is CloseReason.ROUTER_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.ROUTER_CLOSED, transport.dump())


@case("test-PlainTransport", 'PlainTransport emits "routerclose" if Worker is closed')
async def test_worker_close(worker: Worker, transport: PlainTransport) -> None:
    closes, told = seen(transport.observer.on_close), soon(transport.on_router_close)
    worker.close()
    assert await told is CloseReason.WORKER_CLOSED
    assert len(closes) == 1
    await refused(CloseReason.WORKER_CLOSED, transport.dump())
