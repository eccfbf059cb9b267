"""AudioLevelObserver: who is loudest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ._fbs import audio_level_observer as fbs
from .events import EventSlot
from .messages import Body
from .messages import Event as WorkerEvent
from .producer import Producer
from .rtp_observer import RtpObserver
from .types import ProducerId

if TYPE_CHECKING:
    from .observers import AudioLevelObserverObserver


class AudioLevelObserverVolume(msgspec.Struct, frozen=True):
    """A producer's average volume in dBov: -127 (silence) to 0 (loudest)."""

    producer: Producer
    volume: int


class AudioLevelObserver(RtpObserver):
    """Tells which producers are loudest (https://mediasoup.org/documentation/v3/mediasoup/api/#AudioLevelObserver).

    Made by `Router.create_audio_level_observer`. Producers must send the ssrc-audio-level header extension.
    """

    KIND = "AudioLevelObserver"
    TYPE = "audiolevel"

    on_volumes = EventSlot[list[AudioLevelObserverVolume]]()
    """Once an interval: the loudest producers, loudest first."""
    on_silence = EventSlot[None]()
    """Nobody has been louder than the threshold since the last `on_volumes`."""

    @property
    def observer(self) -> AudioLevelObserverObserver:
        return self

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.AUDIOLEVELOBSERVER_VOLUMES:
            producers = self._router._producers
            volumes = [
                AudioLevelObserverVolume(producer, entry.volume)
                for entry in body.read(fbs.VolumesNotification).volumes
                if (producer := producers.get(ProducerId(entry.producer_id))) is not None
            ]
            if volumes:  # else all of them have closed meanwhile
                self.on_volumes.emit(volumes)
        elif event == WorkerEvent.AUDIOLEVELOBSERVER_SILENCE:
            self.on_silence.emit(None)
