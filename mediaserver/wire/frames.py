"""The frames of JSON-RPC 2.0 (jsonrpc.org/specification), one in each WebSocket text message. No I/O.

Batches are not used: an array is refused like any other message that is no frame.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from mediaserver.wire.errors import ProtocolError

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

Id = int | str
_NOTHING = msgspec.Raw(b"{}")


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    code: int
    message: str
    data: Any = None


class Request(msgspec.Struct, frozen=True):
    id: Id
    method: str
    params: msgspec.Raw


class Notification(msgspec.Struct, frozen=True):
    method: str
    params: msgspec.Raw


class Response(msgspec.Struct, frozen=True):
    """Of ``result`` and ``error`` exactly one is there."""

    id: Id | None
    result: msgspec.Raw | None
    error: ErrorBody | None


class _Incoming(msgspec.Struct, frozen=True):
    jsonrpc: Literal["2.0"]
    id: Id | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: msgspec.Raw = _NOTHING
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: ErrorBody | msgspec.UnsetType = msgspec.UNSET


class _Outgoing(msgspec.Struct, frozen=True, omit_defaults=True):
    id: Id | msgspec.UnsetType | None = msgspec.UNSET
    method: str | msgspec.UnsetType = msgspec.UNSET
    params: Any = msgspec.UNSET
    result: Any = msgspec.UNSET
    error: ErrorBody | msgspec.UnsetType = msgspec.UNSET
    jsonrpc: str | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Incoming)
_encoder = msgspec.json.Encoder()


def decode(message: bytes | str) -> Request | Notification | Response:
    """Read a message. Raises ProtocolError when it is no frame."""
    try:
        frame = _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a JSON-RPC message: {error}") from error
    if isinstance(frame.method, str):
        return _decode_request(frame, frame.method)
    has_result = frame.result is not msgspec.UNSET
    has_error = frame.error is not msgspec.UNSET
    if isinstance(frame.id, msgspec.UnsetType) or has_result == has_error:
        raise ProtocolError("not a JSON-RPC message: neither request, notification nor response")
    return Response(frame.id, frame.result or None, frame.error or None)


def _decode_request(frame: _Incoming, method: str) -> Request | Notification:
    if isinstance(frame.id, msgspec.UnsetType):
        return Notification(method, frame.params)
    if frame.id is None:
        raise ProtocolError(f"request {method} has a null id")
    return Request(frame.id, method, frame.params)


def encode_request(ident: Id, method: str, params: msgspec.Struct) -> bytes:
    return _encode(_Outgoing(jsonrpc="2.0", id=ident, method=method, params=params), method)


def encode_notification(method: str, params: msgspec.Struct) -> bytes:
    return _encode(_Outgoing(jsonrpc="2.0", method=method, params=params), method)


def encode_result(ident: Id, result: msgspec.Struct | None) -> bytes:
    body: Any = _NOTHING if result is None else result
    return _encode(_Outgoing(jsonrpc="2.0", id=ident, result=body), "the answer")


def encode_error(ident: Id | None, code: int, message: str, data: Any = None) -> bytes:
    return _encode(_Outgoing(jsonrpc="2.0", id=ident, error=ErrorBody(code, message, data)), "the error")


def _encode(frame: _Outgoing, what: str) -> bytes:
    message = _encoder.encode(frame)
    if len(message) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"{what} has {len(message)} bytes, the limit is {MAX_MESSAGE_BYTES}")
    return message
