"""Cases of test-multiopus.js: Opus of more than two channels."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from support.mediasoup_suite import LISTEN, URI_AUDIO_LEVEL, URI_MID, case, extension, rejected

from mediaserver.mediasoup import (
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    UnsupportedError,
    WebRtcTransport,
    Worker,
)

STREAMS: dict[str, int | float | str] = {
    "channel_mapping": "0,4,1,2,3,5",
    "num_streams": 4,
    "coupled_streams": 2,
}
SURROUND = RtpCodecCapability(
    mime_type="audio/multiopus",
    preferred_payload_type=100,
    clock_rate=48_000,
    channels=6,
    parameters={"useinbandfec": 1, **STREAMS},
)


def device(channels: int) -> RtpCapabilities:
    return RtpCapabilities(
        codecs=[replace(SURROUND, channels=channels, parameters=STREAMS)],
        header_extensions=[extension("audio", URI_MID, 1), extension("audio", URI_AUDIO_LEVEL, 10)],
    )


def sent(**changed: int | str) -> RtpParameters:
    return RtpParameters(
        mid="AUDIO",
        codecs=[
            RtpCodecParameters(
                mime_type="audio/multiopus",
                payload_type=0,
                clock_rate=48_000,
                channels=6,
                parameters={**SURROUND.parameters, **changed},
            )
        ],
        header_extensions=[
            RtpHeaderExtensionParameters(uri=URI_MID, id=10),
            RtpHeaderExtensionParameters(uri=URI_AUDIO_LEVEL, id=12),
        ],
    )


@pytest.fixture
async def transport(worker: Worker) -> WebRtcTransport:
    router = await worker.create_router(media_codecs=[SURROUND])
    return await router.create_webrtc_transport(listen_infos=[LISTEN])


@case("test-multiopus", "produce() and consume() succeed")
async def test_produce_and_consume(transport: WebRtcTransport) -> None:
    producer = await transport.produce(kind="audio", rtp_parameters=sent())
    assert producer.rtp_parameters.codecs == sent().codecs
    assert transport._router.can_consume(producer_id=producer.id, rtp_capabilities=device(6))  # type: ignore[attr-defined]
    consumer = await transport.consume(producer_id=producer.id, rtp_capabilities=device(6))
    assert consumer.rtp_parameters.codecs == [replace(sent().codecs[0], payload_type=100)]


@case("test-multiopus", "fails to produce wrong parameters")
@pytest.mark.parametrize("changed", [{"num_streams": 2}, {"coupled_streams": 1}])
async def test_produce_wrong(transport: WebRtcTransport, changed: dict[str, int | str]) -> None:
    await rejected(UnsupportedError, transport.produce(kind="audio", rtp_parameters=sent(**changed)))


@case("test-multiopus", "fails to consume wrong channels")
async def test_consume_wrong_channels(transport: WebRtcTransport) -> None:
    producer = await transport.produce(kind="audio", rtp_parameters=sent())
    assert not transport._router.can_consume(producer_id=producer.id, rtp_capabilities=device(8))  # type: ignore[attr-defined]
    await rejected(UnsupportedError, transport.consume(producer_id=producer.id, rtp_capabilities=device(8)))
