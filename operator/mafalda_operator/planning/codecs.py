"""mediaCodecs: which there are, what absent fields mean, and the form that mediasoup takes.

Source: mediasoup's supportedRtpCapabilities,
https://mediasoup.org/documentation/v3/mediasoup/rtp-parameters-and-capabilities/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from mafalda_operator.model import Codec
from mafalda_operator.model.policies import ParameterValue


class _Known(NamedTuple):
    name: str
    clock_rates: tuple[int, ...]
    channels: tuple[int, ...] = ()
    """Empty for video. The first of each is what an absent field means."""


_KNOWN = {
    known.name.lower(): known
    for known in (
        _Known("audio/opus", (48000,), (2,)),
        _Known("audio/multiopus", (48000,), (4, 6, 8)),
        _Known("audio/PCMU", (8000,), (1,)),
        _Known("audio/PCMA", (8000,), (1,)),
        _Known("audio/ISAC", (32000, 16000), (1,)),
        _Known("audio/G722", (8000,), (1,)),
        _Known("audio/iLBC", (8000,), (1,)),
        _Known("audio/SILK", (24000, 16000, 12000, 8000), (1,)),
        _Known("audio/CN", (32000, 16000, 8000), (1,)),
        _Known("audio/telephone-event", (48000, 32000, 16000, 8000), (1,)),
        _Known("video/VP8", (90000,)),
        _Known("video/VP9", (90000,)),
        _Known("video/H264", (90000,)),
        _Known("video/AV1", (90000,)),
    )
}

_MULTIOPUS: dict[int, dict[str, ParameterValue]] = {
    4: {"channel_mapping": "0,1,2,3", "num_streams": 2, "coupled_streams": 2},
    6: {"channel_mapping": "0,4,1,2,3,5", "num_streams": 4, "coupled_streams": 2},
    8: {"channel_mapping": "0,6,1,2,3,4,5,7", "num_streams": 5, "coupled_streams": 3},
}

_TEXT_PARAMETERS = frozenset({"profile-level-id", "channel_mapping"})
"""Their values may be all digits and are text nonetheless."""

DEFAULT_CODECS = (
    Codec("audio/opus"),
    Codec("video/VP8"),
    Codec("video/VP9"),
    Codec(
        "video/H264",
        parameters=(
            ("level-asymmetry-allowed", 1),
            ("packetization-mode", 1),
            ("profile-level-id", "42e01f"),
        ),
    ),
    Codec("video/AV1"),
)
"""When neither session nor cluster names any: Opus, VP8, VP9, H264 (constrained baseline 3.1), AV1."""


def codec_problem(codecs: Iterable[Codec]) -> str | None:
    """What is wrong with the first codec that the servers don't have, and the remedy; None: all exist."""
    for codec in codecs:
        known = _KNOWN.get(codec.mime_type.lower())
        if known is None:
            return (
                f"the media servers don't have the codec {codec.mime_type}; "
                f"use one of {', '.join(sorted(_KNOWN[name].name for name in _KNOWN))}"
            )
        if codec.clock_rate is not None and codec.clock_rate not in known.clock_rates:
            rates = " or ".join(map(str, known.clock_rates))
            return f"{known.name} has a clockRate of {rates}, not {codec.clock_rate}; correct or remove it"
        if codec.channels is not None and known.channels and codec.channels not in known.channels:
            channels = " or ".join(map(str, known.channels))
            return f"{known.name} has {channels} channels, not {codec.channels}; correct or remove it"
    return None


def resolve_codecs(codecs: Iterable[Codec]) -> list[dict[str, Any]]:
    """Codecs with everything filled in, as status.mediaCodecs holds them. They have no `codec_problem`."""
    return [_resolve(codec) for codec in codecs]


def _resolve(codec: Codec) -> dict[str, Any]:
    known = _KNOWN[codec.mime_type.lower()]
    resolved: dict[str, Any] = {
        "mimeType": known.name,
        "clockRate": codec.clock_rate or known.clock_rates[0],
    }
    parameters = {name: _normal(name, value) for name, value in codec.parameters}
    if known.channels:
        resolved["channels"] = codec.channels or known.channels[0]
    if known.name == "audio/multiopus":
        parameters = _MULTIOPUS[resolved["channels"]] | parameters
    if parameters:
        resolved["parameters"] = parameters
    return resolved


def _normal(name: str, value: ParameterValue) -> ParameterValue:
    if name in _TEXT_PARAMETERS:
        return str(value)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return int(value)
    return value


def as_capabilities(resolved: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Resolved codecs as mediasoup's RtpCodecCapability objects."""
    return [{"kind": codec["mimeType"].split("/", 1)[0], **codec} for codec in resolved]
