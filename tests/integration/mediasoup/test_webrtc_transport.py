"""WebRtcServer and WebRtcTransport: parameters, candidates, states, and closing."""

from __future__ import annotations

import msgspec
import pytest
from integration.mediasoup.rtp import LOOPBACK, audio_parameters

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
    Worker,
)

SHA_256 = DtlsFingerprint(
    algorithm="sha-256",
    value="82:5A:68:3D:36:C3:0A:DE:AF:E7:32:43:D2:88:83:57:AC:2D:65:E5:80:C4:B6:FB:AF:1A:A0:21:9F:6D:0C:AD",
)


async def test_a_transport_on_a_server_announces_the_servers_ports(worker: Worker, router: Router) -> None:
    infos = [
        TransportListenInfo(ip="127.0.0.1", announced_address="media.example.com", expose_internal_ip=True),
        TransportListenInfo(ip="127.0.0.1", protocol="tcp"),
    ]
    server = await worker.create_webrtc_server(listen_infos=infos)
    dump = await server.dump()
    transport = await router.create_webrtc_transport(webrtc_server=server, prefer_udp=True)
    assert [
        (candidate.address, candidate.protocol, candidate.port, candidate.tcp_type)
        for candidate in transport.ice_candidates
    ] == [
        ("media.example.com", "udp", dump.udp_sockets[0].port, None),
        ("127.0.0.1", "udp", dump.udp_sockets[0].port, None),
        ("127.0.0.1", "tcp", dump.tcp_servers[0].port, "passive"),
    ]
    assert msgspec.to_builtins(transport.ice_candidates[2])["tcpType"] == "passive"
    assert server.webrtc_transports == [transport]
    fragments = (await server.dump()).local_ice_username_fragments
    assert fragments == {transport.ice_parameters.username_fragment: transport.id}
    assert (transport.ice_role, transport.ice_state, transport.dtls_state) == ("controlled", "new", "new")
    assert transport.dtls_parameters.role == "auto"
    assert transport.type == "webrtc"
    assert transport.sctp_parameters is None


async def test_a_transport_of_its_own_uses_the_given_ports(router: Router) -> None:
    ports = TransportPortRange(min=24_000, max=24_999)
    info = TransportListenInfo(ip="127.0.0.1", port_range=ports)
    transport = await router.create_webrtc_transport(
        listen_infos=[info], enable_sctp=True, sctp_options=SctpOptions(max_send_message_size=1_000)
    )
    (candidate,) = transport.ice_candidates
    assert ports.min <= candidate.port <= ports.max
    assert transport.sctp_parameters is not None
    assert transport.sctp_parameters.max_send_message_size == 1_000
    assert transport.sctp_parameters.is_data_channel
    states = [transport.sctp_state]
    assert msgspec.to_builtins(transport.sctp_parameters)["maxMessageSize"] == 262_144
    transport.close()
    assert [*states, transport.sctp_state] == ["new", "closed"]


async def test_connect_fixes_the_dtls_role_once(router: Router) -> None:
    transport = await router.create_webrtc_transport(listen_infos=[LOOPBACK])
    await transport.connect(dtls_parameters=DtlsParameters(fingerprints=[SHA_256], role="client"))
    assert transport.dtls_parameters.role == "server"
    with pytest.raises(RequestRejectedError, match="WEBRTCTRANSPORT_CONNECT"):
        await transport.connect(dtls_parameters=DtlsParameters(fingerprints=[SHA_256]))


async def test_connect_with_bad_fingerprints_is_refused(router: Router) -> None:
    transport = await router.create_webrtc_transport(listen_infos=[LOOPBACK])
    with pytest.raises(RequestRejectedError):
        await transport.connect(dtls_parameters=DtlsParameters(fingerprints=[]))


async def test_restart_ice_gives_new_credentials(router: Router) -> None:
    transport = await router.create_webrtc_transport(listen_infos=[LOOPBACK])
    before = transport.ice_parameters
    after = await transport.restart_ice()
    assert after == transport.ice_parameters
    assert after.username_fragment != before.username_fragment
    assert after.password != before.password
    assert after.ice_lite


async def test_bitrates_dump_and_stats(router: Router) -> None:
    transport = await router.create_webrtc_transport(
        listen_infos=[LOOPBACK], initial_available_outgoing_bitrate=1_000_000
    )
    await transport.set_max_incoming_bitrate(500_000)
    await transport.set_max_outgoing_bitrate(400_000)
    await transport.set_min_outgoing_bitrate(100_000)
    stats = await transport.get_stats()
    assert (stats.type, stats.transport_id, stats.ice_state) == ("webrtc-transport", transport.id, "new")
    assert (stats.max_incoming_bitrate, stats.max_outgoing_bitrate) == (500_000, 400_000)
    assert stats.min_outgoing_bitrate == 100_000
    with pytest.raises(InvalidArgumentError):
        await transport.set_max_incoming_bitrate(-1)
    with pytest.raises(RequestRejectedError):  # lower than the minimum
        await transport.set_max_outgoing_bitrate(50_000)
    dump = await transport.dump()
    assert dump.id == transport.id
    assert dump.ice_candidates == transport.ice_candidates


async def test_arguments_are_checked(worker: Worker, router: Router) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LOOPBACK])
    with pytest.raises(InvalidArgumentError, match="exactly one of"):
        await router.create_webrtc_transport()
    with pytest.raises(InvalidArgumentError, match="exactly one of"):
        await router.create_webrtc_transport(webrtc_server=server, listen_infos=[LOOPBACK])
    with pytest.raises(InvalidArgumentError, match="enable_sctp"):
        await router.create_webrtc_transport(webrtc_server=server, sctp_options=SctpOptions())
    with pytest.raises(InvalidArgumentError, match="out of range"):
        await router.create_webrtc_transport(listen_infos=[TransportListenInfo(ip="127.0.0.1", port=70_000)])
    with pytest.raises(RequestRejectedError):
        await router.create_webrtc_transport(listen_infos=[TransportListenInfo(ip="not an ip")])


async def test_a_closing_server_takes_its_transports_along(worker: Worker, router: Router) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LOOPBACK])
    transport = await router.create_webrtc_transport(webrtc_server=server)
    other = await router.create_webrtc_transport(listen_infos=[LOOPBACK])
    producer = await transport.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    closed: list[str] = []
    transport.on_listen_server_close.subscribe(lambda _: closed.append("server close"))
    transport.on_close.subscribe(lambda reason: closed.append(reason.value))
    server.close()
    assert closed == ["server close", "WebRTC server closed"]
    assert producer.close_reason is CloseReason.WEBRTC_SERVER_CLOSED
    assert router.producers == {}
    assert not other.closed
    assert (await router.dump()).transport_ids == [other.id]


async def test_a_closing_router_takes_its_transports_along(worker: Worker, router: Router) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LOOPBACK])
    transport = await router.create_webrtc_transport(webrtc_server=server)
    reasons: list[CloseReason] = []
    transport.on_router_close.subscribe(reasons.append)
    router.close()
    assert reasons == [CloseReason.ROUTER_CLOSED]
    assert server.webrtc_transports == []
    assert (await server.dump()).webrtc_transport_ids == []
