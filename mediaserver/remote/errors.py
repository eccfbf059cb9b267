"""Why an application gets no worker.

RemoteMediasoupError
├── Refused          before the upgrade: an HTTP status
└── CannotStart      after it: an exit code for the application's mediasoup
"""

from __future__ import annotations

from mediaserver import shim


class RemoteMediasoupError(Exception):
    """Base; the message is one line that the application's developer reads."""


class Refused(RemoteMediasoupError):  # noqa: N818  named for what happens to the application
    """`final`: dialling again is of no use."""

    def __init__(self, status: int, message: str, *, final: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.final = final


class CannotStart(RemoteMediasoupError):  # noqa: N818  as above
    """`exit_code` as the worker itself would have ended with."""

    def __init__(self, message: str, *, exit_code: int = shim.EXIT_UNAVAILABLE) -> None:
        super().__init__(message)
        self.exit_code = exit_code
