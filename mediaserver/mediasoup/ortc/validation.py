"""Checking and completing what comes from outside.

Each function returns its argument with defaults filled in (the argument itself when nothing is missing) and
raises InvalidArgumentError naming the field that is wrong.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from ..errors import InvalidArgumentError
from ..rtp_parameters import (
    CodecParameters,
    MediaKind,
    RtcpFeedback,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
)

_MIME_TYPE: Final = re.compile(r"(audio|video)/.+", re.IGNORECASE)
_UINT8: Final = 2**8 - 1
_UINT32: Final = 2**32 - 1


def validate_rtp_capabilities(caps: RtpCapabilities) -> RtpCapabilities:
    """Capabilities of an endpoint, with `kind` and `channels` of each codec filled in."""
    codecs = [validate_media_codec(codec, f"codecs[{i}]") for i, codec in enumerate(caps.codecs)]
    for i, extension in enumerate(caps.header_extensions):
        where = f"headerExtensions[{i}]"
        if extension.kind not in ("audio", "video"):
            raise InvalidArgumentError(f"{where}.kind is {extension.kind!r}; it must be audio or video")
        if not extension.uri:
            raise InvalidArgumentError(f"{where}.uri is empty")
        _check_range(extension.preferred_id, 1, _UINT8, f"{where}.preferredId")
    if all(new is old for new, old in zip(codecs, caps.codecs, strict=True)):
        return caps
    return replace(caps, codecs=codecs)


def validate_media_codec(codec: RtpCodecCapability, where: str = "codec") -> RtpCodecCapability:
    """A codec of capabilities, or of a router's media codecs."""
    kind = _kind_of(codec.mime_type, where)
    if codec.preferred_payload_type is not None:
        _check_range(codec.preferred_payload_type, 0, 127, f"{where}.preferredPayloadType")
    _check_range(codec.clock_rate, 1, _UINT32, f"{where}.clockRate")
    _check_parameters(codec.parameters, where)
    _check_feedback(codec.rtcp_feedback, where)
    channels = _channels(kind, codec.channels, where)
    if codec.kind == kind and codec.channels == channels:
        return codec
    return replace(codec, kind=kind, channels=channels)


def validate_rtp_parameters(params: RtpParameters) -> RtpParameters:
    """Parameters of a producer, with `channels` of each codec filled in."""
    codecs = [_codec_parameters(codec, f"codecs[{i}]") for i, codec in enumerate(params.codecs)]
    for i, extension in enumerate(params.header_extensions):
        where = f"headerExtensions[{i}]"
        if not extension.uri:
            raise InvalidArgumentError(f"{where}.uri is empty")
        _check_range(extension.id, 1, _UINT8, f"{where}.id")
        _check_parameters(extension.parameters, where)
    for i, encoding in enumerate(params.encodings):
        _check_encoding(encoding, f"encodings[{i}]")
    if all(new is old for new, old in zip(codecs, params.codecs, strict=True)):
        return params
    return replace(params, codecs=codecs)


def _codec_parameters(codec: RtpCodecParameters, where: str) -> RtpCodecParameters:
    kind = _kind_of(codec.mime_type, where)
    _check_range(codec.payload_type, 0, 127, f"{where}.payloadType")
    _check_range(codec.clock_rate, 1, _UINT32, f"{where}.clockRate")
    _check_parameters(codec.parameters, where)
    _check_feedback(codec.rtcp_feedback, where)
    channels = _channels(kind, codec.channels, where)
    return codec if codec.channels == channels else replace(codec, channels=channels)


def _check_encoding(encoding: RtpEncodingParameters, where: str) -> None:
    if encoding.ssrc is not None:
        _check_range(encoding.ssrc, 0, _UINT32, f"{where}.ssrc")
    if encoding.rtx is not None:
        _check_range(encoding.rtx.ssrc, 0, _UINT32, f"{where}.rtx.ssrc")
    if encoding.codec_payload_type is not None:
        _check_range(encoding.codec_payload_type, 0, 127, f"{where}.codecPayloadType")
    if encoding.max_bitrate is not None:
        _check_range(encoding.max_bitrate, 0, 2**64 - 1, f"{where}.maxBitrate")


def _kind_of(mime_type: str, where: str) -> MediaKind:
    match = _MIME_TYPE.match(mime_type)
    if match is None:
        raise InvalidArgumentError(f"{where}.mimeType is {mime_type!r}; it must be like video/VP8")
    return "audio" if match[1].lower() == "audio" else "video"


def _channels(kind: MediaKind, channels: int | None, where: str) -> int | None:
    """Only audio has channels, one if nothing is said."""
    if kind == "video":
        return None
    if channels is None:
        return 1
    _check_range(channels, 1, _UINT8, f"{where}.channels")
    return channels


def _check_parameters(parameters: CodecParameters, where: str) -> None:
    for name, value in parameters.items():
        number = type(value) in (int, float)
        if not number and type(value) is not str:
            raise InvalidArgumentError(
                f"{where}.parameters[{name!r}] is {value!r}; it must be text or a number"
            )
        if name == "apt" and not number:
            raise InvalidArgumentError(f"{where}.parameters['apt'] is {value!r}; it must be a payload type")


def _check_feedback(feedback: list[RtcpFeedback], where: str) -> None:
    if not all(entry.type for entry in feedback):
        raise InvalidArgumentError(f"{where}.rtcpFeedback has an entry without a type")


def _check_range(value: int, low: int, high: int, where: str) -> None:
    if type(value) is not int or not low <= value <= high:
        raise InvalidArgumentError(f"{where} is {value!r}; it must be a whole number from {low} to {high}")
