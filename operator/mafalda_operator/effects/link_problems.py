"""Why a media server is not connected, as its ``Connected`` condition tells it.

The messages name the address and the remedy, and hold nothing that changes with each attempt, so that an
unreachable server costs one status write.
"""

from __future__ import annotations

import errno

import aiohttp

from mafalda_operator.model import ConnectionProblem
from mediaserver.control.contract import (
    CONTROL_PROTOCOL,
    ERROR_BAD_PROOF,
    ERROR_OTHER_CLUSTER,
    ERROR_STALE_EPOCH,
    ERROR_VERSION_SKEW,
)
from mediaserver.wire.errors import (
    ConnectionLost,
    DeadlineExceeded,
    HandshakeFailed,
    MembershipError,
    NoCertificateError,
    ProtocolError,
    RemoteError,
    WireError,
)


class VersionSkewError(WireError):
    """The server greeted in a control protocol that this operator does not speak."""

    def __init__(self, theirs: int) -> None:
        super().__init__(f"the server speaks control protocol {theirs}, this operator {CONTROL_PROTOCOL}")


class SilentReportError(WireError):
    """The server greeted, but its first report did not come in time."""


_REFUSALS = {
    ERROR_VERSION_SKEW: (
        "VersionSkew",
        f"does not speak control protocol {CONTROL_PROTOCOL}: run the same release on operator and server",
    ),
    ERROR_STALE_EPOCH: (
        "StaleEpoch",
        "obeys a leader with a higher epoch: the operator raises its own and dials again",
    ),
}


def problem_of(error: WireError, address: str) -> ConnectionProblem:
    """Classify the end of a dial, a greeting or a connection."""
    if isinstance(error, RemoteError):
        return _refused(error, address)
    if isinstance(error, VersionSkewError):
        return ConnectionProblem("VersionSkew", f"{address}: {error}: run the same release on both")
    if isinstance(error, NoCertificateError):
        return ConnectionProblem("NoCertificate", f"{address} is not dialled: {error}")
    if isinstance(error, MembershipError):
        return ConnectionProblem(
            "BadProof",
            f"{address} does not prove that it belongs to this MediaCluster:"
            f" check spec.endpoint.address, and give both the same --cluster-key-file, or both a --tls-dir",
        )
    if isinstance(error, HandshakeFailed):
        return ConnectionProblem("TLSFailed", f"{address}: {error.problem}")
    if isinstance(error, ProtocolError):
        return ConnectionProblem("Garbage", _not_a_server(address))
    if isinstance(error, DeadlineExceeded | SilentReportError):
        return ConnectionProblem(
            "Timeout",
            f"{address} accepts connections but does not answer: is it a media server's --internal-listen,"
            " and is that process running (not stopped, not overloaded)?",
        )
    return _lost(error, address)


def _refused(error: RemoteError, address: str) -> ConnectionProblem:
    if error.code == ERROR_BAD_PROOF:
        return ConnectionProblem("BadProof", f"{address} refuses this operator: {error.message}")
    if error.code == ERROR_OTHER_CLUSTER:
        return ConnectionProblem("OtherCluster", f"{address}: {error.message}")
    reason, message = _REFUSALS.get(error.code, ("Rejected", f"answers with an error: {error.message}"))
    return ConnectionProblem(reason, f"{address} {message}")


def _lost(error: WireError, address: str) -> ConnectionProblem:
    cause = error.__cause__
    if isinstance(cause, TimeoutError):
        return ConnectionProblem(
            "Timeout",
            f"{address} does not answer in time: is the host up, the media server running, and the port open"
            " between operator and server?",
        )
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return ConnectionProblem(
            "Unresolved", f"{address}: the name cannot be resolved: correct spec.endpoint"
        )
    if isinstance(cause, aiohttp.ClientConnectorError):
        return _unreachable(cause.os_error, address)
    if isinstance(cause, aiohttp.ClientResponseError | aiohttp.InvalidURL | aiohttp.ServerDisconnectedError):
        return ConnectionProblem("Garbage", _not_a_server(address))
    if isinstance(error, ConnectionLost):
        return ConnectionProblem("Lost", f"the connection to {address} broke; it is dialled again")
    return ConnectionProblem("Garbage", _not_a_server(address))


def _unreachable(cause: OSError, address: str) -> ConnectionProblem:
    if cause.errno == errno.ECONNREFUSED:
        return ConnectionProblem(
            "Refused",
            f"{address} refuses connections: is the media server running, and is spec.endpoint.address its"
            " --internal-listen?",
        )
    return ConnectionProblem(
        "Unreachable",
        f"{address} cannot be reached ({cause.strerror or cause}): check the network and address",
    )


def _not_a_server(address: str) -> str:
    return (
        f"{address} does not speak the control protocol: is spec.endpoint.address a media server's"
        " --internal-listen, and do both sides have a --tls-dir, or both a --cluster-key-file?"
    )
