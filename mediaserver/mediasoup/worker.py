"""Worker: one mediasoup-worker process, and `create_worker`, which starts it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

from . import ortc
from ._fbs import worker as fbs
from .channel import DEFAULT_TIMEOUT, Channel
from .convert_transport import listen_info_to_fbs
from .errors import (
    CloseReason,
    InvalidArgumentError,
    MalformedMessageError,
    MediasoupError,
    WorkerDiedError,
    WorkerStartError,
)
from .events import ErrorHook, EventSlot, log_handler_error
from .messages import Body, Method
from .messages import Event as WorkerEvent
from .node import Node, new_id
from .observers import WorkerObserver, observer
from .process import WORKER_VERSION, ExitStatus, WorkerProcess, find_worker_bin, spawn
from .reports import WorkerDump
from .router import Router
from .rtp_parameters import RtpCodecCapability
from .types import (
    AppData,
    RouterId,
    TransportListenInfo,
    WebRtcServerId,
    WorkerLogLevel,
    WorkerLogTag,
    WorkerResourceUsage,
)
from .webrtc_server import WebRtcServer

_START_TIMEOUT: Final = 10.0
_CLOSE_GRACE: Final = 5.0
_EXIT_WAIT: Final = 1.0
"""Seconds between the end of the channel and the process's own, after which it is killed."""
_START_ERRORS: Final = {
    41: f"it was not told MEDIASOUP_VERSION ({WORKER_VERSION}); is a wrapper dropping the environment?",
    42: "it refuses its settings: check log level and tags, ports and DTLS files",
}


class Worker(Node):
    """A mediasoup-worker process (https://mediasoup.org/documentation/v3/mediasoup/api/#Worker).

    Made by `create_worker`. `close()` ends the process, by SIGKILL after 5 s; `wait_closed` waits for that.
    If it ends by itself everything in it closes, then `on_died` tells why.
    """

    KIND = "Worker"
    CHILDREN_REASON = CloseReason.WORKER_CLOSED

    on_died = EventSlot[WorkerDiedError]()
    on_subprocess_close = EventSlot[None]()
    """The process has ended and everything it wrote was logged, whether closed or died."""
    on_new_webrtc_server = EventSlot[WebRtcServer]()
    on_new_router = EventSlot[Router]()

    def __init__(
        self, process: WorkerProcess, channel: Channel, *, hook: ErrorHook, app_data: AppData | None
    ) -> None:
        super().__init__(id="", channel=channel, hook=hook, app_data=app_data)
        self._process = process
        self._timer: asyncio.TimerHandle | None = None
        self._subprocess_closed = False
        channel.broken.add_done_callback(lambda future: self._on_broken(future.result()))
        process.exited.add_done_callback(lambda future: self._on_exit(future.result()))
        process.output_ended.add_done_callback(lambda _: self._check_subprocess())

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def died(self) -> bool:
        """Whether the process ended without `close()`."""
        return self._close_reason is CloseReason.WORKER_DIED

    @property
    def subprocess_closed(self) -> bool:
        """Whether the process has ended and everything it wrote was logged."""
        return self._subprocess_closed

    @property
    def observer(self) -> WorkerObserver:
        return self

    @property
    def routers(self) -> list[Router]:
        return [child for child in self._children.values() if isinstance(child, Router)]

    @property
    def webrtc_servers(self) -> list[WebRtcServer]:
        return [child for child in self._children.values() if isinstance(child, WebRtcServer)]

    async def wait_closed(self) -> None:
        """Waits until the process has ended. Bounded after `close()`, since that kills it at last."""
        await asyncio.shield(self._process.exited)

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    async def dump(self) -> WorkerDump:
        return await self._request(Method.WORKER_DUMP, None, _parse_dump)

    async def get_resource_usage(self) -> WorkerResourceUsage:
        """CPU time, memory and more of the process, since it began."""
        return await self._request(Method.WORKER_GET_RESOURCE_USAGE, None, _parse_resource_usage)

    async def update_settings(
        self, *, log_level: WorkerLogLevel | None = None, log_tags: Sequence[WorkerLogTag] | None = None
    ) -> None:
        """Changes what the worker logs; what is absent stays."""
        request = fbs.UpdateSettingsRequest(
            log_level=log_level, log_tags=None if log_tags is None else list(log_tags)
        )
        await self._request(Method.WORKER_UPDATE_SETTINGS, request)

    async def create_webrtc_server(
        self, *, listen_infos: Sequence[TransportListenInfo], app_data: AppData | None = None
    ) -> WebRtcServer:
        """Opens ports for WebRtcTransports. Raises RequestRejectedError when one can't be bound."""
        if not listen_infos:
            raise InvalidArgumentError("listen_infos is empty; give at least one address")
        server_id = WebRtcServerId(new_id())
        request = fbs.CreateWebRtcServerRequest(
            web_rtc_server_id=server_id, listen_infos=[listen_info_to_fbs(info) for info in listen_infos]
        )
        undo = fbs.CloseWebRtcServerRequest(web_rtc_server_id=server_id)
        return await self._create(
            Method.WORKER_CREATE_WEBRTCSERVER,
            request,
            lambda _: WebRtcServer(self, id=server_id, app_data=app_data),
            child_id=server_id,
            undo=(Method.WORKER_WEBRTCSERVER_CLOSE, undo),
        )

    async def create_router(
        self, *, media_codecs: Sequence[RtpCodecCapability] = (), app_data: AppData | None = None
    ) -> Router:
        """A router for these codecs (RTX is added to each video codec).

        Raises UnsupportedError for a codec that mediasoup lacks, InvalidArgumentError for an invalid one.
        """
        caps = ortc.generate_router_rtp_capabilities(list(media_codecs))
        router_id = RouterId(new_id())
        return await self._create(
            Method.WORKER_CREATE_ROUTER,
            fbs.CreateRouterRequest(router_id=router_id),
            lambda _: Router(self, id=router_id, rtp_capabilities=caps, app_data=app_data),
            child_id=router_id,
            undo=(Method.WORKER_CLOSE_ROUTER, fbs.CloseRouterRequest(router_id=router_id)),
        )

    @property
    def _name(self) -> str:
        return f"Worker {self.pid}"

    def _tell_worker(self) -> None:
        self._channel.notify(WorkerEvent.WORKER_CLOSE)

    def _closing(self, reason: CloseReason) -> None:
        if reason is CloseReason.CLOSED:
            self._channel.close()
            self._kill_after(_CLOSE_GRACE)

    def _on_broken(self, error: MediasoupError) -> None:
        """The channel ended. Mostly the process has too, and its exit status tells more."""
        if self.closed:
            return
        if isinstance(error, MalformedMessageError):
            self._process.kill()
            self._die(WorkerDiedError(pid=self.pid, exit_code=None, signal=None, detail=str(error)), error)
        else:
            self._kill_after(_EXIT_WAIT)

    def _on_exit(self, status: ExitStatus) -> None:
        if self._timer is not None:
            self._timer.cancel()
        detail = "; ".join(self._process.output)
        self._die(
            WorkerDiedError(pid=self.pid, exit_code=status.code, signal=status.signal, detail=detail), None
        )

        self._check_subprocess()

    def _check_subprocess(self) -> None:
        process = self._process
        if process.exited.done() and process.output_ended.done() and not self._subprocess_closed:
            self._subprocess_closed = True
            self.on_subprocess_close.emit(None)

    def _die(self, error: WorkerDiedError, cause: MediasoupError | None) -> None:
        if self.closed:
            return
        error.__cause__ = cause
        self._channel.close(error)
        self._close(CloseReason.WORKER_DIED)
        self.on_died.emit(error)

    def _kill_after(self, seconds: float) -> None:
        if self._timer is None and not self._process.exited.done():
            self._timer = asyncio.get_running_loop().call_later(seconds, self._process.kill)


async def create_worker(
    *,
    worker_bin: str | os.PathLike[str] | None = None,
    log_level: WorkerLogLevel = "error",
    log_tags: Sequence[WorkerLogTag] = (),
    rtc_min_port: int | None = None,
    rtc_max_port: int | None = None,
    dtls_certificate_file: str | os.PathLike[str] | None = None,
    dtls_private_key_file: str | os.PathLike[str] | None = None,
    libwebrtc_field_trials: str | None = None,
    env: Mapping[str, str] | None = None,
    request_timeout: float = DEFAULT_TIMEOUT,
    start_timeout: float = _START_TIMEOUT,
    on_handler_error: ErrorHook = log_handler_error,
    app_data: AppData | None = None,
) -> Worker:
    """Starts a worker process and waits until it runs.

    The binary is `worker_bin`, else that of `find_worker_bin`. Ports (10000 to 59999 unless given) are for
    transports that name none. Without DTLS files (PEM, absolute paths) the worker makes a certificate.
    `env` is added to our own environment. `request_timeout` is the deadline in seconds of every request.
    `on_handler_error` gets what handlers of events raise; by default it is logged.

    Raises WorkerStartError when there is no binary, when the worker refuses its settings, or when it does
    not run within `start_timeout` seconds.
    """
    binary = find_worker_bin(worker_bin)
    values = {
        "logLevel": log_level,
        "rtcMinPort": rtc_min_port,
        "rtcMaxPort": rtc_max_port,
        "dtlsCertificateFile": dtls_certificate_file,
        "dtlsPrivateKeyFile": dtls_private_key_file,
        "libwebrtcFieldTrials": libwebrtc_field_trials,
    }
    arguments = [f"--{name}={value!s}" for name, value in values.items() if value is not None]
    arguments += [f"--logTag={tag}" for tag in log_tags]
    environment = {**os.environ, **(env or {}), "MEDIASOUP_VERSION": WORKER_VERSION}
    process = await spawn(binary, arguments, environment)
    channel = Channel(
        outgoing=process.outgoing,
        incoming=process.incoming,
        name=f"worker {process.pid}",
        timeout=request_timeout,
    )
    try:
        await _wait_running(process, channel, start_timeout)
    except BaseException:
        process.kill()
        channel.close()
        raise
    worker = Worker(process, channel, hook=on_handler_error, app_data=app_data)
    observer.on_new_worker.emit(worker)
    return worker


async def _wait_running(process: WorkerProcess, channel: Channel, timeout: float) -> None:
    """Opens the channel and waits for the worker's first notification."""
    running: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_notification(event: int, _: Body) -> None:
        if event == WorkerEvent.WORKER_RUNNING and not running.done():
            running.set_result(None)

    handler_id = str(process.pid)
    channel.subscribe(handler_id, on_notification)
    await channel.start()
    either: set[asyncio.Future[Any]] = {running, process.exited}
    await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    channel.unsubscribe(handler_id)
    if running.done() and not process.exited.done():
        return
    if process.exited.done():
        await asyncio.wait({process.output_ended}, timeout=_EXIT_WAIT)
        raise WorkerStartError(_start_error(process.exited.result(), process))
    raise WorkerStartError(f"worker {process.pid} did not come up within {timeout:g} s")


def _start_error(status: ExitStatus, process: WorkerProcess) -> str:
    if status.signal is not None:
        what = f"it was killed by signal {status.signal}"
    else:
        what = _START_ERRORS.get(status.code or 0, f"exit code {status.code}")
    said = "".join(f"; it said: {line}" for line in process.output)
    return f"worker {process.pid} did not start: {what}{said}"


def _parse_dump(body: Body) -> WorkerDump:
    dump = body.read(fbs.DumpResponse)
    return WorkerDump(
        pid=dump.pid,
        webrtc_server_ids=[WebRtcServerId(id) for id in dump.web_rtc_server_ids],
        router_ids=[RouterId(id) for id in dump.router_ids],
        channel_request_handlers=dump.channel_message_handlers.channel_request_handlers,
        channel_notification_handlers=dump.channel_message_handlers.channel_notification_handlers,
    )


def _parse_resource_usage(body: Body) -> WorkerResourceUsage:
    usage = body.read(fbs.ResourceUsageResponse)
    return WorkerResourceUsage(
        **{name: getattr(usage, name) for name in WorkerResourceUsage.__struct_fields__}
    )
