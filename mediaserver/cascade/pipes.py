"""Making and connecting pipe transports, and telling a full port range from other failures."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field

from mediaserver.cascade.errors import LinkError, LinkReason
from mediaserver.cascade.liveness import Liveness
from mediaserver.cascade.messages import (
    ERROR_NO_PORTS,
    ERROR_NO_SUCH_PIPE,
    ERROR_NOT_READY,
    ERROR_PIPE_PROTOCOL,
    PipeAddress,
    PipeRef,
)
from mediaserver.mediasoup import MediasoupError, PipeTransport, Router, TransportListenInfo


@dataclass
class Pair:
    """This end of one pipe pair."""

    ref: PipeRef
    transport: PipeTransport
    liveness: Liveness = field(default_factory=Liveness)
    standing: bool = False
    talking: bool = False
    """Both ends know that they have this pair, by the present connection."""


async def create_pipe(
    router: Router, listen_info: TransportListenInfo, *, srtp: bool, rtx: bool
) -> PipeTransport:
    """A pipe transport of ``router``. Raises LinkError, with NoPorts when the whole range is taken."""
    try:
        return await router.create_pipe_transport(listen_info=listen_info, enable_srtp=srtp, enable_rtx=rtx)
    except MediasoupError as error:
        ports = listen_info.port_range
        if ports is not None and not router.closed and not any_free(listen_info.ip, ports.min, ports.max):
            raise LinkError(
                "NoPorts",
                f"all pipe ports {ports.min}-{ports.max} of {listen_info.ip} are in use: "
                "give the media server a larger --pipe-ports range, or fewer links",
            ) from error
        raise LinkError("Failed", f"no pipe transport could be made: {error}") from error


def any_free(host: str, first: int, last: int) -> bool:
    """Whether some UDP port of ``first`` to ``last`` can be bound on ``host``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, last + 1):
        with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return True
    return False


def pipe_address(transport: PipeTransport) -> PipeAddress:
    """Where the other end sends to, and the key that it decrypts with."""
    flow = transport.tuple
    return PipeAddress(ip=flow.local_address, port=flow.local_port, srtp_parameters=transport.srtp_parameters)


async def connect_pipe(transport: PipeTransport, address: PipeAddress) -> None:
    """Connect to the other end's address. Raises LinkError."""
    try:
        await transport.connect(ip=address.ip, port=address.port, srtp_parameters=address.srtp_parameters)
    except MediasoupError as error:
        raise LinkError("Failed", f"the pipe transport can't be connected: {error}") from error


def reason_of(code: int) -> LinkReason:
    """What the far end's refusal means for the link."""
    reasons: dict[int, LinkReason] = {
        ERROR_NOT_READY: "Opening",
        ERROR_NO_SUCH_PIPE: "Opening",
        ERROR_NO_PORTS: "NoPorts",
        ERROR_PIPE_PROTOCOL: "PipeProtocol",
    }
    return reasons.get(code, "Failed")
