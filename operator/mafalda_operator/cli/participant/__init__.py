"""A participant of ours: joins a session with real media, counts what it decodes, comes back after faults.

Needs the `client` extra (aiortc, pymediasoup). Used by `mafalda join` and `mafalda demo`.
"""

from mafalda_operator.cli.participant.client import Event, Joined, Left, Participant
from mafalda_operator.cli.participant.errors import (
    AddressError,
    CallEnded,
    MediaError,
    ParticipantError,
    RequestFailed,
    SourceError,
)
from mafalda_operator.cli.participant.received import Received
from mafalda_operator.cli.participant.sources import Source, VideoFormat, from_file, parse, synthetic

__all__ = [
    "AddressError",
    "CallEnded",
    "Event",
    "Joined",
    "Left",
    "MediaError",
    "Participant",
    "ParticipantError",
    "Received",
    "RequestFailed",
    "Source",
    "SourceError",
    "VideoFormat",
    "from_file",
    "parse",
    "synthetic",
]
