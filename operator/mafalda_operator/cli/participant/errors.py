"""What can go wrong with a participant of ours.

ParticipantError
├── AddressError        the URL or the token can't be used; nothing was dialled
├── SourceError         a source can't be published: no such file, no such name, not joined
├── RequestFailed       the server answered a request with an error, or not in time
├── MediaError          aiortc or pymediasoup could not do what was asked
└── CallEnded           the server closed the call for good (4000), or it could not be joined
"""

from __future__ import annotations


class ParticipantError(Exception):
    """Base of all errors of this package."""


class AddressError(ParticipantError):
    """The URL or the token is unusable; the message says what is expected."""


class SourceError(ParticipantError):
    """A source can't be published."""


class RequestFailed(ParticipantError):  # noqa: N818  named for what happened
    """A request to the server failed; `code` is the server's, None when no answer came."""

    def __init__(self, method: str, reason: str, code: int | None = None) -> None:
        super().__init__(f"{method}: {reason}" + (f" ({code})" if code is not None else ""))
        self.method = method
        self.reason = reason
        self.code = code


class MediaError(ParticipantError):
    """The media stack refused or did not answer in time."""


class CallEnded(ParticipantError):  # noqa: N818  named for what happened
    """The call is over and must not be dialled again; `reason` is the server's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
