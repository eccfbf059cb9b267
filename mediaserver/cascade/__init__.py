"""The cascade: one session over the routers of many media servers."""

from mediaserver.cascade.errors import (
    AttachError,
    AttachTimeoutError,
    CascadeError,
    LinkError,
    NotIdentifiedError,
    RouterClosedError,
    RouterUnavailableError,
    UnknownProducerError,
)
from mediaserver.cascade.greeting import Identity
from mediaserver.cascade.host import CascadeHost
from mediaserver.cascade.hosted import HostedRouter
from mediaserver.cascade.messages import ParticipantInfo, ProducerInfo

__all__ = [
    "AttachError",
    "AttachTimeoutError",
    "CascadeError",
    "CascadeHost",
    "HostedRouter",
    "Identity",
    "LinkError",
    "NotIdentifiedError",
    "ParticipantInfo",
    "ProducerInfo",
    "RouterClosedError",
    "RouterUnavailableError",
    "UnknownProducerError",
]
