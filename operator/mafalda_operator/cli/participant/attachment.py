"""One dial: from the socket's opening to its end, with the media that belongs to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiohttp import ClientSession
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame
from yarl import URL

from mafalda_operator.cli.participant.errors import MediaError, ParticipantError, RequestFailed, SourceError
from mafalda_operator.cli.participant.reachability import Reachability
from mafalda_operator.cli.participant.received import Feed, Received
from mafalda_operator.cli.participant.rtc import Direction, Rtc, Stream
from mafalda_operator.cli.participant.signalling import Closed, Signalling
from mafalda_operator.cli.participant.sources import Source

log = structlog.get_logger(__name__)

OnFrame = Callable[[Received, VideoFrame | AudioFrame], None]

LOSS_INTERVAL = 0.5
"""Seconds between two looks at a receiver's loss counter."""


@dataclass(frozen=True)
class Hooks:
    """What an attachment tells its participant."""

    received: Callable[[str, str, str], Received]
    """The figures of (peer, source, kind), made when there are none."""
    on_frame: OnFrame
    clock: Callable[[], float] = time.monotonic
    reachability: Reachability = field(default_factory=Reachability)


@dataclass(frozen=True)
class Welcome:
    """What the server answered to join."""

    peers: tuple[str, ...]
    resume: str | None
    router: str


@dataclass(frozen=True)
class MoveWish:
    """The server asks the participant to attach elsewhere within so many seconds."""

    reason: str
    within: float


@dataclass
class _Reception:
    stream: Stream
    feed: Feed
    task: asyncio.Task[None]

    @property
    def received(self) -> Received:
        return self.feed.received


class Attachment:
    """Joined media over one socket. `enter`, then `closed` is the future of its end, then `leave`."""

    def __init__(self, signalling: Signalling, hooks: Hooks) -> None:
        self._hooks = hooks
        self._signalling = signalling
        self._rtc = Rtc(self._ask, self._media_lost, hooks.reachability)
        self._producers: dict[str, str] = {}
        self._receptions: dict[str, _Reception] = {}
        self._lost: asyncio.Event = asyncio.Event()
        self.move: asyncio.Future[MoveWish] = asyncio.get_running_loop().create_future()
        """Done when the server has asked to attach elsewhere."""
        self.closed: asyncio.Task[Closed]

    @classmethod
    async def dial(cls, http: ClientSession, url: URL, hooks: Hooks) -> Attachment:
        """Raises RequestFailed when the dial fails."""
        socket = await Signalling.dial(http, url)

        async def on_request(method: str, data: dict[str, Any]) -> None:
            await attachment._on_request(method, data)

        async def on_notification(method: str, data: dict[str, Any]) -> None:
            await attachment._on_notification(method, data)

        attachment = cls(Signalling(socket, on_request, on_notification), hooks)
        attachment.closed = asyncio.create_task(attachment._run())
        return attachment

    async def enter(self, *, name: str, send: bool, receive: bool, moved: bool = False) -> Welcome:
        """Makes the transports and joins; `moved` when asked to. Raises ParticipantError."""
        await self._rtc.load(await self._ask("getRouterRtpCapabilities", {}))
        if send:
            await self._rtc.open("send")
        if receive:
            await self._rtc.open("recv")
        answer = await self._ask(
            "join",
            {
                "displayName": name,
                "device": {"flag": "mafalda", "name": "mafalda join", "version": ""},
                **({"rtpCapabilities": self._rtc.capabilities} if receive else {}),
                **({"reattach": True} if moved else {}),
            },
        )
        peers = tuple(str(peer["id"]) for peer in answer.get("peers", ()))
        return Welcome(peers, answer.get("resume"), str(answer.get("router", "")))

    async def publish(self, source: Source) -> None:
        """Starts to send `source`. Raises ParticipantError."""
        if source.name in self._producers:
            raise SourceError(f"{source.name} is published already")
        track: MediaStreamTrack = source.open()
        try:
            self._producers[source.name] = await self._rtc.produce(track, {"source": source.name})
        except BaseException:
            track.stop()
            raise

    async def unpublish(self, name: str) -> None:
        """Stops to send the source of that name."""
        if name not in self._producers:
            raise SourceError(f"{name} is not published")
        await self._rtc.stop(self._producers.pop(name))

    async def pause(self, name: str, *, paused: bool) -> None:
        """Has the server hold a source back, or let it through again."""
        producer_id = self._producers.get(name)
        if producer_id is None:
            raise SourceError(f"{name} is not published")
        await self._ask("pauseProducer" if paused else "resumeProducer", {"producerId": producer_id})

    def detach(self) -> None:
        """Stops counting: what comes from now on belongs to another attachment."""
        for reception in self._receptions.values():
            reception.task.cancel()
            reception.feed.end()

    def flowing(self) -> set[tuple[str, str]]:
        """Peer and source of what frames have come of, and are to come of."""
        return {
            (reception.received.peer, reception.received.source)
            for reception in self._receptions.values()
            if reception.feed.frames and not reception.received.paused
        }

    def publishes(self, name: str) -> bool:
        """Whether the source of that name is sent."""
        return name in self._producers

    async def leave(self) -> None:
        """Says goodbye if the socket is open, and frees the media. Idempotent."""
        await self._signalling.close()
        if not self.closed.done():
            self.closed.cancel()
        await asyncio.wait((self.closed,))
        for reception in tuple(self._receptions.values()):
            await self._end(reception)
        self._receptions.clear()
        await self._rtc.close()

    # -- the server's messages -----------------------------------------------------------------------------

    async def _run(self) -> Closed:
        reading = asyncio.create_task(self._signalling.run())
        lost = asyncio.create_task(self._lost.wait())
        try:
            await asyncio.wait((reading, lost), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else Closed(None, "the media connection failed")
        finally:
            for task in (reading, lost):
                task.cancel()
            await asyncio.wait((reading, lost))

    def _media_lost(self, direction: Direction) -> None:
        log.debug("media connection failed", direction=direction)
        self._lost.set()

    async def _ask(self, method: str, data: dict[str, Any]) -> dict[str, Any]:
        return await self._signalling.request(method, data)

    async def _on_request(self, method: str, data: dict[str, Any]) -> None:
        if method != "newConsumer":
            raise RequestFailed(method, "unknown method")
        received = self._hooks.received(data["peerId"], _source_of(data), data["kind"])
        stream = await self._rtc.consume(data)
        feed = received.begin(str(data["producerId"]))
        received.paused = bool(data.get("producerPaused"))
        task = asyncio.create_task(self._drain(stream, feed))
        self._receptions[data["id"]] = _Reception(stream, feed, task)

    async def _on_notification(self, method: str, data: dict[str, Any]) -> None:
        if method == "reattach" and not self.move.done():
            self.move.set_result(_move_wish(data))
        reception = self._receptions.get(data.get("consumerId", ""))
        if reception is None:
            return
        if method == "consumerPaused":
            reception.received.paused = True
        elif method == "consumerResumed":
            reception.received.paused = False
        elif method == "consumerClosed":
            del self._receptions[data["consumerId"]]
            await self._end(reception)
            reception.feed.end()
            try:
                await self._rtc.drop(reception.stream)
            except MediaError as error:
                log.warning("consumer not closed", error=str(error))

    # -- media ---------------------------------------------------------------------------------------------

    async def _drain(self, stream: Stream, feed: Feed) -> None:
        """Reads the track to its end; each frame that comes out was decoded."""
        look_again = 0.0
        try:
            while True:
                frame = await stream.track.recv()
                now = self._hooks.clock()
                if isinstance(frame, VideoFrame):
                    new = feed.count(now, stream.timestamp(frame.pts), frame.width, frame.height)
                elif isinstance(frame, AudioFrame):
                    new = feed.count(now, stream.timestamp(frame.pts))
                else:  # aiortc decodes all that it receives
                    continue
                if now >= look_again:
                    feed.lost = stream.lost()
                    look_again = now + LOSS_INTERVAL
                if new:
                    self._hooks.on_frame(feed.received, frame)
        except MediaStreamError:
            return
        finally:
            feed.lost = stream.lost()

    async def _end(self, reception: _Reception) -> None:
        reception.task.cancel()
        await asyncio.wait((reception.task,))  # not awaited itself: our own cancellation must get through


def _move_wish(data: dict[str, Any]) -> MoveWish:
    within = data.get("within")
    seconds = float(within) if isinstance(within, int | float) and within >= 0 else 0.0
    return MoveWish(str(data.get("reason", "")), seconds)


def _source_of(offer: dict[str, Any]) -> str:
    app_data = offer.get("appData") or {}
    return str(app_data.get("source") or offer["kind"])


__all__ = ["Attachment", "Hooks", "MoveWish", "OnFrame", "ParticipantError", "Welcome"]
