"""ActiveSpeakerObserver: who is speaking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ._fbs import active_speaker_observer as fbs
from .events import EventSlot
from .messages import Body
from .messages import Event as WorkerEvent
from .producer import Producer
from .rtp_observer import RtpObserver
from .types import ProducerId

if TYPE_CHECKING:
    from .observers import ActiveSpeakerObserverObserver


class ActiveSpeakerObserverDominantSpeaker(msgspec.Struct, frozen=True):
    """The producer that now speaks."""

    producer: Producer


class ActiveSpeakerObserver(RtpObserver):
    """Tells who speaks (https://mediasoup.org/documentation/v3/mediasoup/api/#ActiveSpeakerObserver).

    Made by `Router.create_active_speaker_observer`. Producers must send the header extension
    ssrc-audio-level.
    """

    KIND = "ActiveSpeakerObserver"
    TYPE = "activespeaker"

    on_dominant_speaker = EventSlot[ActiveSpeakerObserverDominantSpeaker]()

    @property
    def observer(self) -> ActiveSpeakerObserverObserver:
        return self

    def _on_notification(self, event: int, body: Body) -> None:
        if event == WorkerEvent.ACTIVESPEAKEROBSERVER_DOMINANT_SPEAKER:
            producer_id = ProducerId(body.read(fbs.DominantSpeakerNotification).producer_id)
            producer = self._router._producers.get(producer_id)
            if producer is not None:  # else it has closed meanwhile
                self.on_dominant_speaker.emit(ActiveSpeakerObserverDominantSpeaker(producer))
