"""AudioLevelObserver and ActiveSpeakerObserver hear what producers say."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import pytest
from integration.mediasoup.rtp import audio_parameters, next_value, until, video_parameters
from msgspec.structs import replace

from mediaserver.mediasoup import (
    ClosedError,
    CloseReason,
    DirectTransport,
    InvalidArgumentError,
    NotFoundError,
    Producer,
    ProducerId,
    RequestRejectedError,
    Router,
    RtpHeaderExtensionParameters,
    Worker,
)

LEVEL = RtpHeaderExtensionParameters(uri="urn:ietf:params:rtp-hdrext:ssrc-audio-level", id=10)


@pytest.fixture
async def direct(router: Router) -> DirectTransport:
    return await router.create_direct_transport()


async def speaker(direct: DirectTransport, ssrc: int) -> Producer:
    params = replace(audio_parameters(ssrc), header_extensions=[LEVEL])
    return await direct.produce(kind="audio", rtp_parameters=params)


@contextlib.asynccontextmanager
async def speaking(producer: Producer, ssrc: int, volume: int) -> AsyncIterator[None]:
    """Sends audio of so many -dBov, 50 packets a second (RFC 6464)."""

    async def speak() -> None:
        for number in range(1, 10_000):
            head = struct.pack("!BBHII", 0x90, 111, number, number * 960, ssrc)
            extension = struct.pack("!HHBBxx", 0xBEDE, 1, 0xA0, 0x80 | volume)
            producer.send(head + extension + bytes(40))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(speak())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_volumes_and_silence(router: Router, direct: DirectTransport) -> None:
    observer = await router.create_audio_level_observer(
        max_entries=2, threshold=-70, interval=250, app_data={"x": 1}
    )
    assert (observer.type, observer.paused, observer.app_data) == ("audiolevel", False, {"x": 1})
    loud, low, mute = [await speaker(direct, ssrc) for ssrc in (1111, 2222, 3333)]
    for producer in (loud, low, mute):
        await observer.add_producer(producer_id=producer.id)
    assert (await router.dump()).map_producer_id_observer_ids[loud.id] == [observer.id]
    silence = asyncio.ensure_future(next_value(observer.on_silence))
    async with speaking(loud, 1111, 10), speaking(low, 2222, 40), speaking(mute, 3333, 100):
        for _ in range(20):  # the first interval may have begun before the last one spoke
            volumes = await next_value(observer.on_volumes)
            if len(volumes) == 2:
                break
        assert [entry.producer for entry in volumes] == [loud, low]
        assert [entry.volume for entry in volumes] == [-10, -40]
    await silence


async def test_the_dominant_speaker(router: Router, direct: DirectTransport) -> None:
    observer = await router.create_active_speaker_observer(interval=100)
    assert observer.type == "activespeaker"
    first, second = await speaker(direct, 1111), await speaker(direct, 2222)
    await observer.add_producer(producer_id=first.id)
    heard: list[Producer] = []
    observer.on_dominant_speaker.subscribe(lambda speaker: heard.append(speaker.producer))
    async with speaking(first, 1111, 10):
        await until(lambda: heard == [first], "the only speaker")
        await observer.add_producer(producer_id=second.id)
        async with speaking(second, 2222, 10):
            first_closes = len(heard)
            await observer.remove_producer(producer_id=first.id)
            await until(lambda: heard[-1] is second, "the second speaker")
            assert len(heard) <= first_closes + 1


async def test_adding_removing_and_pausing_are_told(router: Router, direct: DirectTransport) -> None:
    observer = await router.create_audio_level_observer()
    producer = await speaker(direct, 1111)
    told: list[object] = []
    observer.on_add_producer.subscribe(lambda added: told.append(("add", added)))
    observer.on_remove_producer.subscribe(lambda removed: told.append(("remove", removed)))
    observer.on_pause.subscribe(lambda _: told.append("pause"))
    observer.on_resume.subscribe(lambda _: told.append("resume"))
    await observer.add_producer(producer_id=producer.id)
    await observer.pause()
    await observer.pause()
    assert observer.paused
    await observer.resume()
    await observer.resume()
    await observer.remove_producer(producer_id=producer.id)
    assert told == [("add", producer), "pause", "resume", ("remove", producer)]
    assert not (await router.dump()).map_producer_id_observer_ids.get(producer.id)


async def test_what_can_not_be_observed(router: Router, direct: DirectTransport) -> None:
    observer = await router.create_audio_level_observer()
    video = await direct.produce(kind="video", rtp_parameters=video_parameters(1111))
    with pytest.raises(RequestRejectedError):
        await observer.add_producer(producer_id=video.id)
    for change in (observer.add_producer, observer.remove_producer):
        with pytest.raises(NotFoundError, match="no producer"):
            await change(producer_id=ProducerId("nobody"))


@pytest.mark.parametrize(
    "options",
    [{"max_entries": 0}, {"threshold": 1}, {"threshold": -128}, {"interval": -1}, {"interval": 70_000}],
)
async def test_settings_out_of_range(router: Router, options: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        await router.create_audio_level_observer(**options)  # type: ignore[arg-type]


async def test_closing(worker: Worker, router: Router) -> None:
    level = await router.create_audio_level_observer()
    active = await router.create_active_speaker_observer()
    assert router.rtp_observers == [level, active]
    assert set((await router.dump()).rtp_observer_ids) == {level.id, active.id}
    level.close()
    with pytest.raises(ClosedError):
        await level.pause()
    assert (await router.dump()).rtp_observer_ids == [active.id]
    told: list[CloseReason] = []
    active.on_router_close.subscribe(told.append)
    active.on_close.subscribe(told.append)
    worker.close()
    assert told == [CloseReason.WORKER_CLOSED] * 2
