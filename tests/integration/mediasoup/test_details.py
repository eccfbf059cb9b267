"""Events and settings that need traffic or files of their own: scores, RTCP's address, DTLS certificates."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiortc import RTCCertificate
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from integration.mediasoup.rtp import (
    LOOPBACK,
    Packet,
    RtpEndpoint,
    audio_parameters,
    next_value,
    until,
    video_parameters,
    vp8,
)

from mediaserver.mediasoup import ConsumerScore, ProducerScore, Router, TransportTuple, Worker

StartWorker = Callable[..., Awaitable[Worker]]
OpenEndpoint = Callable[[], Awaitable[RtpEndpoint]]


async def test_scores_are_told_on_both_sides(router: Router) -> None:
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="video", rtp_parameters=video_parameters(1111, 2222))
    consumer = await direct.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    assert producer.score == []
    of_producer: list[list[ProducerScore]] = []
    of_consumer: list[ConsumerScore] = []
    producer.on_score.subscribe(of_producer.append)
    consumer.on_score.subscribe(of_consumer.append)
    for number in range(1, 10):
        producer.send(Packet(96, number, number * 3000, 1111, vp8(number)).encode())
        producer.send(Packet(96, number, number * 3000, 2222, vp8(number)).encode())
    await until(lambda: len(producer.score) == 2, "the producer's scores")
    await until(lambda: of_consumer, "the consumer's score")
    assert {score.ssrc for score in producer.score} == {1111, 2222}
    assert [score.encoding_idx for score in producer.score] == [0, 1]
    assert producer.score == of_producer[-1]
    assert consumer.score == of_consumer[-1]
    assert len(consumer.score.producer_scores) == 2


async def test_the_address_of_rtcp_is_learnt(router: Router, open_endpoint: OpenEndpoint) -> None:
    transport = await router.create_plain_transport(listen_info=LOOPBACK, rtcp_mux=False, comedia=True)
    endpoint = await open_endpoint()
    await transport.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    assert transport.rtcp_tuple is not None
    learnt: asyncio.Future[TransportTuple] = asyncio.ensure_future(next_value(transport.on_rtcp_tuple))
    await asyncio.sleep(0)
    report = struct.pack("!BBHIIIIII", 0x80, 200, 6, 1111, 7, 8, 960, 1, 4)
    endpoint.transport.sendto(report, ("127.0.0.1", transport.rtcp_tuple.local_port))
    found = await learnt
    assert (found.remote_ip, found.remote_port) == ("127.0.0.1", endpoint.port)
    assert transport.rtcp_tuple == found


async def test_a_worker_uses_the_certificate_that_it_is_given(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    certificate = RTCCertificate.generateCertificate()
    cert_file, key_file = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert_file.write_bytes(certificate._cert.public_bytes(Encoding.PEM))
    key_file.write_bytes(certificate._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    worker = await start_worker(dtls_certificate_file=cert_file, dtls_private_key_file=key_file)
    router = await worker.create_router()
    transport = await router.create_webrtc_transport(listen_infos=[LOOPBACK])
    ours = {
        fingerprint.algorithm: fingerprint.value for fingerprint in transport.dtls_parameters.fingerprints
    }
    theirs = {fingerprint.algorithm: fingerprint.value for fingerprint in certificate.getFingerprints()}
    assert ours["sha-256"] == theirs["sha-256"]


async def test_media_codecs_are_replaced_for_producers_to_come(router: Router) -> None:
    direct = await router.create_direct_transport()
    audio = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    only_video = [codec for codec in router.rtp_capabilities.codecs if codec.mime_type == "video/VP8"]
    router.update_media_codecs(only_video)
    assert {codec.kind for codec in router.rtp_capabilities.codecs} == {"video"}
    assert not audio.closed
    await direct.produce(kind="video", rtp_parameters=video_parameters(2222))
