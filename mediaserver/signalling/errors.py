"""What can go wrong with a participant's message.

    SignallingError
    ├── FrameError          the message is no protoo frame; the participant is closed
    ├── Refused             a request is answered with an error: a code like HTTP's, and the reason
    ├── Rejected            the participant answered our request with an error
    └── SignallingLost      the participant's socket is closed, or it did not answer in time

Errors of mediasoup and of the cascade become Refused where the request is answered (participant.py).
"""

from __future__ import annotations


class SignallingError(Exception):
    """Base of all errors of this package."""


class FrameError(SignallingError):
    """The message can't be read as a protoo frame; the text says what is wrong with it."""


class Refused(SignallingError):  # noqa: N818  named for what the participant is told
    """A request that is answered with an error."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Rejected(SignallingError):  # noqa: N818
    """The participant refused a request of ours."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason


class SignallingLost(SignallingError):  # noqa: N818
    """The participant can't be asked (any more)."""


BAD_REQUEST = 400
FORBIDDEN = 403
NOT_FOUND = 404
OUT_OF_ORDER = 409
TOO_MANY = 429
INTERNAL = 500
UNKNOWN_METHOD = 501
UNAVAILABLE = 503
