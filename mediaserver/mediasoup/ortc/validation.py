"""Checking and completing what comes from outside.

Each function returns its argument with defaults filled in (the argument itself when nothing is missing) and
raises InvalidArgumentError naming the field that is wrong. As in mediasoup, numbers
are checked to be numbers; whether they fit is found when a request is made of them.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec.structs import replace

from ..cache import ContentCache
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

# What a dot matches in JavaScript is also what it matches here.
_MIME_TYPE: Final = re.compile(r"(audio|video)/[^\n\r\u2028\u2029]", re.IGNORECASE | re.ASCII)
_valid: Final = ContentCache[bool](256)


def check_rtp_capabilities(caps: RtpCapabilities) -> None:
    """Raises what `validate_rtp_capabilities` does; cheap for capabilities that were seen before."""

    def check() -> bool:
        validate_rtp_capabilities(caps)
        return True

    _valid.get(caps, check)


def validate_rtp_capabilities(caps: RtpCapabilities) -> RtpCapabilities:
    """Capabilities of an endpoint, with `kind` and `channels` of each codec filled in."""
    codecs = validate_codecs(caps.codecs)
    for i, extension in enumerate(caps.header_extensions):
        where = f"headerExtensions[{i}]"
        if extension.kind not in ("audio", "video"):
            raise InvalidArgumentError(f"{where}.kind is {extension.kind!r}; it must be audio or video")
        if not extension.uri:
            raise InvalidArgumentError(f"{where}.uri is empty")
        _check_number(extension.preferred_id, f"{where}.preferredId")
    if all(new is old for new, old in zip(codecs, caps.codecs, strict=True)):
        return caps
    return replace(caps, codecs=codecs)


def validate_codecs(codecs: list[RtpCodecCapability]) -> list[RtpCodecCapability]:
    """The codecs of capabilities."""
    return [validate_media_codec(codec, f"codecs[{i}]") for i, codec in enumerate(codecs)]


def validate_media_codec(codec: RtpCodecCapability, where: str = "codec") -> RtpCodecCapability:
    """A codec of capabilities, or of a router's media codecs."""
    kind = _kind_of(codec.mime_type, where)
    if codec.preferred_payload_type is not None:
        _check_number(codec.preferred_payload_type, f"{where}.preferredPayloadType")
    _check_number(codec.clock_rate, f"{where}.clockRate")
    _check_parameters(codec.parameters, where)
    _check_feedback(codec.rtcp_feedback, where)
    channels = _channels(kind, codec.channels, where)
    if codec.kind == kind and codec.channels == channels:
        return codec
    return replace(codec, kind=kind, channels=channels)


def validate_rtp_parameters(params: RtpParameters) -> RtpParameters:
    """Parameters of a producer, with `channels` of each codec filled in; RTCP is always of reduced size."""
    codecs = [_codec_parameters(codec, f"codecs[{i}]") for i, codec in enumerate(params.codecs)]
    for i, extension in enumerate(params.header_extensions):
        where = f"headerExtensions[{i}]"
        if not extension.uri:
            raise InvalidArgumentError(f"{where}.uri is empty")
        _check_number(extension.id, f"{where}.id")
        _check_parameters(extension.parameters, where)
    for i, encoding in enumerate(params.encodings):
        _check_encoding(encoding, f"encodings[{i}]")
    if params.rtcp.reduced_size and all(new is old for new, old in zip(codecs, params.codecs, strict=True)):
        return params
    return replace(params, codecs=codecs, rtcp=replace(params.rtcp, reduced_size=True))


def _codec_parameters(codec: RtpCodecParameters, where: str) -> RtpCodecParameters:
    kind = _kind_of(codec.mime_type, where)
    _check_number(codec.payload_type, f"{where}.payloadType")
    _check_number(codec.clock_rate, f"{where}.clockRate")
    _check_parameters(codec.parameters, where)
    _check_feedback(codec.rtcp_feedback, where)
    channels = _channels(kind, codec.channels, where)
    return codec if codec.channels == channels else replace(codec, channels=channels)


def _check_encoding(encoding: RtpEncodingParameters, where: str) -> None:
    if encoding.ssrc is not None:
        _check_number(encoding.ssrc, f"{where}.ssrc")
    if encoding.rtx is not None:
        _check_number(encoding.rtx.ssrc, f"{where}.rtx.ssrc")


def _kind_of(mime_type: str, where: str) -> MediaKind:
    match = _MIME_TYPE.match(mime_type) if type(mime_type) is str else None
    if match is None:
        raise InvalidArgumentError(f"{where}.mimeType is {mime_type!r}; it must be like video/VP8")
    return "audio" if match[1].lower() == "audio" else "video"


def _channels(kind: MediaKind, channels: int | None, where: str) -> int | None:
    """Only audio has channels, one if nothing is said."""
    if kind == "video":
        return None
    if channels is None:
        return 1
    _check_number(channels, f"{where}.channels")
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


def _check_number(value: int, where: str) -> None:
    if type(value) is not int:
        raise InvalidArgumentError(f"{where} is {value!r}; it must be a whole number")
