"""Messages of the worker's channel: requests out, and the outer part of what comes back.

Source: worker/fbs/{message,request,response,notification,log}.fbs of mediasoup 3.27.1. A message on the
wire is `Message{data}`, prefixed by its size (uint32, little endian). Requests are written from one
`struct.pack`, and of what the worker sends only the header is read here: bodies are read when asked for.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, TypeVar

import msgspec

from . import flatbuffer
from ._fbs import log, message, notification, request, response
from .flatbuffer import READ_ERRORS, Table

MAX_MESSAGE: Final = 8_388_608
"""The worker neither sends nor takes larger messages, size prefix included (ChannelSocket.cpp)."""

Method = request.Method
Event = notification.Event
T = TypeVar("T", bound=Table)

_REQUEST, _RESPONSE, _NOTIFICATION, _LOG = (
    message.Body_TYPES[kind]
    for kind in (request.Request, response.Response, notification.Notification, log.Log)
)

# size, root offset; vtable and table of Message; vtable and table of Request; size of the handler id.
_REQUEST_HEAD: Final = Struct("<II 4H iIB3x 7H2x iIIIBB2x I")
_REQUEST_BODY_SLOT: Final = 56
# the same for Notification, which has no id.
_NOTIFICATION_HEAD: Final = Struct("<II 4H iIB3x 6H iIIBB2x I")
_NOTIFICATION_BODY_SLOT: Final = 48
_pack_number: Final = flatbuffer.U32.pack
_read_number: Final = flatbuffer.U32.unpack_from


# What a request without a body is made of, but for its number and handler id: by method and the id's length.
_TEMPLATES: Final[dict[int, tuple[bytes, bytes, bytes]]] = {}
_NUMBER_SLOT: Final = 48
_HANDLER_SLOT: Final = 68
_LONGEST_TEMPLATE: Final = 64


def encode_request(number: int, method: int, handler_id: str, body: Table | None) -> bytes:
    """A request, ready to be sent."""
    handler = handler_id.encode()
    if body is None and len(handler) <= _LONGEST_TEMPLATE:
        key = method << 8 | len(handler)
        start, middle, end = _TEMPLATES.get(key) or _make_template(key, method, len(handler))
        return b"".join((start, _pack_number(number), middle, handler, end))
    return _encode_request(number, method, handler, body)


def _make_template(key: int, method: int, length: int) -> tuple[bytes, bytes, bytes]:
    whole = _encode_request(0, method, bytes(length), None)
    template = (
        whole[:_NUMBER_SLOT], whole[_NUMBER_SLOT + 4 : _HANDLER_SLOT], whole[_HANDLER_SLOT + length :]
    )  # fmt: skip
    _TEMPLATES[key] = template
    return template


def _encode_request(number: int, method: int, handler: bytes, body: Table | None) -> bytes:
    kind, body_entry = (0, 0) if body is None else (request.Body_TYPES[type(body)], 12)
    # fmt: off
    out = bytearray(_REQUEST_HEAD.pack(
        0, 12,
        8, 12, 8, 4, 8, 24, _REQUEST,
        14, 20, 4, 16, 8, 17, body_entry, 16, number, 12, 0, method, kind, len(handler),
    ))
    # fmt: on
    return _finish(out, handler, _REQUEST_BODY_SLOT, body)


def encode_notification(event: int, handler_id: str, body: Table | None) -> bytes:
    """A notification to the worker, ready to be sent."""
    handler = handler_id.encode()
    kind, body_entry = (0, 0) if body is None else (notification.Body_TYPES[type(body)], 8)
    # fmt: off
    out = bytearray(_NOTIFICATION_HEAD.pack(
        0, 12,
        8, 12, 8, 4, 8, 20, _NOTIFICATION,
        12, 16, 4, 12, 13, body_entry, 12, 12, 0, event, kind, len(handler),
    ))
    # fmt: on
    return _finish(out, handler, _NOTIFICATION_BODY_SLOT, body)


def _finish(out: bytearray, handler: bytes, body_slot: int, body: Table | None) -> bytes:
    out += handler
    out += b"\0"
    if body is not None:
        flatbuffer.link(out, body_slot, body.write(out))
    flatbuffer.align(out, 8)
    flatbuffer.U32.pack_into(out, 0, len(out) - 4)
    return bytes(out)


class Body(msgspec.Struct, gc=False):
    """The body of a response or notification, not yet read."""

    _data: bytes
    _kind: int
    _pos: int
    _types: dict[type[Table], int]

    def __bool__(self) -> bool:
        return self._kind != 0

    def read(self, table: type[T]) -> T:
        """The body as `table`. Raises one of READ_ERRORS when it is another one, absent or malformed."""
        if self._types[table] != self._kind:
            raise ValueError(f"body has type {self._kind} where {table.__name__} is expected")
        return table.read(self._data, self._pos)


NO_BODY: Final = Body(b"", 0, 0, response.Body_TYPES)


class Response(msgspec.Struct, gc=False):
    """An answer of the worker; `error` and `reason` are set when it was not accepted."""

    id: int
    accepted: bool
    body: Body
    error: str
    reason: str


class Notification(msgspec.Struct, gc=False):
    """Something that happened in the worker, about the object `handler_id`."""

    handler_id: str
    event: int
    body: Body
    index: int = 0
    """Which of the worker's messages it is; set by the channel."""


class Log(msgspec.Struct):
    """A log line: the first character is its level (D, W, E, X)."""

    text: str


def decode(data: bytes) -> Response | Notification | Log:
    """A message of the worker, without its size prefix. Raises one of READ_ERRORS when malformed."""
    root = flatbuffer.follow(data, 0)
    kind_at, data_at = flatbuffer.fields(data, root, 2)
    if not kind_at or not data_at:
        raise ValueError("message has no data")
    kind = data[root + kind_at]
    pos = flatbuffer.follow(data, root + data_at)
    if kind == _RESPONSE:
        return _response(data, pos)
    if kind == _NOTIFICATION:
        return _notification(data, pos)
    if kind == _LOG:
        return Log(log.Log.read(data, pos).data)
    raise ValueError(f"message has the unexpected type {kind}")


# Most answers only say yes, in the same bytes but for the request's number: where that stands, and the bytes
# before and after it, by the message's length.
_plain: Final[dict[int, tuple[int, bytes, bytes]]] = {}
_PLAIN_LIMIT: Final = 8


def plain_answer(data: bytes) -> int:
    """Which request the message accepts without a body; 0 if it may say anything else: then decode it."""
    pattern = _plain.get(len(data))
    if pattern is None:
        return 0
    at, before, after = pattern
    if data.startswith(before) and data.endswith(after):
        return int(_read_number(data, at)[0])
    return 0


def _learn(data: bytes, at: int) -> None:
    if len(_plain) < _PLAIN_LIMIT:
        _plain.setdefault(len(data), (at, data[:at], data[at + 4 :]))


def _response(data: bytes, pos: int) -> Response:
    number, accepted, kind, body, error, reason = flatbuffer.fields(data, pos, 6)
    if number and accepted and data[pos + accepted] == 1 and not (body or error or reason):
        _learn(data, pos + number)
    return Response(
        flatbuffer.U32.unpack_from(data, pos + number)[0] if number else 0,
        bool(accepted and data[pos + accepted]),
        _body(data, pos, kind, body, response.Body_TYPES),
        flatbuffer.read_string(data, pos + error) if error else "",
        flatbuffer.read_string(data, pos + reason) if reason else "",
    )


def _notification(data: bytes, pos: int) -> Notification:
    handler, event, kind, body = flatbuffer.fields(data, pos, 4)
    if not handler:
        flatbuffer.missing("Notification.handler_id")
    return Notification(
        flatbuffer.read_string(data, pos + handler),
        data[pos + event] if event else 0,
        _body(data, pos, kind, body, notification.Body_TYPES),
    )


def _body(data: bytes, pos: int, kind: int, body: int, types: dict[type[Table], int]) -> Body:
    if not kind or not body:
        return Body(data, 0, 0, types)
    return Body(data, data[pos + kind], flatbuffer.follow(data, pos + body), types)


__all__ = ["MAX_MESSAGE", "READ_ERRORS", "Event", "Log", "Method", "Notification", "Response", "decode"]
