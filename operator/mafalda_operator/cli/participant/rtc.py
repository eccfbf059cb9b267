"""The participant's media: a pymediasoup device, one transport to send and one to receive.

Everything that is said to the server goes through `ask`; the traps are handled as traps.py says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from aiortc import MediaStreamTrack, RTCRtpReceiver
from pymediasoup import AiortcHandler, Device
from pymediasoup.consumer import Consumer
from pymediasoup.producer import Producer
from pymediasoup.rtp_parameters import RtpCapabilities
from pymediasoup.transport import Transport

from mafalda_operator.cli.participant import traps
from mafalda_operator.cli.participant.errors import MediaError, ParticipantError
from mafalda_operator.cli.participant.reachability import Reachability

Ask = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
Direction = Literal["send", "recv"]

DEADLINE = 15.0
"""Seconds for one call on a transport, its questions to the server included."""


@dataclass(frozen=True)
class Stream:
    """A consumer's track and the receiver behind it."""

    consumer: Consumer
    track: MediaStreamTrack
    receiver: RTCRtpReceiver
    ssrc: int

    def lost(self) -> int:
        """Packets lost so far."""
        return traps.lost_packets(self.receiver, self.ssrc)

    def timestamp(self, pts: int | None) -> int | None:
        """The RTP time stamp of a frame of the track, the same over all consumers of a producer."""
        return traps.timestamp(self.receiver, pts)


class _Path:
    """One transport: its calls, one at a time, with a deadline and errors that are raised."""

    def __init__(self, transport: Transport, candidates: list[dict[str, Any]], ask: Ask) -> None:
        self.transport = transport
        self._candidates = candidates
        self._ask = ask
        self._faults = traps.Faults()
        self._lock = asyncio.Lock()
        self._connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        transport.on("error", self._faults.add)
        transport.handler.on("error", self._faults.add)
        transport.on("connect", self._on_connect)
        transport.on("produce", self._on_produce)

    async def call(self, what: str, call: Callable[[], Awaitable[Any]]) -> Any:
        async with self._lock:
            with self._faults.raised(what), traps.reach(self._candidates):
                async with asyncio.timeout(DEADLINE):
                    traps.without_probation(self.transport)
                    result = await call()
                    await asyncio.shield(self._connected)
                    return result

    async def close(self) -> None:
        async with self._lock:
            await self.transport.close()
            self._connected.cancel()

    async def _on_connect(self, dtls_parameters: Any) -> None:
        dtls = dtls_parameters.model_dump(exclude_none=True)
        try:
            await self._ask(
                "connectWebRtcTransport", {"transportId": self.transport.id, "dtlsParameters": dtls}
            )
        except ParticipantError as error:
            if not self._connected.done():
                self._connected.set_exception(error)
        else:
            if not self._connected.done():
                self._connected.set_result(None)

    async def _on_produce(self, kind: str, rtp_parameters: Any, app_data: dict[str, Any]) -> str:
        answer = await self._ask(
            "produce",
            {
                "transportId": self.transport.id,
                "kind": kind,
                "rtpParameters": rtp_parameters.model_dump(exclude_none=True),
                "appData": app_data,
            },
        )
        return str(answer["id"])


class Rtc:
    """Sends tracks and receives consumers. `close` it in the end."""

    def __init__(
        self, ask: Ask, on_lost: Callable[[Direction], None], reachability: Reachability | None = None
    ) -> None:
        """`on_lost` is called when ICE or DTLS of a transport fails."""
        self._ask = ask
        self._on_lost = on_lost
        self._reachability = reachability or Reachability()
        self._device = Device(handlerFactory=AiortcHandler.createFactory())
        self._paths: dict[Direction, _Path] = {}
        self._producers: dict[str, Producer] = {}

    async def load(self, router_capabilities: dict[str, Any]) -> None:
        """Takes what the router can do. Raises MediaError."""
        with traps.Faults().raised("load the router's capabilities"):
            await self._device.load(RtpCapabilities(**router_capabilities))

    @property
    def capabilities(self) -> dict[str, Any]:
        """What this device can receive, as `join` takes it."""
        found = self._device.recvRtpCapabilities
        return {} if found is None else traps.without_estimates(found.model_dump(exclude_none=True))

    async def open(self, direction: Direction) -> None:
        """Makes the transport of that direction, here and on the server."""
        sending = direction == "send"
        made = await self._ask("createWebRtcTransport", {"producing": sending, "consuming": not sending})
        make = self._device.createSendTransport if sending else self._device.createRecvTransport
        with traps.Faults().raised(f"{direction} transport"):
            transport = make(
                id=made["id"],
                iceParameters=made["iceParameters"],
                iceCandidates=made["iceCandidates"],
                dtlsParameters=made["dtlsParameters"],
                sctpParameters=None,
                iceServers=traps.NO_ICE_SERVERS,
            )
        self._paths[direction] = _Path(transport, made["iceCandidates"], self._ask)

        def state_changed(state: str) -> None:
            if state == "connecting":
                self._reachability.tried(made["iceCandidates"])
            elif state in ("connected", "completed"):
                self._reachability.reached(made["iceCandidates"])
            if state in ("failed", "disconnected"):
                self._on_lost(direction)

        transport.on("connectionstatechange", state_changed)

    async def produce(self, track: MediaStreamTrack, app_data: dict[str, Any]) -> str:
        """Sends `track`; returns the producer's id."""
        path = self._path("send")
        producer: Producer = await path.call(
            f"produce {track.kind}", lambda: path.transport.produce(track=track, appData=app_data)
        )
        self._producers[producer.id] = producer
        return str(producer.id)

    async def stop(self, producer_id: str) -> None:
        """Ends a producer, on the server and here."""
        producer = self._producers.pop(producer_id)
        await self._ask("closeProducer", {"producerId": producer_id})
        await producer.close()

    async def consume(self, offer: dict[str, Any]) -> Stream:
        """Receives what a newConsumer request offers."""
        path = self._path("recv")

        async def consume() -> Consumer:
            return await path.transport.consume(
                id=offer["id"],
                producerId=offer["producerId"],
                kind=offer["kind"],
                rtpParameters=offer["rtpParameters"],
                streamId=f"{offer['peerId']}",
                appData={},
            )

        consumer: Consumer = await path.call(f"consume {offer['kind']}", consume)
        receiver = next(
            transceiver.receiver
            for transceiver in path.transport.handler.pc.getTransceivers()
            if transceiver.receiver.track is consumer.track
        )
        return Stream(consumer, consumer.track, receiver, offer["rtpParameters"]["encodings"][0]["ssrc"])

    async def drop(self, stream: Stream) -> None:
        """Stops receiving."""
        await self._path("recv").call("close a consumer", stream.receiver.stop)

    async def close(self) -> None:
        """Ends everything; nothing is said to the server."""
        for path in self._paths.values():
            await path.close()

    def _path(self, direction: Direction) -> _Path:
        path = self._paths.get(direction)
        if path is None:
            raise MediaError(f"no {direction} transport: the token does not allow it")
        return path
