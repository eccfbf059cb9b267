"""SCTP streams: which parameters go together."""

from __future__ import annotations

from msgspec.structs import replace

from ..errors import InvalidArgumentError
from ..types import SctpStreamParameters

_UINT16 = range(2**16)


def validate_sctp_stream_parameters(params: SctpStreamParameters) -> SctpStreamParameters:
    """The parameters with `ordered` filled in: true without limits, else false.

    Raises InvalidArgumentError for both limits at once, for limits on an ordered stream, and for numbers
    that don't fit into 16 bits.
    """
    for name in ("stream_id", "max_packet_life_time", "max_retransmits"):
        value = getattr(params, name)
        if value is not None and value not in _UINT16:
            raise InvalidArgumentError(
                f"sctp_stream_parameters.{name} is {value}; it must be from 0 to 65535"
            )
    if params.max_packet_life_time and params.max_retransmits:
        raise InvalidArgumentError(
            "sctp_stream_parameters has max_packet_life_time and max_retransmits; give one of them"
        )
    limited = bool(params.max_packet_life_time or params.max_retransmits)
    if params.ordered and limited:
        raise InvalidArgumentError(
            "sctp_stream_parameters is ordered, so give neither max_packet_life_time nor max_retransmits"
        )
    return params if params.ordered is not None else replace(params, ordered=not limited)
