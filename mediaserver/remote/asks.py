"""What the requests that a tap watches ask for.

They are read within the bounds of their message; one that the worker might read otherwise is malformed.
Long or crowded ones are refused unread, since a few bytes can point to the same table a million times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from mediaserver.mediasoup import flatbuffer
from mediaserver.mediasoup._fbs import request, router, transport, web_rtc_transport, worker
from mediaserver.mediasoup.flatbuffer import U32, Table
from mediaserver.mediasoup.messages import Method
from mediaserver.remote.envelope import Layout, fields
from mediaserver.remote.ledger import Change, Closing, Kind, Opening
from mediaserver.remote.rewriting import MOST_LISTEN_INFOS, UnacceptableError

LONGEST_CREATION: Final = 65_536
"""Bytes of a request for a WebRtcServer or a transport."""
LONGEST_ID: Final = 256


class Ask(NamedTuple):
    """A watched request. `body` is there if it may have listen infos."""

    handler_id: str
    change: Change
    body: Table | None = None


class _Request(NamedTuple):
    """A request, its body at `pos` not yet read."""

    data: bytes
    method: Method
    handler_id: str
    pos: int

    def ident(self, index: int) -> str:
        """An id, which is a required field of the body."""
        return _id(flatbuffer.read_string(self.data, self.pos + self._at(index)))

    def child(self, index: int) -> int:
        """Where the table is that a required field of the body refers to."""
        return flatbuffer.follow(self.data, self.pos + self._at(index))

    def _at(self, index: int) -> int:
        return fields(self.data, self.pos, index + 1)[index] or flatbuffer.missing(f"{index} of the body")


def watched(method: int) -> bool:
    """Whether `read` knows requests of this method."""
    return method in _READERS


def read(data: bytes, layout: Layout, method: int) -> Ask:
    """What a request of a watched method asks for.

    Raises UnacceptableError, or one of READ_ERRORS when it is malformed.
    """
    kind, reader = _READERS[Method(method)]
    _, _, handler, body_kind, body = layout.at
    if not handler or not body or not body_kind or data[body_kind] != request.Body_TYPES[kind]:
        raise ValueError("it lacks its body")
    handler_id = _id(flatbuffer.read_string(data, handler))
    return reader(_Request(data, Method(method), handler_id, flatbuffer.follow(data, body)))


def _id(text: str) -> str:
    if len(text) > LONGEST_ID:
        raise UnacceptableError(f"an id of {len(text)} characters: at most {LONGEST_ID} are taken")
    return text


def _webrtc_server(asked: _Request) -> Ask:
    _check_crowd(asked, asked.pos, 1)
    body = worker.CreateWebRtcServerRequest.read(asked.data, asked.pos)
    return Ask(asked.handler_id, Opening(kind=Kind.WEBRTC_SERVER, id=_id(body.web_rtc_server_id)), body)


def _webrtc_transport(asked: _Request) -> Ask:
    options = asked.child(1)
    kind, at = fields(asked.data, options, 3)[1:]
    with_server = asked.method is Method.ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER
    wanted = web_rtc_transport.ListenServer if with_server else web_rtc_transport.ListenIndividual
    if not kind or not at or asked.data[options + kind] != web_rtc_transport.Listen_TYPES[wanted]:
        raise ValueError(f"it lacks its {wanted.__name__}")
    if not with_server:
        _check_crowd(asked, flatbuffer.follow(asked.data, options + at), 0)
    body = router.CreateWebRtcTransportRequest.read(asked.data, asked.pos)
    listen = body.options.listen
    owners = [asked.handler_id]
    if isinstance(listen, web_rtc_transport.ListenServer):
        owners.append(_id(listen.web_rtc_server_id))
    opening = Opening(kind=Kind.TRANSPORT, id=_id(body.transport_id), owners=tuple(owners))
    return Ask(asked.handler_id, opening, body)


def _socket_transport(
    table: type[router.CreatePlainTransportRequest] | type[router.CreatePipeTransportRequest], kind: Kind
) -> Callable[[_Request], Ask]:
    def read_one(asked: _Request) -> Ask:
        _check_length(asked)
        body = table.read(asked.data, asked.pos)
        opening = Opening(kind=kind, id=_id(body.transport_id), owners=(asked.handler_id,))
        return Ask(asked.handler_id, opening, body)

    return read_one


def _check_length(asked: _Request) -> None:
    if len(asked.data) > LONGEST_CREATION:
        size = len(asked.data)
        raise UnacceptableError(f"{asked.method.name} has {size} bytes: at most {LONGEST_CREATION} are taken")


def _check_crowd(asked: _Request, pos: int, index: int) -> None:
    """Of the listen infos, a vector in a field of the table at `pos`."""
    _check_length(asked)
    at = fields(asked.data, pos, index + 1)[index]
    count = U32.unpack_from(asked.data, flatbuffer.follow(asked.data, pos + at))[0] if at else 0
    if count > MOST_LISTEN_INFOS:
        raise UnacceptableError(f"{count} listen infos: at most {MOST_LISTEN_INFOS} are taken")


def _opening(kind: Kind, *, owned: bool = True, other: int | None = None) -> Callable[[_Request], Ask]:
    """What is made has its id in the body's first field, the other owner's in the field `other`."""

    def read_one(asked: _Request) -> Ask:
        owners: tuple[str, ...] = (asked.handler_id,) if owned else ()
        if other is not None:
            owners += (asked.ident(other),)
        return Ask(asked.handler_id, Opening(kind=kind, id=asked.ident(0), owners=owners))

    return read_one


def _closing(asked: _Request) -> Ask:
    return Ask(asked.handler_id, Closing(id=asked.ident(0)))


_READERS: Final[Mapping[int, tuple[type[Table], Callable[[_Request], Ask]]]] = {
    Method.WORKER_CREATE_WEBRTCSERVER: (worker.CreateWebRtcServerRequest, _webrtc_server),
    Method.WORKER_CREATE_ROUTER: (worker.CreateRouterRequest, _opening(Kind.ROUTER, owned=False)),
    Method.WORKER_WEBRTCSERVER_CLOSE: (worker.CloseWebRtcServerRequest, _closing),
    Method.WORKER_CLOSE_ROUTER: (worker.CloseRouterRequest, _closing),
    Method.ROUTER_CREATE_WEBRTCTRANSPORT: (router.CreateWebRtcTransportRequest, _webrtc_transport),
    Method.ROUTER_CREATE_WEBRTCTRANSPORT_WITH_SERVER: (
        router.CreateWebRtcTransportRequest,
        _webrtc_transport,
    ),
    Method.ROUTER_CREATE_PLAINTRANSPORT: (
        router.CreatePlainTransportRequest,
        _socket_transport(router.CreatePlainTransportRequest, Kind.TRANSPORT),
    ),
    Method.ROUTER_CREATE_PIPETRANSPORT: (
        router.CreatePipeTransportRequest,
        _socket_transport(router.CreatePipeTransportRequest, Kind.PIPE_TRANSPORT),
    ),
    Method.ROUTER_CREATE_DIRECTTRANSPORT: (
        router.CreateDirectTransportRequest,
        _opening(Kind.DIRECT_TRANSPORT),
    ),
    Method.ROUTER_CLOSE_TRANSPORT: (router.CloseTransportRequest, _closing),
    Method.TRANSPORT_PRODUCE: (transport.ProduceRequest, _opening(Kind.PRODUCER)),
    Method.TRANSPORT_CONSUME: (transport.ConsumeRequest, _opening(Kind.CONSUMER, other=1)),
    Method.TRANSPORT_CLOSE_PRODUCER: (transport.CloseProducerRequest, _closing),
    Method.TRANSPORT_CLOSE_CONSUMER: (transport.CloseConsumerRequest, _closing),
}
