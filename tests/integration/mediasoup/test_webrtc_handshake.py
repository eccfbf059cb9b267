"""Real ICE, DTLS and SCTP with aiortc's transports: states, tuple, certificate, messages, estimates."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aioice.ice
import pytest
from aiortc import (
    RTCCertificate,
    RTCDataChannel,
    RTCDataChannelParameters,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
    RTCSctpCapabilities,
    RTCSctpTransport,
)
from integration.mediasoup.rtp import DEADLINE, LOOPBACK, Packet, until, video_parameters, vp8

from mediaserver.mediasoup import (
    BweTraceInfo,
    DataMessage,
    DtlsFingerprint,
    DtlsParameters,
    Router,
    SctpStreamParameters,
    TransportTraceEventData,
    WebRtcTransport,
    Worker,
)

Dial = Callable[[WebRtcTransport], Awaitable[RTCDtlsTransport]]


@pytest.fixture
async def dial(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dial]:
    """Connects WebRTC endpoints, as DTLS clients, to our transports."""
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])
    async with contextlib.AsyncExitStack() as stack:

        async def connect(transport: WebRtcTransport) -> RTCDtlsTransport:
            gatherer = RTCIceGatherer(iceServers=[])
            ice = RTCIceTransport(gatherer)
            stack.push_async_callback(ice.stop)
            ice._connection.ice_controlling = True
            ice._role_set = True
            dtls = RTCDtlsTransport(ice, [RTCCertificate.generateCertificate()])
            stack.push_async_callback(dtls.stop)
            dtls._set_role("client")
            await gatherer.gather()
            for candidate in transport.ice_candidates:
                await ice.addRemoteCandidate(
                    RTCIceCandidate(
                        component=1,
                        foundation=candidate.foundation,
                        ip=candidate.address,
                        port=candidate.port,
                        priority=candidate.priority,
                        protocol=candidate.protocol,
                        type=candidate.type,
                    )
                )
            await transport.connect(
                dtls_parameters=DtlsParameters(
                    role="client",
                    fingerprints=[
                        DtlsFingerprint(algorithm="sha-256", value=fingerprint.value)
                        for fingerprint in dtls.getLocalParameters().fingerprints
                        if fingerprint.algorithm == "sha-256"
                    ],
                )
            )
            parameters = transport.ice_parameters
            await ice.start(
                RTCIceParameters(
                    usernameFragment=parameters.username_fragment,
                    password=parameters.password,
                    iceLite=parameters.ice_lite,
                )
            )
            await dtls.start(
                RTCDtlsParameters(
                    role="server",
                    fingerprints=[
                        RTCDtlsFingerprint(algorithm=fingerprint.algorithm, value=fingerprint.value)
                        for fingerprint in transport.dtls_parameters.fingerprints
                    ],
                )
            )
            return dtls

        yield connect


async def test_an_endpoint_connects_and_leaves(worker: Worker, router: Router, dial: Dial) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LOOPBACK])
    transport = await router.create_webrtc_transport(webrtc_server=server)
    seen: list[str] = []
    transport.on_ice_state_change.subscribe(lambda state: seen.append(f"ice {state}"))
    transport.on_ice_selected_tuple_change.subscribe(lambda _: seen.append("tuple"))
    transport.on_dtls_state_change.subscribe(lambda state: seen.append(f"dtls {state}"))
    endpoint = await asyncio.wait_for(dial(transport), DEADLINE)
    await until(lambda: transport.dtls_state == "connected", "DTLS is up on our side")
    assert endpoint.state == "connected"
    assert transport.ice_state in ("connected", "completed")
    assert seen[0] == "tuple" or seen[0].startswith("ice")
    assert [entry for entry in seen if entry.startswith("dtls")] == ["dtls connecting", "dtls connected"]
    assert transport.ice_selected_tuple is not None
    assert transport.ice_selected_tuple.remote_ip == "127.0.0.1"
    assert (transport.dtls_remote_cert or "").startswith("-----BEGIN CERTIFICATE-----")
    assert transport.dtls_parameters.role == "server"
    stats = await transport.get_stats()
    assert (stats.dtls_state, stats.ice_selected_tuple) == ("connected", transport.ice_selected_tuple)
    await endpoint.stop()
    await until(lambda: transport.dtls_state == "closed", "the endpoint's goodbye")
    assert not transport.closed


async def test_a_wrong_certificate_fails_dtls(router: Router, dial: Dial) -> None:
    transport = await router.create_webrtc_transport(listen_infos=[LOOPBACK])
    connect = transport.connect

    async def with_another_fingerprint(*, dtls_parameters: DtlsParameters) -> None:
        (fingerprint,) = dtls_parameters.fingerprints
        other = DtlsFingerprint(algorithm="sha-256", value="00" + fingerprint.value[2:])
        await connect(dtls_parameters=DtlsParameters(role="client", fingerprints=[other]))

    transport.connect = with_another_fingerprint  # type: ignore[method-assign]
    await asyncio.wait_for(dial(transport), DEADLINE)
    await until(lambda: transport.dtls_state == "failed", "DTLS fails")


async def test_messages_of_an_endpoint_both_ways(router: Router, dial: Dial) -> None:
    transport = await router.create_webrtc_transport(listen_infos=[LOOPBACK], enable_sctp=True)
    assert transport.sctp_parameters is not None
    assert (transport.sctp_parameters.is_data_channel, transport.sctp_state) == (True, "new")
    states: list[str] = []
    transport.on_sctp_state_change.subscribe(states.append)
    sctp = RTCSctpTransport(await asyncio.wait_for(dial(transport), DEADLINE))
    direct = await router.create_direct_transport()

    outgoing = RTCDataChannel(sctp, RTCDataChannelParameters(label="up", negotiated=True, id=7))
    producer = await transport.produce_data(
        sctp_stream_parameters=SctpStreamParameters(stream_id=7), label="up", protocol="p"
    )
    got: list[DataMessage] = []
    (await direct.consume_data(data_producer_id=producer.id)).on_message.subscribe(got.append)

    source = await direct.produce_data(label="down")
    consumer = await transport.consume_data(data_producer_id=source.id)
    assert consumer.sctp_stream_parameters == SctpStreamParameters(stream_id=0, ordered=True)
    incoming = RTCDataChannel(sctp, RTCDataChannelParameters(label="down", negotiated=True, id=0))
    received: list[str | bytes] = []
    incoming.on("message", received.append)

    await sctp.start(RTCSctpCapabilities(maxMessageSize=262_144), transport.sctp_parameters.port)
    try:
        await until(lambda: transport.sctp_state == "connected", "SCTP is up on our side")
        assert states == ["connecting", "connected"]
        assert transport.sctp_negotiated_capabilities is not None
        outgoing.send("to the router")
        outgoing.send(bytes(1000))
        await until(lambda: len(got) == 2, "the endpoint's messages")
        assert got == [DataMessage(b"to the router", 51), DataMessage(bytes(1000), 53)]
        source.send("to the endpoint")
        await consumer.send(b"to it alone")
        await until(lambda: len(received) == 2, "our messages")
        assert sorted(map(str, received)) == sorted(["to the endpoint", str(b"to it alone")])
        await producer.pause()
        outgoing.send("lost")
        assert (await producer.get_stats()).bytes_received >= 1013
        transport.close()
        assert transport.sctp_state == "closed"
    finally:
        await sctp.stop()


async def test_bandwidth_estimates_are_traced(router: Router, dial: Dial) -> None:
    transport = await router.create_webrtc_transport(
        listen_infos=[LOOPBACK], initial_available_outgoing_bitrate=300_000
    )
    await transport.enable_trace_event(["bwe", "probation"])
    assert set((await transport.dump()).trace_event_types) == {"bwe", "probation"}
    traces: list[TransportTraceEventData] = []
    transport.on_trace.subscribe(traces.append)
    await asyncio.wait_for(dial(transport), DEADLINE)
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="video", rtp_parameters=video_parameters(1111))
    await transport.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)

    def told() -> bool:
        number = 1 + len(numbers)
        numbers.append(number)
        producer.send(Packet(96, number, number * 3000, 1111, vp8(number) + bytes(900)).encode())
        return {trace.type for trace in traces} == {"bwe", "probation"}

    numbers: list[int] = []
    await until(told, "traces of both types")
    estimate = next(trace for trace in traces if trace.type == "bwe")
    assert isinstance(estimate.info, BweTraceInfo)
    assert estimate.info.bwe_type in ("transport-cc", "remb")
    assert estimate.info.available_bitrate > 0
    assert estimate.direction == "out"
    probation = next(trace for trace in traces if trace.type == "probation")
    assert (probation.info, probation.direction) == (None, "out")
    await transport.enable_trace_event()
    assert (await transport.dump()).trace_event_types == []
