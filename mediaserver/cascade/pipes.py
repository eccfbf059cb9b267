"""Making and connecting pipe transports, and telling a full port range from other failures."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field

from mediaserver.cascade.errors import LinkError, LinkReason
from mediaserver.cascade.far import FarEnd
from mediaserver.cascade.liveness import Liveness
from mediaserver.cascade.messages import (
    ERROR_NO_PORTS,
    ERROR_NO_SUCH_PIPE,
    ERROR_NOT_READY,
    ERROR_PIPE_PROTOCOL,
    ClosePipe,
    LinkName,
    OpenPipe,
    PipeAddress,
    PipeRef,
)
from mediaserver.mediasoup import MediasoupError, PipeTransport, Router, TransportListenInfo
from mediaserver.wire.errors import RemoteError, WireError

OPEN_SECONDS = 5.0
"""How long the far end may take to make its pipe transport."""


@dataclass
class Pair:
    """This end of one pipe pair."""

    ref: PipeRef
    transport: PipeTransport
    liveness: Liveness = field(default_factory=Liveness)
    standing: bool = False
    talking: bool = False
    """Both ends know that they have this pair, by the present connection."""

    def silent(self, now: float) -> bool:
        """Nothing comes in through it for long."""
        return self.liveness.silent(now, sending=bool(self.transport.consumers))


async def open_pair(
    router: Router,
    listen_info: TransportListenInfo,
    far: FarEnd,
    name: LinkName,
    ref: PipeRef,
    *,
    srtp: bool,
    rtx: bool,
) -> Pair:
    """The initiator's end of a new pair, connected, the far end's being connected too.

    Raises LinkError; this side's transport is closed then, and the far end told to close its own.
    """
    transport = await create_pipe(router, listen_info, srtp=srtp, rtx=rtx)
    try:
        request = OpenPipe(link=name, pipe=ref, address=pipe_address(transport), srtp=srtp, rtx=rtx)
        try:
            answer = await far.open(request, OPEN_SECONDS)
        except RemoteError as error:
            raise LinkError(reason_of(error.code), error.message) from error
        except (WireError, TimeoutError) as error:
            raise LinkError("PeerUnreachable", str(error) or "no answer in time") from error
        await connect_pipe(transport, answer.address)
    except BaseException:
        transport.close()
        far.notice(ClosePipe(link=name, pipe=ref, reason="the attempt failed"))
        raise
    return Pair(ref, transport)


async def accept_pair(router: Router, listen_info: TransportListenInfo, request: OpenPipe) -> Pair:
    """The acceptor's end of the pair asked for, connected. Raises LinkError; nothing is left then."""
    transport = await create_pipe(router, listen_info, srtp=request.srtp, rtx=request.rtx)
    try:
        await connect_pipe(transport, request.address)
    except BaseException:
        transport.close()
        raise
    return Pair(request.pipe, transport)


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


def protocol_problem(far: int, own: int) -> str | None:
    """Why pipes between servers of these pipe protocols can't be; None when they can."""
    if far == own:
        return None
    return (
        f"the other media server speaks pipe protocol {far}, this one {own}: "
        "the session moves as a whole once all its servers run one version"
    )
