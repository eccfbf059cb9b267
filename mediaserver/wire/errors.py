"""What can go wrong between two processes of one MediaCluster.

    WireError
    ├── ConnectionLost      the other side is gone or cannot be reached
    │   ├── PeerSilent      its connection is there, but nothing is heard
    │   └── HandshakeFailed it is there, but TLS does not come about, or not as it wants it
    ├── DeadlineExceeded    it is there but did not answer in time
    ├── ProtocolError       it says what this side cannot read
    ├── RemoteError         it answered with an error
    ├── MembershipError     it does not prove that it belongs here, or a credential cannot be used
    │   └── NoCertificateError  this side has no certificate yet
    ├── TokenError          a token is refused
    ├── ListenError         an address cannot be listened on
    └── ResyncNeededError   a delta does not fit what is held

Errors of aiohttp, the operating system, msgspec and PyJWT are translated to these where they arise.
"""

from __future__ import annotations

from typing import Any


class WireError(Exception):
    """Base of all errors of this package."""


class ConnectionLost(WireError):  # noqa: N818  named for what happened, as asyncio's and trio's are
    """The connection ended, or never came to be, not by this side's wish.

    ``code`` is the WebSocket close code that the other side gave, if it gave one.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class PeerSilent(ConnectionLost):
    """Nothing was heard for too long, not even a heartbeat; the connection was given up."""


class HandshakeFailed(ConnectionLost):
    """The two sides do not agree on TLS, or one does not accept the other's certificate.

    ``problem`` says what to do and does not change from dial to dial.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name}: {problem}")
        self.problem = problem


class DeadlineExceeded(WireError):  # noqa: N818  as above
    """No answer to ``method`` came within ``seconds``; whether it was carried out is unknown."""

    def __init__(self, method: str, seconds: float) -> None:
        super().__init__(f"no answer to {method} within {seconds:g} s")
        self.method = method
        self.seconds = seconds


class ProtocolError(WireError):
    """A message that cannot be read, is too large or has no place here."""


class RemoteError(WireError):
    """The error that the other side answered a request with; ``code`` as in JSON-RPC 2.0."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message
        self.data = data


class MembershipError(WireError):
    """The other side's proof or certificate is wrong, or this side's key or certificate cannot be used."""


class NoCertificateError(MembershipError):
    """This side has no certificate (yet), so it can neither dial nor listen."""


class TokenError(WireError):
    """A token is refused; ``reason`` is one word that a close frame may carry.

    One of malformed, unknownKey, forged, wrongAudience, wrongIssuer, notYetValid, expired; for participants
    also wrongSession, wrongPeer, for applications' workers revoked.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class ListenError(WireError):
    """An address is malformed, in use or not this machine's."""


class ResyncNeededError(WireError):
    """A delta does not fit what the receiver holds; the sender must send its whole map."""
