"""The cascade's core: which router knows what, and which producer crosses which link. Pure.

Nothing here does I/O, waits, or asks for the time: a change yields effects as frozen data.
"""

from mediaserver.cascade.routes.effects import (
    Attached,
    AttachFailed,
    Effect,
    Flow,
    Leg,
    Mirror,
    ParticipantAppeared,
    ParticipantChanged,
    ParticipantGone,
    ParticipantReplaced,
    Produce,
    ProducerAppeared,
    ProducerChanged,
    ProducerGone,
    Restored,
    Send,
    Serve,
    Unproduce,
    Unserve,
)
from mediaserver.cascade.routes.table import RouteTable

__all__ = [
    "AttachFailed",
    "Attached",
    "Effect",
    "Flow",
    "Leg",
    "Mirror",
    "ParticipantAppeared",
    "ParticipantChanged",
    "ParticipantGone",
    "ParticipantReplaced",
    "Produce",
    "ProducerAppeared",
    "ProducerChanged",
    "ProducerGone",
    "Restored",
    "RouteTable",
    "Send",
    "Serve",
    "Unproduce",
    "Unserve",
]
