"""What a real worker makes of what a tap lets through: its sockets, its answers, its media."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from integration.mediasoup.rtp import (
    LOOPBACK,
    MEDIA_CODECS,
    RtpEndpoint,
    audio_parameters,
    numbers,
    plain_sink,
    plain_source,
    rtp_endpoints,
    send_audio,
    until,
)
from integration.remote.tapped import APPLICATION_PID, PIPES, POLICY, SERVER, Gate, Tapped, tapped_worker

from mediaserver.mediasoup import (
    PipeTransport,
    PlainTransport,
    ProducerId,
    RequestRejectedError,
    Router,
    TransportListenInfo,
    TransportPortRange,
    TransportProtocol,
    TransportSocketFlags,
)
from mediaserver.remote.policy import TenantPolicy

CLIENT, PIPE = range(21_000, 21_200), range(21_200, 21_300)
ANNOUNCED = replace(POLICY, announced_address="media.example.org")
IPS = ["127.0.0.1", "0.0.0.0", "::", "::1", "192.0.2.99", SERVER, PIPES]

Start = Callable[..., Awaitable[Tapped]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts workers that end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def one(policy: TenantPolicy = POLICY, gate: Gate | None = None) -> Tapped:
            return await stack.enter_async_context(tapped_worker(policy, gate))

        yield one


@pytest.fixture
async def open_endpoint() -> AsyncIterator[Callable[[], Awaitable[RtpEndpoint]]]:
    async with rtp_endpoints() as open_one:
        yield open_one


OpenEndpoint = Callable[[], Awaitable[RtpEndpoint]]


async def new_router(tapped: Tapped) -> Router:
    return await tapped.worker.create_router(media_codecs=MEDIA_CODECS)


async def test_the_application_knows_its_own_process(start: Start) -> None:
    tapped = await start()
    assert tapped.pid != APPLICATION_PID
    assert (await tapped.worker.dump()).pid == APPLICATION_PID
    await tapped.worker.update_settings(log_level="debug", log_tags=["info"])
    router = await new_router(tapped)
    others = asyncio.gather(*(router.dump() for _ in range(20)))
    dumps = await asyncio.gather(*(tapped.worker.dump() for _ in range(20)))
    assert {dump.pid for dump in dumps} == {APPLICATION_PID}
    assert {dump.id for dump in await others} == {router.id}


@pytest.mark.parametrize("ip", IPS)
@pytest.mark.parametrize("policy", [POLICY, ANNOUNCED], ids=["as it is", "announced"])
@pytest.mark.parametrize("ports", ["none", "explicit", "range"])
async def test_every_socket_is_the_servers(start: Start, ip: str, policy: TenantPolicy, ports: str) -> None:
    """By the answers, and by what the kernel has."""

    def asked(port: int, protocol: TransportProtocol = "udp") -> TransportListenInfo:
        return TransportListenInfo(
            ip=ip,
            protocol=protocol,
            port=port if ports == "explicit" else 0,
            port_range=TransportPortRange(min=2000, max=3000) if ports == "range" else None,
        )

    tapped = await start(policy)
    router = await new_router(tapped)
    address = policy.announced_address or SERVER

    server = await tapped.worker.create_webrtc_server(listen_infos=[asked(2001), asked(2002, "tcp")])
    dump = await server.dump()
    (udp,), (tcp,) = dump.udp_sockets, dump.tcp_servers
    assert (udp.ip, tcp.ip) == (SERVER, SERVER)
    expected = {("udp", SERVER, udp.port), ("tcp", SERVER, tcp.port)}

    own = await router.create_webrtc_transport(listen_infos=[asked(2003), asked(2004, "tcp")])
    shared = await router.create_webrtc_transport(webrtc_server=server)
    for transport in (own, shared):
        assert [candidate.address for candidate in transport.ice_candidates] == [address] * 2
        assert {candidate.port for candidate in transport.ice_candidates} <= set(CLIENT)
    assert [candidate.port for candidate in shared.ice_candidates] == [udp.port, tcp.port]
    expected |= {(candidate.protocol, SERVER, candidate.port) for candidate in own.ice_candidates}

    plain = await router.create_plain_transport(
        listen_info=asked(2005), rtcp_listen_info=asked(2006), rtcp_mux=False
    )
    assert plain.rtcp_tuple is not None
    for local in (plain.tuple, plain.rtcp_tuple):
        assert local.local_address == address
        assert local.local_port in CLIENT
        expected.add(("udp", SERVER, local.local_port))

    pipe = await router.create_pipe_transport(listen_info=asked(2007))
    assert pipe.tuple.local_address == PIPES
    assert pipe.tuple.local_port in PIPE
    assert (pipe.srtp_parameters is not None) == (ip in ("127.0.0.1", "::1"))
    expected.add(("udp", PIPES, pipe.tuple.local_port))

    await router.create_direct_transport()
    assert tapped.sockets() == expected
    assert tapped.tap.transports == 5
    server.close()
    await until(lambda: tapped.tap.transports == 4, "the WebRtcServer's transport is gone with it")
    router.close()
    await until(lambda: tapped.tap.transports == 0, "all transports are gone")
    await until(lambda: not tapped.sockets(), "no socket is left")


async def test_addresses_that_became_one_are_one(start: Start) -> None:
    tapped = await start(ANNOUNCED)
    infos = [TransportListenInfo(ip=ip, announced_address="198.51.100.1") for ip in ("0.0.0.0", "::")]
    transport = await (await new_router(tapped)).create_webrtc_transport(listen_infos=infos)
    (candidate,) = transport.ice_candidates
    assert (candidate.address, len(tapped.sockets())) == ("media.example.org", 1)


async def test_who_names_the_server_announces_what_it_likes(start: Start) -> None:
    tapped = await start(ANNOUNCED)
    router = await new_router(tapped)
    info = TransportListenInfo(ip=SERVER, announced_address="a.example.org", expose_internal_ip=True)
    transport = await router.create_webrtc_transport(listen_infos=[info])
    assert [candidate.address for candidate in transport.ice_candidates] == ["a.example.org", SERVER]
    info = TransportListenInfo(ip="127.0.0.1", announced_address="a.example.org", expose_internal_ip=True)
    transport = await router.create_webrtc_transport(listen_infos=[info])
    assert [candidate.address for candidate in transport.ice_candidates] == ["media.example.org"]
    pipe = await router.create_pipe_transport(listen_info=info)
    assert pipe.tuple.local_address == PIPES


async def test_explicit_ports_of_the_range_are_kept_and_not_shared(start: Start) -> None:
    """Two applications would share a port, each the other's packets, with the flag that both may set."""
    first, second = await start(), await start()
    mine, theirs = await new_router(first), await new_router(second)
    shared = TransportSocketFlags(udp_reuse_port=True)
    transport = await mine.create_plain_transport(listen_info=TransportListenInfo(ip="0.0.0.0", flags=shared))
    port = transport.tuple.local_port
    again = TransportListenInfo(ip="0.0.0.0", port=port, flags=shared)
    with pytest.raises(RequestRejectedError, match="address already in use"):
        await theirs.create_plain_transport(listen_info=again)
    transport.close()
    await until(lambda: not first.sockets(), "the port is free")
    moved = await theirs.create_plain_transport(listen_info=again)
    assert (moved.tuple.local_address, moved.tuple.local_port) == (SERVER, port)
    with pytest.raises(RequestRejectedError, match="asked twice"):
        await first.worker.create_webrtc_server(listen_infos=[again, again])


async def test_what_the_worker_refuses_is_refused_as_by_the_worker(start: Start) -> None:
    tapped = await start()
    direct = await start(replace(POLICY, addresses="Keep"))
    for info in (
        TransportListenInfo(ip="123"),
        TransportListenInfo(ip="media.example.org"),
        TransportListenInfo(ip="127.0.0.1", port_range=TransportPortRange(min=4000, max=3000)),
        TransportListenInfo(ip="127.0.0.1", protocol="tcp"),
    ):
        errors = []
        for worker in (tapped, direct):
            with pytest.raises(RequestRejectedError) as caught:
                await (await new_router(worker)).create_plain_transport(listen_info=info)
            errors.append(caught.value.error)
        assert errors == ["TypeError", "TypeError"]
    assert tapped.tap.transports == 0
    assert not tapped.sockets()


@pytest.mark.parametrize("addresses", ["RewritePipes", "Keep"])
async def test_what_is_kept_is_kept(start: Start, addresses: str) -> None:
    tapped = await start(replace(ANNOUNCED, addresses=addresses))  # type: ignore[arg-type]
    router = await new_router(tapped)
    info = TransportListenInfo(ip="127.0.0.1", announced_address="a.example.org")
    transport = await router.create_webrtc_transport(listen_infos=[info])
    assert [candidate.address for candidate in transport.ice_candidates] == ["a.example.org"]
    plain = await router.create_plain_transport(listen_info=LOOPBACK)
    assert plain.tuple.local_address == "127.0.0.1"
    pipe = await router.create_pipe_transport(listen_info=LOOPBACK)
    kept = addresses == "Keep"
    assert pipe.tuple.local_address == ("127.0.0.1" if kept else PIPES)
    assert (pipe.srtp_parameters is None) == kept
    assert tapped.tap.transports == 3


# -- bounds ------------------------------------------------------------------------------------------------


async def test_consumers_are_bound_over_all_workers_of_a_token(
    start: Start, open_endpoint: OpenEndpoint
) -> None:
    gate = Gate()
    gate.consumers = 3
    parts = []
    for _ in range(2):
        tapped = await start(POLICY, gate)
        router = await new_router(tapped)
        source = await plain_source(router)
        producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
        parts.append((tapped, router, source, producer, await plain_sink(router, await open_endpoint())))

    async def consume(part: int) -> object:
        _, router, _, producer, sink = parts[part]
        return await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)

    first = await consume(0)
    got = await asyncio.gather(*(consume(n % 2) for n in range(6)), return_exceptions=True)
    refused = [error for error in got if isinstance(error, RequestRejectedError)]
    assert len(refused) == 4
    assert all("the bound of 3 consumers" in error.reason for error in refused)
    assert sum(tapped.tap.consumers for tapped, *_ in parts) == 3
    for tapped, *_ in parts:
        dump = await tapped.worker.routers[0].dump()
        assert len(dump.map_consumer_id_producer_id) == tapped.tap.consumers
    assert first not in got
    parts[0][3].close()  # the producer, and with it what consumes it
    await until(lambda: parts[0][0].tap.consumers == 0, "its consumers have ended")
    open_ones = parts[1][0].tap.consumers
    more = await asyncio.gather(*(consume(1) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(error, RequestRejectedError) for error in more) == 4 - (3 - open_ones)
    parts[1][1].close()
    await until(lambda: parts[1][0].tap.consumers == 0, "the others have ended with their router")


async def test_bandwidth_bounds_new_producers_and_consumers(
    start: Start, open_endpoint: OpenEndpoint
) -> None:
    gate = Gate()
    tapped = await start(POLICY, gate)
    router = await new_router(tapped)
    source, receiver = await plain_source(router), await open_endpoint()
    sink = await plain_sink(router, receiver)
    producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    consumer = await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    await tapped.measure()
    await send_audio(await open_endpoint(), source, 1111, 100)
    await tapped.measure()
    await until(lambda: tapped.tap.bitrate > 0, "the transports' figures have come")
    stats = await source.get_stats(), await sink.get_stats()
    assert sum(s.recv_bitrate + s.send_bitrate for s in stats) > 10_000
    gate.bandwidth = 1
    with pytest.raises(RequestRejectedError, match="bits a second"):
        await source.produce(kind="audio", rtp_parameters=audio_parameters(2222))
    with pytest.raises(RequestRejectedError, match="bits a second"):
        await sink.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    consumer.close()
    router.close()
    await until(lambda: tapped.tap.transports == 0, "all is closed")
    await tapped.measure()
    assert tapped.tap.bitrate == 0


# -- pipes -------------------------------------------------------------------------------------------------


async def check_media_crosses(
    here: PlainTransport, there: Router, producer_id: ProducerId, open_endpoint: OpenEndpoint
) -> None:
    """RTP sent to a transport of the one worker comes out of the other."""
    sender, receiver = await open_endpoint(), await open_endpoint()
    sink = await plain_sink(there, receiver)
    consumer = await sink.consume(producer_id=producer_id, rtp_capabilities=there.rtp_capabilities)
    ssrc = consumer.rtp_parameters.encodings[0].ssrc or 0
    await send_audio(sender, here, 1111, 100)
    await until(lambda: 100 in numbers(receiver.rtp, ssrc), "the last packet arrives")
    assert numbers(receiver.rtp, ssrc) == list(range(1, 101))


@pytest.mark.parametrize("srtp", ["Auto", "Never"])
async def test_pipe_to_router_of_another_worker(start: Start, open_endpoint: OpenEndpoint, srtp: str) -> None:
    policy = replace(POLICY, pipe_srtp=srtp)  # type: ignore[arg-type]
    near, far = await start(policy), await start(policy)
    here, there = await new_router(near), await new_router(far)
    source = await plain_source(here)
    producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    await here.pipe_to_router(producer_id=producer.id, router=there)
    await check_media_crosses(source, there, producer.id, open_endpoint)
    piped = {(protocol, address) for protocol, address, port in far.sockets() if port in PIPE}
    assert piped == {("udp", PIPES)}
    for tapped in (near, far):
        (router,) = tapped.worker.routers
        (pipe,) = [transport for transport in router.transports if isinstance(transport, PipeTransport)]
        assert (pipe.srtp_parameters is not None) == (srtp == "Auto")


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "srtp"])
async def test_pipes_connected_by_hand_keep_what_was_asked_for(
    start: Start, open_endpoint: OpenEndpoint, secure: bool
) -> None:
    near, far = await start(), await start()
    here, there = await new_router(near), await new_router(far)
    source = await plain_source(here)
    producer = await source.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    info = TransportListenInfo(ip="192.0.2.99")
    ends = [
        await router.create_pipe_transport(listen_info=info, enable_srtp=secure) for router in (here, there)
    ]
    for end, other in (ends, ends[::-1]):
        assert (end.srtp_parameters is not None) == secure
        await end.connect(
            ip=other.tuple.local_address,
            port=other.tuple.local_port,
            srtp_parameters=other.srtp_parameters,
        )
    consumer = await ends[0].consume(producer_id=producer.id)
    piped = await ends[1].produce(kind="audio", rtp_parameters=consumer.rtp_parameters)
    await check_media_crosses(source, there, piped.id, open_endpoint)
