"""protoo frames: JSON objects in WebSocket text messages, sub-protocol `protoo`.

    request       {request: true, id, method, data}
    response      {response: true, id, ok: true, data}
                  {response: true, id, ok: false, errorCode, errorReason}
    notification  {notification: true, method, data}

Both sides may send all three. No I/O here. Source: https://protoo.versatica.com.
"""

from __future__ import annotations

from typing import Any

import msgspec

from mediaserver.signalling.errors import FrameError

SUBPROTOCOL = "protoo"

_MAX_ID = 2**53 - 1
_NOTHING = msgspec.Raw(b"{}")


class Request(msgspec.Struct, frozen=True):
    """A question with the asker's `id`; `data` is undecoded JSON."""

    id: int
    method: str
    data: msgspec.Raw = _NOTHING


class Response(msgspec.Struct, frozen=True):
    """The answer to the request of the same `id`; the error fields count when `ok` is False."""

    id: int
    ok: bool
    data: msgspec.Raw = _NOTHING
    error_code: int = 0
    error_reason: str = ""


class Notification(msgspec.Struct, frozen=True):
    """A message without an answer."""

    method: str
    data: msgspec.Raw = _NOTHING


Frame = Request | Response | Notification


class _Wire(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Every field that any frame has."""

    request: bool = False
    response: bool = False
    notification: bool = False
    id: int | None = None
    method: str | None = None
    ok: bool = False
    data: msgspec.Raw = _NOTHING
    error_code: int = 0
    error_reason: str = ""


_decoder = msgspec.json.Decoder(_Wire)
_encoder = msgspec.json.Encoder()


def decode(message: str | bytes) -> Frame:
    """The frame in a text message. Raises FrameError, whose text names the field that is wrong."""
    try:
        wire = _decoder.decode(message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise FrameError(f"not a protoo frame: {error}") from error
    if wire.request + wire.response + wire.notification != 1:
        raise FrameError("not a protoo frame: exactly one of request, response, notification must be true")
    if wire.notification:
        return Notification(_method(wire), wire.data)
    if wire.id is None or not 0 <= wire.id <= _MAX_ID:
        raise FrameError("not a protoo frame: `id` must be an integer from 0 to 2**53 - 1")
    if wire.request:
        return Request(wire.id, _method(wire), wire.data)
    return Response(wire.id, wire.ok, wire.data, wire.error_code, wire.error_reason)


def _method(wire: _Wire) -> str:
    if not wire.method:
        raise FrameError("not a protoo frame: `method` must be a string that is not empty")
    return wire.method


def encode_request(request_id: int, method: str, data: Any) -> str:
    return _encode({"request": True, "id": request_id, "method": method, "data": data})


def encode_success(request_id: int, data: Any) -> str:
    return _encode({"response": True, "id": request_id, "ok": True, "data": {} if data is None else data})


def encode_failure(request_id: int, code: int, reason: str) -> str:
    return _encode(
        {"response": True, "id": request_id, "ok": False, "errorCode": code, "errorReason": reason}
    )


def encode_notification(method: str, data: Any) -> str:
    return _encode({"notification": True, "method": method, "data": data})


def _encode(frame: dict[str, Any]) -> str:
    return _encoder.encode(frame).decode()
