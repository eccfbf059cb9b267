"""Cases of test-ActiveSpeakerObserver.js: the observer that tells who speaks."""

from __future__ import annotations

import pytest
from support.mediasoup_suite import OPUS, case, refused, rejected, seen, soon

from mediaserver.mediasoup import CloseReason, InvalidArgumentError, Router, Worker


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router(media_codecs=[OPUS])


@case("test-ActiveSpeakerObserver", "router.createActiveSpeakerObserver() succeeds")
async def test_create(router: Router) -> None:
    made = seen(router.observer.on_new_rtp_observer)
    observer = await router.create_active_speaker_observer()
    assert made == [observer]
    assert observer.id
    assert (observer.type, observer.closed, observer.paused) == ("activespeaker", False, False)
    assert observer.app_data == {}
    assert (await router.dump()).rtp_observer_ids == [observer.id]


@case(
    "test-ActiveSpeakerObserver",
    "router.createActiveSpeakerObserver() with wrong arguments rejects with TypeError",
)
async def test_create_wrong(router: Router) -> None:
    await rejected(
        InvalidArgumentError,
        router.create_active_speaker_observer(interval=-1),
        router.create_active_speaker_observer(interval=65_536),
    )
    assert (await router.dump()).rtp_observer_ids == []


@case("test-ActiveSpeakerObserver", "activeSpeakerObserver.pause() and resume() succeed")
async def test_pause_and_resume(router: Router) -> None:
    observer = await router.create_active_speaker_observer()
    pauses, resumes = seen(observer.observer.on_pause), seen(observer.observer.on_resume)
    states = []
    for change in (observer.pause, observer.resume):
        await change()
        states.append(observer.paused)
    assert states == [True, False]
    assert (len(pauses), len(resumes)) == (1, 1)


@case("test-ActiveSpeakerObserver", "activeSpeakerObserver.close() succeeds")
async def test_close(router: Router) -> None:
    observer = await router.create_active_speaker_observer(interval=500)
    assert len((await router.dump()).rtp_observer_ids) == 1
    observer.close()
    assert observer.closed
    assert (await router.dump()).rtp_observer_ids == []
    await refused(CloseReason.CLOSED, observer.pause())


@case("test-ActiveSpeakerObserver", 'ActiveSpeakerObserver emits "routerclose" if Router is closed')
async def test_router_close(router: Router) -> None:
    observer = await router.create_active_speaker_observer()
    told = soon(observer.on_router_close)
    router.close()
    assert await told is CloseReason.ROUTER_CLOSED
    assert observer.closed
    await refused(CloseReason.ROUTER_CLOSED, observer.pause())


@case("test-ActiveSpeakerObserver", 'ActiveSpeakerObserver emits "routerclose" if Worker is closed')
async def test_worker_close(worker: Worker, router: Router) -> None:
    observer = await router.create_active_speaker_observer()
    told = soon(observer.on_router_close)
    worker.close()
    assert await told is CloseReason.WORKER_CLOSED
    assert observer.closed
    await refused(CloseReason.WORKER_CLOSED, observer.pause())
