"""Cases of test-Router.js: routers and their capabilities."""

from __future__ import annotations

import pytest
from support.mediasoup_suite import MEDIA_CODECS, case, refused, rejected, seen, soon

from mediaserver.mediasoup import (
    CloseReason,
    InvalidArgumentError,
    RtpCodecCapability,
    UnsupportedError,
    Worker,
)


@case("test-Router", "worker.createRouter() succeeds")
async def test_create_router(worker: Worker) -> None:
    made = seen(worker.observer.on_new_router)
    router = await worker.create_router(media_codecs=MEDIA_CODECS, app_data={"room": 7})
    assert made == [router]
    assert router.id
    assert [router.closed] == [False]
    assert len(router.rtp_capabilities.codecs) == 5  # two of the three with RTX
    assert router.rtp_capabilities.header_extensions
    assert router.app_data == {"room": 7}
    router.app_data = {"room": 8}
    dump = await worker.dump()
    assert (dump.pid, dump.webrtc_server_ids, dump.router_ids) == (worker.pid, [], [router.id])
    assert (dump.channel_request_handlers, dump.channel_notification_handlers) == ([router.id], [])
    inside = await router.dump()
    assert (inside.id, inside.transport_ids, inside.rtp_observer_ids) == (router.id, [], [])
    assert inside.map_producer_id_consumer_ids == {}
    assert inside.map_consumer_id_producer_id == {}
    assert inside.map_producer_id_observer_ids == {}
    assert inside.map_data_producer_id_data_consumer_ids == {}
    assert inside.map_data_consumer_id_data_producer_id == {}
    assert worker.routers == [router]
    worker.close()
    assert router.closed
    assert worker.routers == []


@case("test-Router", "worker.createRouter() with invalid codecs rejects with UnsupportedError")
@pytest.mark.parametrize("codec", [("audio/x-aiff", 8_000, 1), ("video/3gpp", 90_000, None)])
async def test_create_router_unsupported(worker: Worker, codec: tuple[str, int, int | None]) -> None:
    mime_type, clock_rate, channels = codec
    wanted = RtpCodecCapability(mime_type=mime_type, clock_rate=clock_rate, channels=channels)
    await rejected(UnsupportedError, worker.create_router(media_codecs=[wanted]))


@case("test-Router", "worker.createRouter() with wrong arguments rejects with TypeError")
async def test_create_router_wrong(worker: Worker) -> None:
    for wrong in (
        RtpCodecCapability(mime_type="opus", clock_rate=48_000),
        RtpCodecCapability(mime_type="audio/opus", clock_rate=48_000, channels=2, parameters={"apt": "x"}),
    ):
        await rejected(InvalidArgumentError, worker.create_router(media_codecs=[wrong]))
    assert (await worker.dump()).router_ids == []


@case("test-Router", "worker.createRouter() rejects with WorkerClosedError if Worker is closed")
async def test_create_router_closed(worker: Worker) -> None:
    worker.close()
    await refused(CloseReason.CLOSED, worker.create_router(media_codecs=MEDIA_CODECS))


@case("test-Router", "router.rtpCapabilities getter returns cloned RTP capabilities")
async def test_capabilities_cannot_be_changed(worker: Worker) -> None:
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    with pytest.raises(AttributeError):
        router.rtp_capabilities.header_extensions = []  # type: ignore[misc]
    with pytest.raises(AttributeError):
        router.rtp_capabilities = router.rtp_capabilities  # type: ignore[misc]
    other = await worker.create_router(media_codecs=MEDIA_CODECS)
    assert router.rtp_capabilities == other.rtp_capabilities
    assert router.rtp_capabilities.header_extensions


@case("test-Router", "router.updateMediaCodecs() succeeds")
async def test_update_media_codecs(worker: Worker) -> None:
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    assert len(router.rtp_capabilities.codecs) == 5
    router.update_media_codecs([])
    assert router.rtp_capabilities.codecs == []
    assert router.rtp_capabilities.header_extensions


@case("test-Router", "router.close() succeeds")
async def test_close(worker: Worker) -> None:
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    closes = seen(router.observer.on_close)
    router.close()
    assert closes == [CloseReason.CLOSED]
    assert router.closed
    await refused(CloseReason.CLOSED, router.dump())
    assert (await worker.dump()).router_ids == []


@case("test-Router", 'Router emits "workerclose" if Worker is closed')
async def test_worker_close(worker: Worker) -> None:
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    closes = seen(router.observer.on_close)
    told = soon(router.on_worker_close)
    worker.close()
    assert await told is CloseReason.WORKER_CLOSED
    assert closes == [CloseReason.WORKER_CLOSED]
    await refused(CloseReason.WORKER_CLOSED, router.dump())
