"""What can go wrong in the cascade.

    CascadeError
    ├── RouterUnavailableError   the router's worker slot is empty or does not exist
    ├── RouterClosedError        the router is closed
    ├── NotIdentifiedError       no operator has told this server yet who it is
    ├── UnknownProducerError     no producer of that id in the session (also a LookupError)
    ├── AttachError              a producer could not be brought to this router
    │   └── AttachTimeoutError   not in time (also a TimeoutError)
    └── LinkError                a pipe pair could not be opened; `.reason` is a LinkState's reason

Errors of mediasoup and of the wire are translated to these where they arise, and kept as `__cause__`.
"""

from __future__ import annotations

from typing import Literal

LinkReason = Literal["Opening", "PeerUnreachable", "PipeProtocol", "NoPorts", "MediaStalled", "Failed"]


class CascadeError(Exception):
    """Base of all errors of this package."""


class RouterUnavailableError(CascadeError):
    """The router can't be opened now; `.reason` is a word for its state."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RouterClosedError(CascadeError):
    """The router was closed before or during the call."""


class NotIdentifiedError(CascadeError):
    """Links to other servers need this server's name and MediaCluster, which the operator's hello brings."""


class UnknownProducerError(CascadeError, LookupError):
    """The session has no such producer (any more)."""


class AttachError(CascadeError):
    """Bringing a producer to this router failed."""


class AttachTimeoutError(AttachError, TimeoutError):
    """The path to the producer's origin did not stand in time."""


class LinkError(CascadeError):
    """A pipe pair could not be opened, or was lost."""

    def __init__(self, reason: LinkReason, message: str) -> None:
        super().__init__(message)
        self.reason: LinkReason = reason
