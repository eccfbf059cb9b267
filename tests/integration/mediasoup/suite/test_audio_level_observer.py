"""Cases of test-AudioLevelObserver.js: the observer that tells how loud producers are."""

from __future__ import annotations

import pytest
from support.mediasoup_suite import OPUS, case, refused, rejected, seen, soon

from mediaserver.mediasoup import CloseReason, InvalidArgumentError, Router, Worker


@pytest.fixture
async def router(worker: Worker) -> Router:
    return await worker.create_router(media_codecs=[OPUS])


@case("test-AudioLevelObserver", "router.createAudioLevelObserver() succeeds")
async def test_create(router: Router) -> None:
    made = seen(router.observer.on_new_rtp_observer)
    observer = await router.create_audio_level_observer()
    assert made == [observer]
    assert observer.id
    assert (observer.type, observer.closed, observer.paused) == ("audiolevel", False, False)
    assert observer.app_data == {}
    assert (await router.dump()).rtp_observer_ids == [observer.id]


@case(
    "test-AudioLevelObserver",
    "router.createAudioLevelObserver() with wrong arguments rejects with TypeError",
)
async def test_create_wrong(router: Router) -> None:
    await rejected(
        InvalidArgumentError,
        router.create_audio_level_observer(max_entries=0),
        router.create_audio_level_observer(max_entries=-10),
        router.create_audio_level_observer(threshold=1),
        router.create_audio_level_observer(threshold=-128),
        router.create_audio_level_observer(interval=-1),
    )
    assert (await router.dump()).rtp_observer_ids == []


@case("test-AudioLevelObserver", "audioLevelObserver.pause() and resume() succeed")
async def test_pause_and_resume(router: Router) -> None:
    observer = await router.create_audio_level_observer()
    pauses, resumes = seen(observer.observer.on_pause), seen(observer.observer.on_resume)
    states = []
    for change in (observer.pause, observer.resume):
        await change()
        states.append(observer.paused)
    assert states == [True, False]
    assert (len(pauses), len(resumes)) == (1, 1)


@case("test-AudioLevelObserver", "audioLevelObserver.close() succeeds")
async def test_close(router: Router) -> None:
    observer = await router.create_audio_level_observer(max_entries=8)
    assert len((await router.dump()).rtp_observer_ids) == 1
    observer.close()
    assert observer.closed
    assert (await router.dump()).rtp_observer_ids == []
    await refused(CloseReason.CLOSED, observer.pause())


@case("test-AudioLevelObserver", 'AudioLevelObserver emits "routerclose" if Router is closed')
async def test_router_close(router: Router) -> None:
    observer = await router.create_audio_level_observer()
    told = soon(observer.on_router_close)
    router.close()
    assert await told is CloseReason.ROUTER_CLOSED
    assert observer.closed
    await refused(CloseReason.ROUTER_CLOSED, observer.pause())


@case("test-AudioLevelObserver", 'AudioLevelObserver emits "routerclose" if Worker is closed')
async def test_worker_close(worker: Worker, router: Router) -> None:
    observer = await router.create_audio_level_observer()
    told = soon(observer.on_router_close)
    worker.close()
    assert await told is CloseReason.WORKER_CLOSED
    assert observer.closed
    await refused(CloseReason.WORKER_CLOSED, observer.pause())
