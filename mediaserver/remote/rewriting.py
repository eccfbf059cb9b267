"""Listen addresses of the application's host, replaced by those of this server.

The worker binds what a listen info says: its range if both ends are set, else its port, else one of the
worker's own range. So each info that leaves here has either a port or a range, inside the policy's, on the
policy's address. An address must be one: the worker takes no host names there, nor do we.

What else an application loses: `udpReusePort`, since with it another application's port, whose worker runs
as the same user, could be shared and its packets taken; `exposeInternalIp` where the address is replaced,
since it would tell the server's; and `announcedAddress` there, since it is that of the application's host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mediaserver.mediasoup._fbs import router, transport, worker
from mediaserver.mediasoup._fbs.web_rtc_transport import ListenIndividual
from mediaserver.mediasoup.flatbuffer import Table
from mediaserver.remote.policy import TenantPolicy

MOST_LISTEN_INFOS: Final = 32
_PIPE_DEFAULTS: Final = frozenset(map(ipaddress.ip_address, ("127.0.0.1", "::1")))

Ports = tuple[int, int]


class UnacceptableError(Exception):
    """A request that the worker does not get. `error` is the class that mediasoup makes of it."""

    def __init__(self, reason: str, *, error: str = "TypeError") -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


def rewrites(policy: TenantPolicy, body: type[Table]) -> bool:
    """Whether requests with such a body are changed."""
    if policy.addresses == "Rewrite":
        return body in _CLIENT_REQUESTS or body is router.CreatePipeTransportRequest
    return policy.addresses == "RewritePipes" and body is router.CreatePipeTransportRequest


def rewrite(policy: TenantPolicy, body: Table) -> None:
    """Puts a request's listen infos right, in place. Raises UnacceptableError."""
    if not rewrites(policy, type(body)):
        return
    if isinstance(body, worker.CreateWebRtcServerRequest):
        body.listen_infos = _client_infos(policy, body.listen_infos or [])
    elif isinstance(body, router.CreateWebRtcTransportRequest):
        listen = body.options.listen
        if isinstance(listen, ListenIndividual):
            listen.listen_infos = _client_infos(policy, listen.listen_infos)
    elif isinstance(body, router.CreatePlainTransportRequest):
        options = body.options
        options.listen_info = _client_info(policy, options.listen_info).info
        if options.rtcp_listen_info is not None:
            options.rtcp_listen_info = _client_info(policy, options.rtcp_listen_info).info
    elif isinstance(body, router.CreatePipeTransportRequest):
        pipe = body.options
        if policy.pipe_srtp == "Auto" and _address(pipe.listen_info.ip) in _PIPE_DEFAULTS:
            pipe.enable_srtp = True
        pipe.listen_info = _pipe_info(policy, pipe.listen_info)


_CLIENT_REQUESTS: Final = frozenset(
    (
        worker.CreateWebRtcServerRequest,
        router.CreateWebRtcTransportRequest,
        router.CreatePlainTransportRequest,
    )
)


@dataclass
class _Rewritten:
    info: transport.ListenInfo
    asked_ip: ipaddress.IPv4Address | ipaddress.IPv6Address
    asked_ports: tuple[int, Ports]
    replaced: bool
    """Whether the address is another one now."""

    @property
    def fixed(self) -> bool:
        return self.asked_ports[0] != 0


def _client_infos(policy: TenantPolicy, infos: Iterable[transport.ListenInfo]) -> list[transport.ListenInfo]:
    """All infos, without those that only another address told apart from an earlier one.

    Two that asked for the same port of the same address are refused, as the worker would have; with other
    ports in their place it might not.
    """
    kept: list[_Rewritten] = []
    first: dict[tuple[int, str, tuple[int, Ports]], int] = {}
    asked: set[tuple[int, object, tuple[int, Ports]]] = set()
    for info in infos:
        new = _client_info(policy, info)
        wish = (new.info.protocol, new.asked_ip, new.asked_ports)
        if wish in asked:
            if new.fixed:
                problem = (
                    f"address already in use: port {new.asked_ports[0]} of {new.asked_ip} is asked twice"
                )
                raise UnacceptableError(problem, error="Error")
            kept.append(new)
            continue
        asked.add(wish)
        key = (new.info.protocol, new.info.ip, new.asked_ports)
        slot = first.setdefault(key, len(kept))
        if slot == len(kept):
            kept.append(new)
        elif kept[slot].replaced and not new.replaced:
            kept[slot] = new
    return [rewritten.info for rewritten in kept]


def _client_info(policy: TenantPolicy, info: transport.ListenInfo) -> _Rewritten:
    ours = ipaddress.ip_address(policy.client_host)
    asked = _address(info.ip)
    # Who asks for all addresses asks for those of its own host, even where this server listens on all.
    replaced = asked != ours or ours.is_unspecified
    port, ports = _ports(info, policy.client_ports)
    return _Rewritten(
        transport.ListenInfo(
            protocol=_protocol(info),
            ip=policy.client_host,
            announced_address=(None if replaced else info.announced_address) or policy.announced_address,
            expose_internal_ip=info.expose_internal_ip and not replaced,
            port=port,
            port_range=ports,
            flags=transport.SocketFlags(ipv6_only=info.flags.ipv6_only and not replaced),
            send_buffer_size=info.send_buffer_size,
            recv_buffer_size=info.recv_buffer_size,
        ),
        asked,
        _asked_ports(info),
        replaced,
    )


def _pipe_info(policy: TenantPolicy, info: transport.ListenInfo) -> transport.ListenInfo:
    _address(info.ip)
    port, ports = _ports(info, policy.pipe_ports)
    return transport.ListenInfo(
        protocol=_protocol(info),
        ip=policy.pipe_host,
        port=port,
        port_range=ports,
        flags=transport.SocketFlags(),
        send_buffer_size=info.send_buffer_size,
        recv_buffer_size=info.recv_buffer_size,
    )


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        shown = text if len(text) <= 64 else text[:64] + "…"
        raise UnacceptableError(f"invalid IP {shown!r}: give an IP address to listen on") from error


def _protocol(info: transport.ListenInfo) -> int:
    if info.protocol not in (transport.Protocol.UDP, transport.Protocol.TCP):
        raise UnacceptableError(f"unsupported listen protocol {info.protocol}: it is 1 (UDP) or 2 (TCP)")
    return info.protocol


def _asked_ports(info: transport.ListenInfo) -> tuple[int, Ports]:
    """What the worker would have gone by: a port, or a range, or neither."""
    low, high = info.port_range.min, info.port_range.max
    return (0, (low, high)) if low and high else (info.port, (0, 0))


def _ports(info: transport.ListenInfo, allowed: Ports) -> tuple[int, transport.PortRange]:
    """The port, or the range, to listen on."""
    port, (low, high) = _asked_ports(info)
    first, last = allowed
    if low > high:
        raise UnacceptableError(f"the port range {low}-{high} ends before it begins")
    if low and first <= low and high <= last:
        return 0, transport.PortRange(min=low, max=high)
    if first <= port <= last:
        return port, transport.PortRange()
    return 0, transport.PortRange(min=first, max=last)
