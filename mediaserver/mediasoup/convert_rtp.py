"""RTP parameters: the worker's tables to and from the types of the API."""

from __future__ import annotations

from typing import Final

from ._fbs import rtp_parameters as fbs
from .enums import URI_NAMES, URI_NUMBERS, named
from .errors import InvalidArgumentError, UnsupportedError
from .flatbuffer import unexpected
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


def rtp_parameters_to_fbs(params: RtpParameters) -> fbs.RtpParameters:
    """Raises UnsupportedError for a header extension that mediasoup does not know."""
    return fbs.RtpParameters(
        mid=params.mid,
        codecs=[_codec_to_fbs(codec) for codec in params.codecs],
        header_extensions=[_extension_to_fbs(extension) for extension in params.header_extensions],
        encodings=encodings_to_fbs(params.encodings),
        rtcp=fbs.RtcpParameters(cname=params.rtcp.cname, reduced_size=params.rtcp.reduced_size),
        msid=params.msid,
    )


def _codec_to_fbs(codec: RtpCodecParameters) -> fbs.RtpCodecParameters:
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
    return fbs.RtpHeaderExtensionParameters(
        uri=uri,
        id=extension.id,
        encrypt=extension.encrypt,
        parameters=_parameters_to_fbs(extension.parameters),
    )


def encodings_to_fbs(encodings: list[RtpEncodingParameters]) -> list[fbs.RtpEncodingParameters]:
    return [
        fbs.RtpEncodingParameters(
            ssrc=encoding.ssrc or None,
            rid=encoding.rid,
            codec_payload_type=encoding.codec_payload_type or None,
            rtx=None if encoding.rtx is None else fbs.Rtx(ssrc=encoding.rtx.ssrc),
            dtx=encoding.dtx,
            scalability_mode=encoding.scalability_mode,
            max_bitrate=encoding.max_bitrate,
        )
        for encoding in encodings
    ]


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
