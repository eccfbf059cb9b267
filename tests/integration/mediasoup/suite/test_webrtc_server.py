"""Cases of test-WebRtcServer.js: shared ports and the transports on them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from support.mediasoup_suite import LISTEN, LISTEN_TCP, case, free_port, refused, rejected, seen, soon

from mediaserver.mediasoup import (
    CloseReason,
    InvalidArgumentError,
    RequestRejectedError,
    TransportListenInfo,
    TransportPortRange,
    WebRtcServer,
    Worker,
)
from mediaserver.mediasoup.reports import IpPort

StartWorker = Callable[..., Awaitable[Worker]]


async def check_made_and_closed(worker: Worker, infos: list[TransportListenInfo]) -> WebRtcServer:
    """A server on these is told of, listed, dumped, and closed with its worker."""
    made = seen(worker.observer.on_new_webrtc_server)
    server = await worker.create_webrtc_server(listen_infos=infos, app_data={"site": 1})
    assert made == [server]
    assert server.id
    assert (server.closed, server.app_data) == (False, {"site": 1})
    dump = await worker.dump()
    assert (dump.pid, dump.webrtc_server_ids, dump.router_ids) == (worker.pid, [server.id], [])
    assert (dump.channel_request_handlers, dump.channel_notification_handlers) == ([server.id], [])
    inside = await server.dump()
    assert inside.id == server.id
    for ports, info in ((inside.udp_sockets, infos[0]), (inside.tcp_servers, infos[1])):
        wanted = info.port or (info.port_range.min if info.port_range else ports[0].port)
        assert ports == [IpPort(ip="127.0.0.1", port=wanted)]
    assert (inside.webrtc_transport_ids, inside.local_ice_username_fragments) == ([], {})
    assert worker.webrtc_servers == [server]
    worker.close()
    assert server.closed
    assert worker.webrtc_servers == []
    return server


@case("test-WebRtcServer", "worker.createWebRtcServer() succeeds")
async def test_create(worker: Worker) -> None:
    udp = replace(LISTEN, port=free_port("udp"))
    tcp = replace(LISTEN_TCP, port=free_port("tcp"), announced_address="media.example.com")
    await check_made_and_closed(worker, [udp, tcp])


@case("test-WebRtcServer", "worker.createWebRtcServer() with portRange succeeds")
async def test_create_port_range(worker: Worker) -> None:
    ports = [TransportPortRange(min=port, max=port) for port in (free_port("udp"), free_port("tcp"))]
    udp = replace(LISTEN, port_range=ports[0])
    tcp = replace(LISTEN_TCP, port_range=ports[1], announced_address="192.0.2.1")
    await check_made_and_closed(worker, [udp, tcp])


@case("test-WebRtcServer", "worker.createWebRtcServer() without specifying port/portRange succeeds")
async def test_create_any_port(worker: Worker) -> None:
    await check_made_and_closed(worker, [LISTEN, replace(LISTEN_TCP, announced_address="192.0.2.1")])


@case("test-WebRtcServer", "worker.createWebRtcServer() with wrong arguments rejects with TypeError")
async def test_create_wrong(worker: Worker) -> None:
    create: Any = worker.create_webrtc_server
    with pytest.raises(TypeError):
        create()
    await rejected(InvalidArgumentError, worker.create_webrtc_server(listen_infos=[]))
    await rejected(
        RequestRejectedError,
        worker.create_webrtc_server(listen_infos=[TransportListenInfo(ip="not an ip")]),
    )
    await rejected(
        InvalidArgumentError, worker.create_webrtc_server(listen_infos=[replace(LISTEN, port=65_536)])
    )
    assert (await worker.dump()).webrtc_server_ids == []


@case("test-WebRtcServer", "worker.createWebRtcServer() with unavailable listenInfos rejects with Error")
async def test_create_unavailable(worker: Worker, start_worker: StartWorker) -> None:
    taken = replace(LISTEN, port=free_port())
    foreign = TransportListenInfo(ip="192.0.2.7", port=free_port())
    twice = replace(taken, announced_address="192.0.2.1")
    for infos in ([taken, foreign], [taken, twice]):
        await rejected(RequestRejectedError, worker.create_webrtc_server(listen_infos=infos))
    await worker.create_webrtc_server(listen_infos=[taken])
    other = await start_worker()
    await rejected(RequestRejectedError, other.create_webrtc_server(listen_infos=[taken]))


@case("test-WebRtcServer", "worker.createWebRtcServer() rejects with WorkerClosedError if Worker is closed")
async def test_create_closed(worker: Worker) -> None:
    worker.close()
    await refused(CloseReason.CLOSED, worker.create_webrtc_server(listen_infos=[LISTEN]))


@case("test-WebRtcServer", "webRtcServer.close() succeeds")
async def test_close(worker: Worker) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LISTEN])
    closes = seen(server.observer.on_close)
    server.close()
    assert closes == [CloseReason.CLOSED]
    assert server.closed
    await refused(CloseReason.CLOSED, server.dump())


@case("test-WebRtcServer", 'WebRtcServer emits "workerclose" if Worker is closed')
async def test_worker_close(worker: Worker) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LISTEN_TCP])
    closes = seen(server.observer.on_close)
    told = soon(server.on_worker_close)
    worker.close()
    assert await told is CloseReason.WORKER_CLOSED
    assert closes == [CloseReason.WORKER_CLOSED]
    await refused(CloseReason.WORKER_CLOSED, server.dump())


@case(
    "test-WebRtcServer",
    "router.createWebRtcTransport() with webRtcServer succeeds and transport is closed",
)
async def test_transport_is_closed(worker: Worker) -> None:
    tcp = replace(LISTEN_TCP, announced_address="media.example.com", expose_internal_ip=True)
    server = await worker.create_webrtc_server(listen_infos=[LISTEN, tcp])
    port = (await server.dump()).tcp_servers[0].port
    handled = seen(server.observer.on_webrtc_transport_handled)
    unhandled = seen(server.observer.on_webrtc_transport_unhandled)
    router = await worker.create_router()
    made = seen(router.observer.on_new_transport)
    transport = await router.create_webrtc_transport(
        webrtc_server=server, enable_udp=False, app_data={"who": "ann"}
    )
    assert (await router.dump()).transport_ids == [transport.id]
    assert (handled, made) == ([transport], [transport])
    assert (transport.closed, transport.app_data) == (False, {"who": "ann"})
    first, second = transport.ice_candidates
    for candidate, address in ((first, "media.example.com"), (second, "127.0.0.1")):
        assert (candidate.address, candidate.ip, candidate.port) == (address, address, port)
        assert (candidate.protocol, candidate.type, candidate.tcp_type) == ("tcp", "host", "passive")
    assert first.priority > second.priority
    assert (transport.ice_state, transport.ice_selected_tuple) == ("new", None)
    assert (server.webrtc_transports, router.transports) == ([transport], [transport])
    dump = await server.dump()
    assert dump.webrtc_transport_ids == [transport.id]
    assert list(dump.local_ice_username_fragments.values()) == [transport.id]
    transport.close()
    assert transport.closed
    assert unhandled == [transport]
    assert (server.webrtc_transports, router.transports) == ([], [])
    after = await server.dump()
    assert (after.udp_sockets, after.tcp_servers) == (dump.udp_sockets, dump.tcp_servers)
    assert (after.webrtc_transport_ids, after.local_ice_username_fragments) == ([], {})


@case(
    "test-WebRtcServer",
    "router.createWebRtcTransport() with webRtcServer succeeds and webRtcServer is closed",
)
async def test_server_is_closed(worker: Worker) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LISTEN, LISTEN_TCP])
    ports = await server.dump()
    handled = seen(server.observer.on_webrtc_transport_handled)
    unhandled = seen(server.observer.on_webrtc_transport_unhandled)
    router = await worker.create_router()
    transport = await router.create_webrtc_transport(webrtc_server=server, app_data={"who": "ann"})
    assert handled == [transport]
    assert (await router.dump()).transport_ids == [transport.id]
    assert [(c.ip, c.port, c.protocol, c.type, c.tcp_type) for c in transport.ice_candidates] == [
        ("127.0.0.1", ports.udp_sockets[0].port, "udp", "host", None),
        ("127.0.0.1", ports.tcp_servers[0].port, "tcp", "host", "passive"),
    ]
    assert (transport.ice_state, transport.ice_selected_tuple) == ("new", None)
    before = (await server.dump()).local_ice_username_fragments
    assert list(before.values()) == [transport.id]
    await transport.restart_ice()
    # The old name leads there as well until the endpoint has used the new one.
    after = (await server.dump()).local_ice_username_fragments
    assert list(after.values()) == [transport.id] * 2
    assert set(before) < set(after)
    closes, told = seen(server.observer.on_close), seen(transport.on_listen_server_close)
    server.close()
    assert server.closed
    assert (len(closes), len(told), unhandled) == (1, 1, [transport])
    assert (transport.closed, transport.ice_state, transport.dtls_state) == (True, "closed", "closed")
    assert (transport.ice_selected_tuple, transport.sctp_state) == (None, None)
    assert (server.webrtc_transports, router.transports) == ([], [])
    dump = await worker.dump()
    assert (dump.webrtc_server_ids, dump.router_ids) == ([], [router.id])
    assert (dump.channel_request_handlers, dump.channel_notification_handlers) == ([router.id], [])
    assert (await router.dump()).transport_ids == []
