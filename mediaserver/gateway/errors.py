"""What can go wrong in the gateway.

GatewayError
├── ApiError         the Kubernetes API does not give what is asked; ``status`` is its HTTP status, if any
├── KeysUnavailable  token keys cannot be read, and none are known from before
├── Turned           a participant is turned away, with a close code and a reason
├── Refused          an application gets no worker, with an HTTP status and a line of text
└── UpstreamError    a media server does not take the participant, or the application's worker
"""

from __future__ import annotations


class GatewayError(Exception):
    """Base of the gateway's errors."""


class ApiError(GatewayError):
    """``status`` is None when there was no answer at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class KeysUnavailable(GatewayError):  # noqa: N818  named for what is the case
    """Neither the API nor an earlier reading has the keys."""


class Turned(GatewayError):  # noqa: N818  not a fault of this side
    """The participant's WebSocket is closed with ``code`` (mediaserver.wire.close_codes) and ``reason``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Refused(GatewayError):  # noqa: N818  as above
    """The application's dial is answered with ``status`` and ``text``, one line that its developer reads.

    ``reason`` is a word for logs and metrics, which the text is not: it tells what the application sent.
    ``final``: dialling again is of no use.
    """

    def __init__(self, status: int, reason: str, text: str, *, final: bool) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.text = text
        self.final = final


class UpstreamError(GatewayError):
    """The media server cannot be dialled; another one may be tried."""
