"""A real ICE and DTLS handshake with aiortc's transports: states, tuple, certificate, restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import aioice.ice
import pytest
from aiortc import (
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
)
from integration.mediasoup.rtp import DEADLINE, LOOPBACK, until

from mediaserver.mediasoup import DtlsFingerprint, DtlsParameters, Router, WebRtcTransport, Worker

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
