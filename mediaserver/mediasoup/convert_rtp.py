"""RTP parameters: the worker's tables to and from the types of the API."""

from __future__ import annotations

from typing import Final

from ._fbs import rtp_parameters as fbs
from .cache import ContentCache
from .enums import URI_NAMES, URI_NUMBERS, named
from .errors import InvalidArgumentError, UnsupportedError
from .flatbuffer import PackedTables, unexpected
from .reports import CodecMapping, EncodingMapping, RtpMapping
from .rtp_parameters import (
    CodecParameters,
    RtcpFeedback,
    RtcpParameters,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
)

_INT32: Final = range(-(2**31), 2**31)
_UINT8: Final = range(2**8)
_UINT32: Final = range(2**32)
_UINT64: Final = range(2**64)
# What most messages repeat, since most producers, and most consumers, have few sets of codecs among them.
_codecs: Final = ContentCache[PackedTables[fbs.RtpCodecParameters]](1024)
_extensions: Final = ContentCache[PackedTables[fbs.RtpHeaderExtensionParameters]](1024)


def rtp_parameters_to_fbs(params: RtpParameters) -> fbs.RtpParameters:
    """Raises InvalidArgumentError for a number that does not fit, naming the field; UnsupportedError for a
    header extension that mediasoup does not know.
    """
    codecs, extensions = params.codecs, params.header_extensions
    return fbs.RtpParameters(
        mid=params.mid,
        codecs=_codecs.get(codecs, lambda: PackedTables(map(_codec_to_fbs, codecs))),
        header_extensions=_extensions.get(
            extensions, lambda: PackedTables(map(_extension_to_fbs, extensions))
        ),
        encodings=encodings_to_fbs(params.encodings),
        rtcp=fbs.RtcpParameters(cname=params.rtcp.cname, reduced_size=params.rtcp.reduced_size),
        msid=params.msid,
    )


def _codec_to_fbs(codec: RtpCodecParameters) -> fbs.RtpCodecParameters:
    where = f"codec {codec.mime_type}"
    _check_fits(codec.payload_type, _UINT8, f"{where}: payloadType")
    _check_fits(codec.clock_rate, _UINT32, f"{where}: clockRate")
    if codec.channels is not None:
        _check_fits(codec.channels, _UINT8, f"{where}: channels")
    return fbs.RtpCodecParameters(
        mime_type=codec.mime_type,
        payload_type=codec.payload_type,
        clock_rate=codec.clock_rate,
        channels=codec.channels,
        parameters=_parameters_to_fbs(codec.parameters),
        rtcp_feedback=[fbs.RtcpFeedback(type=fb.type, parameter=fb.parameter) for fb in codec.rtcp_feedback],
    )


def _extension_to_fbs(extension: RtpHeaderExtensionParameters) -> fbs.RtpHeaderExtensionParameters:
    uri = URI_NUMBERS.get(extension.uri)
    if uri is None:
        raise UnsupportedError(f"mediasoup does not know the RTP header extension {extension.uri!r}")
    _check_fits(extension.id, _UINT8, f"header extension {extension.uri}: id")
    return fbs.RtpHeaderExtensionParameters(
        uri=uri,
        id=extension.id,
        encrypt=extension.encrypt,
        parameters=_parameters_to_fbs(extension.parameters),
    )


def encodings_to_fbs(encodings: list[RtpEncodingParameters]) -> list[fbs.RtpEncodingParameters]:
    """Raises InvalidArgumentError for a number that does not fit, naming the field."""
    return [_encoding_to_fbs(i, encoding) for i, encoding in enumerate(encodings)]


def _encoding_to_fbs(index: int, encoding: RtpEncodingParameters) -> fbs.RtpEncodingParameters:
    ssrc, payload_type, bitrate = encoding.ssrc, encoding.codec_payload_type, encoding.max_bitrate
    rtx = None if encoding.rtx is None else encoding.rtx.ssrc
    where = f"encodings[{index}]"
    if ssrc is not None:
        _check_fits(ssrc, _UINT32, f"{where}.ssrc")
    if payload_type is not None:
        _check_fits(payload_type, _UINT8, f"{where}.codecPayloadType")
    if rtx is not None:
        _check_fits(rtx, _UINT32, f"{where}.rtx.ssrc")
    if bitrate is not None:
        _check_fits(bitrate, _UINT64, f"{where}.maxBitrate")
    return fbs.RtpEncodingParameters(
        ssrc=ssrc or None,
        rid=encoding.rid,
        codec_payload_type=payload_type or None,
        rtx=None if rtx is None else fbs.Rtx(ssrc=rtx),
        dtx=encoding.dtx,
        scalability_mode=encoding.scalability_mode,
        max_bitrate=bitrate,
    )


def _check_fits(value: int, allowed: range, what: str) -> None:
    if value not in allowed:
        raise InvalidArgumentError(f"{what} is {value!r}; it must be from {allowed[0]} to {allowed[-1]}")


def _parameters_to_fbs(parameters: CodecParameters) -> list[fbs.Parameter]:
    return [_parameter_to_fbs(name, value) for name, value in parameters.items()]


def _parameter_to_fbs(name: str, value: float | str) -> fbs.Parameter:
    if isinstance(value, str):
        return fbs.Parameter(name=name, value=fbs.String(value=value))
    if value % 1 == 0:
        if int(value) not in _INT32:
            raise InvalidArgumentError(f"codec parameter {name} is {value}, which needs more than 32 bits")
        return fbs.Parameter(name=name, value=fbs.Integer32(value=int(value)))
    return fbs.Parameter(name=name, value=fbs.Double(value=value))


def rtp_mapping_to_fbs(mapping: RtpMapping) -> fbs.RtpMapping:
    return fbs.RtpMapping(
        codecs=[
            fbs.CodecMapping(payload_type=codec.payload_type, mapped_payload_type=codec.mapped_payload_type)
            for codec in mapping.codecs
        ],
        encodings=[
            fbs.EncodingMapping(rid=encoding.rid, ssrc=encoding.ssrc, mapped_ssrc=encoding.mapped_ssrc)
            for encoding in mapping.encodings
        ],
    )


def rtp_mapping_from_fbs(mapping: fbs.RtpMapping) -> RtpMapping:
    return RtpMapping(
        codecs=[
            CodecMapping(payload_type=codec.payload_type, mapped_payload_type=codec.mapped_payload_type)
            for codec in mapping.codecs
        ],
        encodings=[
            EncodingMapping(rid=encoding.rid or None, ssrc=encoding.ssrc, mapped_ssrc=encoding.mapped_ssrc)
            for encoding in mapping.encodings
        ],
    )


def rtp_parameters_from_fbs(params: fbs.RtpParameters) -> RtpParameters:
    return RtpParameters(
        mid=params.mid or None,
        codecs=[
            RtpCodecParameters(
                mime_type=codec.mime_type,
                payload_type=codec.payload_type,
                clock_rate=codec.clock_rate,
                channels=codec.channels,
                parameters=_parameters_from_fbs(codec.parameters),
                rtcp_feedback=[
                    RtcpFeedback(type=fb.type, parameter=fb.parameter or "")
                    for fb in codec.rtcp_feedback or ()
                ],
            )
            for codec in params.codecs
        ],
        header_extensions=[
            RtpHeaderExtensionParameters(
                uri=named(URI_NAMES, extension.uri, "header extension uri"),
                id=extension.id,
                encrypt=extension.encrypt,
                parameters=_parameters_from_fbs(extension.parameters),
            )
            for extension in params.header_extensions
        ],
        encodings=encodings_from_fbs(params.encodings),
        rtcp=RtcpParameters(cname=params.rtcp.cname or None, reduced_size=params.rtcp.reduced_size),
        msid=params.msid or None,
    )


def encodings_from_fbs(encodings: list[fbs.RtpEncodingParameters]) -> list[RtpEncodingParameters]:
    return [
        RtpEncodingParameters(
            ssrc=encoding.ssrc,
            rid=encoding.rid or None,
            codec_payload_type=encoding.codec_payload_type,
            rtx=None if encoding.rtx is None else RtxParameters(ssrc=encoding.rtx.ssrc),
            dtx=encoding.dtx,
            scalability_mode=encoding.scalability_mode or None,
            max_bitrate=encoding.max_bitrate,
        )
        for encoding in encodings
    ]


def _parameters_from_fbs(parameters: list[fbs.Parameter] | None) -> CodecParameters:
    result: CodecParameters = {}
    for parameter in parameters or ():
        value = parameter.value
        if isinstance(value, fbs.String | fbs.Integer32 | fbs.Double | fbs.Boolean):
            result[parameter.name] = value.value
        else:
            unexpected(f"codec parameter {parameter.name}", value)
    return result
