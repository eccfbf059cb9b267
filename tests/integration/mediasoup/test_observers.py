"""The observer API: whatever is made anywhere is told, from the worker down, in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator

import pytest
from integration.mediasoup.rtp import MEDIA_CODECS, audio_parameters, until, video_parameters

from mediaserver.mediasoup import (
    CloseReason,
    DirectTransport,
    MediasoupError,
    Router,
    Transport,
    TransportListenInfo,
    WebRtcServer,
    Worker,
    create_worker,
    get_supported_rtp_capabilities,
    observer,
    ortc,
    set_log_event_listeners,
)

StartWorker = Callable[..., Awaitable[Worker]]
LISTEN = TransportListenInfo(ip="127.0.0.1")


class Monitor:
    """Watches everything from the module's observer on."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stop = observer.on_new_worker.subscribe(self.worker)

    def note(self, kind: str, what: object) -> None:
        self.lines.append(f"{kind} {type(what).__name__}")

    def worker(self, worker: Worker) -> None:
        self.note("new", worker)
        worker.observer.on_close.subscribe(lambda _: self.note("close", worker))
        worker.observer.on_new_router.subscribe(self.router)
        worker.observer.on_new_webrtc_server.subscribe(self.server)

    def server(self, server: WebRtcServer) -> None:
        self.note("new", server)
        server.observer.on_webrtc_transport_handled.subscribe(lambda t: self.note("handled", t))
        server.observer.on_webrtc_transport_unhandled.subscribe(lambda t: self.note("unhandled", t))
        server.observer.on_close.subscribe(lambda _: self.note("close", server))

    def router(self, router: Router) -> None:
        self.note("new", router)
        router.observer.on_close.subscribe(lambda _: self.note("close", router))
        router.observer.on_new_rtp_observer.subscribe(lambda found: self.note("new", found))
        router.observer.on_new_transport.subscribe(self.transport)

    def transport(self, transport: Transport) -> None:
        self.note("new", transport)
        watched = transport.observer
        watched.on_new_producer.subscribe(lambda made: self.note("new", made))
        watched.on_new_consumer.subscribe(lambda made: self.note("new", made))
        watched.on_new_data_producer.subscribe(lambda made: self.note("new", made))
        watched.on_new_data_consumer.subscribe(lambda made: self.note("new", made))
        watched.on_close.subscribe(lambda _: self.note("close", transport))


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    made = Monitor()
    yield made
    made.stop()


async def test_everything_that_is_made_is_told(monitor: Monitor, start_worker: StartWorker) -> None:
    worker = await start_worker()
    server = await worker.create_webrtc_server(listen_infos=[LISTEN])
    router = await worker.create_router(media_codecs=MEDIA_CODECS)
    await router.create_webrtc_transport(webrtc_server=server)
    await router.create_plain_transport(listen_info=LISTEN)
    await router.create_pipe_transport(listen_info=LISTEN)
    await router.create_audio_level_observer()
    await router.create_active_speaker_observer()
    direct = await router.create_direct_transport()
    producer = await direct.produce(kind="audio", rtp_parameters=audio_parameters(1111))
    await direct.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    data = await direct.produce_data()
    await direct.consume_data(data_producer_id=data.id)
    assert monitor.lines == [
        "new Worker",
        "new WebRtcServer",
        "new Router",
        "new WebRtcTransport",
        "handled WebRtcTransport",
        "new PlainTransport",
        "new PipeTransport",
        "new AudioLevelObserver",
        "new ActiveSpeakerObserver",
        "new DirectTransport",
        "new Producer",
        "new Consumer",
        "new DataProducer",
        "new DataConsumer",
    ]
    monitor.lines.clear()
    router.close()
    worker.close()
    assert monitor.lines == [
        "unhandled WebRtcTransport",
        "close WebRtcTransport",
        "close PlainTransport",
        "close PipeTransport",
        "close DirectTransport",
        "close Router",
        "close WebRtcServer",
        "close Worker",
    ]


async def test_a_monitor_that_raises_disturbs_nobody(start_worker: StartWorker) -> None:
    def broken(worker: Worker) -> None:
        raise ValueError("broken monitor")

    stop = observer.on_new_worker.subscribe(broken)
    try:
        worker = await start_worker()
    finally:
        stop()
    assert not worker.closed
    await worker.dump()


@pytest.mark.parametrize("closes", ["child", "parent", "worker"])
async def test_a_monitor_may_close_what_is_being_made(worker: Worker, router: Router, closes: str) -> None:
    def close(transport: Transport) -> None:
        {"child": transport, "parent": router, "worker": worker}[closes].close()

    router.observer.on_new_transport.subscribe(close)
    call = asyncio.create_task(router.create_direct_transport())
    if closes == "child":
        assert (await call).close_reason is CloseReason.CLOSED
        await router.dump()
    else:
        with pytest.raises(MediasoupError):
            await call
        assert router.closed


async def test_what_happens_to_streams_is_told(router: Router) -> None:
    direct: DirectTransport = await router.create_direct_transport()
    producer = await direct.produce(kind="video", rtp_parameters=video_parameters(1111))
    consumer = await direct.consume(producer_id=producer.id, rtp_capabilities=router.rtp_capabilities)
    data = await direct.produce_data()
    data_consumer = await direct.consume_data(data_producer_id=data.id)
    told: list[str] = []
    for node in (producer, consumer, data, data_consumer):
        for name in ("on_pause", "on_resume", "on_close"):
            event = getattr(node.observer, name)
            event.subscribe(lambda _, node=node, name=name: told.append(f"{node.KIND} {name}"))
    await producer.pause()
    await until(lambda: consumer.producer_paused, "the pause")
    await producer.resume()
    await until(lambda: not consumer.producer_paused, "the resuming")
    await data_consumer.pause()
    await data_consumer.resume()
    data.close()
    await until(lambda: data_consumer.closed, "the end")
    # The worker tells the consumer before it answers the producer's call.
    assert told == [
        "Consumer on_pause",
        "Producer on_pause",
        "Consumer on_resume",
        "Producer on_resume",
        "DataConsumer on_pause",
        "DataConsumer on_resume",
        "DataProducer on_close",
        "DataConsumer on_close",
    ]


async def test_the_end_of_the_process_is_told_after_its_closing(start_worker: StartWorker) -> None:
    worker = await start_worker()
    told: list[str] = []
    worker.on_close.subscribe(lambda _: told.append("close"))
    worker.on_subprocess_close.subscribe(lambda _: told.append("subprocess"))
    assert not worker.subprocess_closed
    worker.close()
    assert not worker.subprocess_closed
    await until(lambda: worker.subprocess_closed, "the process's end")
    assert told == ["close", "subprocess"]


async def test_a_servers_end_is_told_with_its_reason(worker: Worker) -> None:
    server = await worker.create_webrtc_server(listen_infos=[LISTEN])
    told: list[CloseReason] = []
    server.on_worker_close.subscribe(told.append)
    server.on_close.subscribe(told.append)
    worker.close()
    assert told == [CloseReason.WORKER_CLOSED] * 2


def fail(_: object) -> None:
    raise ValueError("a handler's fault")


async def test_log_lines_reach_listeners(start_worker: StartWorker) -> None:
    errors: list[tuple[str, str]] = []
    debug: list[tuple[str, str]] = []
    logger = logging.getLogger("mediaserver.mediasoup")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    set_log_event_listeners(
        on_debug=lambda namespace, log: debug.append((namespace, log)),
        on_error=lambda namespace, log, error: errors.append((log, str(error))),
    )
    try:
        worker = await start_worker(log_level="debug", log_tags=["info"])
        router = await worker.create_router(media_codecs=MEDIA_CODECS)
        router.on_close.subscribe(fail)
        router.close()
        await until(lambda: debug, "a line of the worker's")
    finally:
        set_log_event_listeners()
        logger.setLevel(level)
    assert errors == [("a handler of Router.on_close failed", "a handler's fault")]
    assert {namespace for namespace, _ in debug} <= {"mediaserver.mediasoup", "mediaserver.mediasoup.worker"}


async def test_settings_of_workers(start_worker: StartWorker) -> None:
    worker = await create_worker(
        log_level="debug",
        log_tags=["ice", "rtp"],
        rtc_min_port=42_000,
        rtc_max_port=42_100,
        libwebrtc_field_trials="WebRTC-Bwe-AlrLimitedBackoff/Disabled/",
        app_data={"name": "a"},
    )
    async with worker:
        assert worker.app_data == {"name": "a"}
        worker.app_data = {"name": "b"}
        assert worker.app_data == {"name": "b"}
        router = await worker.create_router(app_data={"r": 1})
        assert router.app_data == {"r": 1}
        transport = await router.create_plain_transport(listen_info=LISTEN)
        assert 42_000 <= transport.tuple.local_port <= 42_100
        await worker.update_settings(log_level="warn", log_tags=["info"])
        await worker.update_settings()


def test_supported_capabilities_are_the_routers_base() -> None:
    supported = get_supported_rtp_capabilities()
    assert supported == ortc.SUPPORTED_RTP_CAPABILITIES
    assert supported is not ortc.SUPPORTED_RTP_CAPABILITIES
    assert {"audio/opus", "video/VP8", "video/AV1"} <= {codec.mime_type for codec in supported.codecs}
