"""Everything mediasoup for Python raises.

    MediasoupError
    ├── InvalidArgumentError      what the caller gave can't be right (also a ValueError)
    ├── UnsupportedError          valid, but neither mediasoup nor the other side can do it
    ├── NotFoundError             no such producer, router or other object (also a LookupError)
    ├── InvalidStateError         right call, wrong moment
    │   └── ClosedError           the object, or a parent of it, was closed; `.reason` says which
    ├── RequestError              one request to the worker failed
    │   ├── RequestRejectedError  the worker refused it; `.error` and `.reason` are the worker's words
    │   └── RequestTimeoutError   no answer within the deadline
    ├── ChannelError              the connection to the worker process
    │   ├── ChannelClosedError    it is closed, so nothing can be asked any more
    │   │   └── MalformedMessageError   closed because the worker sent something unreadable
    │   └── ChannelOverflowError  the worker has stopped reading; the request was not sent
    └── WorkerError               the worker process
        ├── WorkerStartError      it could not be started; the message says what to do
        └── WorkerDiedError       it ended without having been told to

Lower errors (OSError, struct.error, msgspec.ValidationError…) are translated into these once, at the
boundary, and kept as `__cause__`. Nothing here has to be told apart by its text.
"""

from __future__ import annotations

import enum
import signal as signals


class CloseReason(enum.Enum):
    """Why an object closed: who began it, seen from the object."""

    CLOSED = "closed"
    """`close()` was called on the object itself."""
    TRANSPORT_CLOSED = "transport closed"
    ROUTER_CLOSED = "router closed"
    WORKER_CLOSED = "worker closed"
    WORKER_DIED = "worker died"
    WEBRTC_SERVER_CLOSED = "WebRTC server closed"
    PRODUCER_CLOSED = "producer closed"
    """A consumer's producer closed (or the transport it was on)."""


class MediasoupError(Exception):
    """Base of all errors of this package."""


class InvalidArgumentError(MediasoupError, ValueError):
    """What the caller gave can't be right; the message names the field."""


class UnsupportedError(MediasoupError):
    """The arguments are well formed but ask for what mediasoup, or the given capabilities, lack."""


class NotFoundError(MediasoupError, LookupError):
    """The named object does not exist (any more) where it was looked for."""


class InvalidStateError(MediasoupError):
    """The object can't do this at the moment."""


class ClosedError(InvalidStateError):
    """The object was closed before or while the call was made."""

    def __init__(self, what: str, reason: CloseReason) -> None:
        super().__init__(f"{what} is closed ({reason.value})")
        self.what = what
        self.reason = reason


class RequestError(MediasoupError):
    """A request to the worker failed; `method` is the worker's name for it, such as ROUTER_DUMP."""

    def __init__(self, message: str, *, method: str, handler_id: str) -> None:
        super().__init__(message)
        self.method = method
        self.handler_id = handler_id


class RequestRejectedError(RequestError):
    """The worker answered with an error."""

    def __init__(self, *, method: str, handler_id: str, error: str, reason: str) -> None:
        about = f" on {handler_id}" if handler_id else ""
        super().__init__(
            f"worker rejected {method}{about}: {reason} ({error})", method=method, handler_id=handler_id
        )
        self.error = error
        self.reason = reason


class RequestTimeoutError(RequestError, TimeoutError):
    """The worker did not answer within the deadline. Whether it acted is unknown."""

    def __init__(self, *, method: str, handler_id: str, seconds: float) -> None:
        about = f" on {handler_id}" if handler_id else ""
        super().__init__(
            f"no answer to {method}{about} within {seconds:g} s", method=method, handler_id=handler_id
        )
        self.seconds = seconds


class ChannelError(MediasoupError):
    """The connection to the worker process."""


class ChannelClosedError(ChannelError):
    """The channel is closed."""


class MalformedMessageError(ChannelClosedError):
    """The worker sent a message that can't be read; the channel was closed because of it.

    `index` counts the worker's messages from 1; `problem` says what is wrong with that one.
    """

    def __init__(self, *, index: int, problem: str) -> None:
        super().__init__(f"message {index} of the worker is malformed: {problem}")
        self.index = index
        self.problem = problem


class ChannelOverflowError(ChannelError):
    """More bytes wait for the worker than it may fall behind by."""


class WorkerError(MediasoupError):
    """The worker process."""


class WorkerStartError(WorkerError):
    """The worker process could not be started."""


class WorkerDiedError(WorkerError):
    """The worker process ended by itself, or was killed by somebody else.

    Exactly one of `exit_code` and `signal` is set, or neither when the channel broke while the process
    lived on (it is then killed).
    """

    def __init__(self, *, pid: int, exit_code: int | None, signal: int | None, detail: str = "") -> None:
        if signal is not None:
            how = f"killed by {_signal_name(signal)}"
        elif exit_code is not None:
            how = f"exit code {exit_code}"
        else:
            how = "channel broken"
        super().__init__(f"worker {pid} died: {how}" + (f"; {detail}" if detail else ""))
        self.pid = pid
        self.exit_code = exit_code
        self.signal = signal
        self.detail = detail


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
