"""What applications and workers say, for the tests of the tap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mediaserver.mediasoup import messages
from mediaserver.mediasoup._fbs import (
    direct_transport,
    log,
    pipe_transport,
    plain_transport,
    request,
    response,
    router,
    rtp_parameters,
    transport,
    web_rtc_transport,
    worker,
)
from mediaserver.mediasoup._fbs import (
    message as message_fbs,
)
from mediaserver.mediasoup.flatbuffer import U32, Table, follow
from mediaserver.mediasoup.messages import Event, Method
from mediaserver.remote.envelope import encode
from mediaserver.remote.policy import TenantPolicy
from mediaserver.remote.tap import ChannelTap

NODE_REQUESTS: Final = Path(__file__).with_name("node_requests.bin").read_bytes()
"""As the Node library writes them: one of each method that a short call needs."""
WORKER_PID: Final = 4711
APPLICATION_PID: Final = 815
POLICY: Final = TenantPolicy(
    addresses="Rewrite",
    client_host="10.1.0.5",
    announced_address="203.0.113.5",
    client_ports=(41_000, 41_999),
    pipe_host="10.2.0.5",
    pipe_ports=(42_000, 42_099),
    pipe_srtp="Auto",
)
KEEP: Final = TenantPolicy(
    addresses="Keep",
    client_host="10.1.0.5",
    announced_address=None,
    client_ports=(41_000, 41_999),
    pipe_host="10.2.0.5",
    pipe_ports=(42_000, 42_099),
    pipe_srtp="Auto",
)


class OpenGate:
    """Admits everything until told otherwise."""

    def __init__(self) -> None:
        self.consume: str | None = None
        self.produce: str | None = None

    def may_consume(self) -> str | None:
        return self.consume

    def may_produce(self) -> str | None:
        return self.produce


def new_tap(
    policy: TenantPolicy = POLICY, gate: OpenGate | None = None, *, running: bool = True
) -> ChannelTap:
    tap = ChannelTap(policy, application_pid=APPLICATION_PID, worker_pid=WORKER_PID, gate=gate or OpenGate())
    if running:
        tap.to_application(running_notification())
    return tap


def split(data: bytes) -> Iterator[bytes]:
    """The messages of a stream, which it must consist of."""
    position = 0
    while position < len(data):
        stop = position + 4 + U32.unpack_from(data, position)[0]
        assert stop <= len(data)
        yield data[position:stop]
        position = stop


def read_request(message: bytes) -> request.Request:
    """A request as the worker reads it."""
    root = message_fbs.Message.read(message[4:], follow(message[4:], 0))
    assert isinstance(root.data, request.Request)
    return root.data


def read_answer(message: bytes) -> messages.Response:
    answer = messages.decode(message[4:])
    assert isinstance(answer, messages.Response)
    return answer


def running_notification(pid: int = WORKER_PID) -> bytes:
    return messages.encode_notification(Event.WORKER_RUNNING, str(pid), None)


def log_line(text: str) -> bytes:
    return encode(log.Log(data=text))


def accept(number: int, body: Table | None = None) -> bytes:
    return encode(response.Response(id=number, accepted=True, body=body))


def refuse(number: int) -> bytes:
    return encode(response.Response(id=number, error="Error", reason="no such thing"))


def dump(pid: int = WORKER_PID) -> worker.DumpResponse:
    handlers = worker.ChannelMessageHandlers(
        channel_request_handlers=["a"], channel_notification_handlers=["a", "b"]
    )
    return worker.DumpResponse(
        pid=pid, web_rtc_server_ids=[], router_ids=["a"], channel_message_handlers=handlers
    )


def stats(kind: type[Table], recv: int, send: int) -> Table:
    base = transport.Stats(transport_id="t", recv_bitrate=recv, send_bitrate=send)
    local = transport.Tuple(local_address="10.1.0.5", local_port=41_000)
    if kind is web_rtc_transport.GetStatsResponse:
        return web_rtc_transport.GetStatsResponse(base=base)
    if kind is plain_transport.GetStatsResponse:
        return plain_transport.GetStatsResponse(base=base, tuple=local)
    return pipe_transport.GetStatsResponse(base=base, tuple=local)


def info(
    ip: str = "127.0.0.1",
    *,
    protocol: int = 1,
    announced: str | None = None,
    expose: bool = False,
    port: int = 0,
    ports: tuple[int, int] = (0, 0),
    reuse: bool = False,
    only6: bool = False,
    send: int = 0,
    recv: int = 0,
) -> transport.ListenInfo:
    return transport.ListenInfo(
        protocol=protocol,
        ip=ip,
        announced_address=announced,
        expose_internal_ip=expose,
        port=port,
        port_range=transport.PortRange(min=ports[0], max=ports[1]),
        flags=transport.SocketFlags(ipv6_only=only6, udp_reuse_port=reuse),
        send_buffer_size=send,
        recv_buffer_size=recv,
    )


def webrtc(ident: str, *infos: transport.ListenInfo) -> router.CreateWebRtcTransportRequest:
    listen = web_rtc_transport.ListenIndividual(listen_infos=list(infos or (info(),)))
    options = web_rtc_transport.WebRtcTransportOptions(
        base=transport.Options(initial_available_outgoing_bitrate=600_000), listen=listen
    )
    return router.CreateWebRtcTransportRequest(transport_id=ident, options=options)


def webrtc_with_server(ident: str, server: str) -> router.CreateWebRtcTransportRequest:
    listen = web_rtc_transport.ListenServer(web_rtc_server_id=server)
    options = web_rtc_transport.WebRtcTransportOptions(base=transport.Options(), listen=listen)
    return router.CreateWebRtcTransportRequest(transport_id=ident, options=options)


def webrtc_server(ident: str, *infos: transport.ListenInfo) -> worker.CreateWebRtcServerRequest:
    return worker.CreateWebRtcServerRequest(web_rtc_server_id=ident, listen_infos=list(infos))


def plain(
    ident: str, rtp: transport.ListenInfo | None = None, rtcp: transport.ListenInfo | None = None
) -> router.CreatePlainTransportRequest:
    options = plain_transport.PlainTransportOptions(
        base=transport.Options(), listen_info=rtp or info(), rtcp_listen_info=rtcp, rtcp_mux=rtcp is None
    )
    return router.CreatePlainTransportRequest(transport_id=ident, options=options)


def pipe(
    ident: str, listen: transport.ListenInfo | None = None, *, srtp: bool = False
) -> router.CreatePipeTransportRequest:
    options = pipe_transport.PipeTransportOptions(
        base=transport.Options(), listen_info=listen or info(), enable_srtp=srtp
    )
    return router.CreatePipeTransportRequest(transport_id=ident, options=options)


def direct(ident: str) -> router.CreateDirectTransportRequest:
    options = direct_transport.DirectTransportOptions(base=transport.Options(direct=True))
    return router.CreateDirectTransportRequest(transport_id=ident, options=options)


def produce(ident: str) -> transport.ProduceRequest:
    return transport.ProduceRequest(
        producer_id=ident,
        rtp_parameters=_rtp(),
        rtp_mapping=rtp_parameters.RtpMapping(codecs=[], encodings=[]),
    )


def consume(ident: str, producer: str) -> transport.ConsumeRequest:
    return transport.ConsumeRequest(
        consumer_id=ident, producer_id=producer, rtp_parameters=_rtp(), consumable_rtp_encodings=[]
    )


def _rtp() -> rtp_parameters.RtpParameters:
    return rtp_parameters.RtpParameters(
        codecs=[], header_extensions=[], encodings=[], rtcp=rtp_parameters.RtcpParameters()
    )


def ask(number: int, method: Method, handler: str, body: Table | None = None) -> bytes:
    return messages.encode_request(number, method, handler, body)
