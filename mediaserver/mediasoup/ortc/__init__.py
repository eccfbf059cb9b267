"""ORTC: which codecs, header extensions and streams each side of a transport uses.

Pure functions on frozen values: no I/O, no clock, and SSRCs come in as arguments. Behaviour is that of
mediasoup 3.27's own ortc; each function's docstring says where it decides anything.
"""

from .consumers import can_consume, get_consumer_rtp_parameters, get_pipe_consumer_rtp_parameters
from .producers import (
    generate_router_rtp_capabilities,
    get_consumable_rtp_parameters,
    get_producer_rtp_parameters_mapping,
)
from .scalability_modes import ScalabilityMode, parse_scalability_mode
from .sctp import validate_sctp_stream_parameters
from .supported import SUPPORTED_RTP_CAPABILITIES, get_supported_rtp_capabilities
from .validation import (
    check_rtp_capabilities,
    validate_media_codec,
    validate_rtp_capabilities,
    validate_rtp_parameters,
)

__all__ = [
    "SUPPORTED_RTP_CAPABILITIES",
    "ScalabilityMode",
    "can_consume",
    "check_rtp_capabilities",
    "generate_router_rtp_capabilities",
    "get_consumable_rtp_parameters",
    "get_consumer_rtp_parameters",
    "get_pipe_consumer_rtp_parameters",
    "get_producer_rtp_parameters_mapping",
    "get_supported_rtp_capabilities",
    "parse_scalability_mode",
    "validate_media_codec",
    "validate_rtp_capabilities",
    "validate_rtp_parameters",
    "validate_sctp_stream_parameters",
]
