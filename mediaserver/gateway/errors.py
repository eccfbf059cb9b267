"""What can go wrong in the gateway.

GatewayError
├── ApiError         the Kubernetes API does not give what is asked; ``status`` is its HTTP status, if any
├── KeysUnavailable  token keys cannot be read, and none are known from before
├── Turned           a participant is turned away, with a close code and a reason
└── UpstreamError    a media server does not take the participant
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


class UpstreamError(GatewayError):
    """The router's media server cannot be dialled; another router may be tried."""
