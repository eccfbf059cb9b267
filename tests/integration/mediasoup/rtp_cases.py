"""RTP capabilities and parameters as JSON, made up by hypothesis: like those of browsers, odd, and broken."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from hypothesis import strategies as st

from mediaserver.mediasoup import ortc

Json = dict[str, Any]
T = TypeVar("T")

PROFILES: Final = [
    "42e01f",
    "42001f",
    "4d0032",
    "640032",
    "64100b",
    "42f00b",
    "4d100b",
    "42e00b",
    "nonsense",
    "",
    640032,
]
MODES: Final = ["L1T1", "L1T3", "S3T3", "L3T2_KEY", "L0T1", "L12T34", "nonsense", ""]
MIME_TYPES: Final = [
    "audio/opus",
    "Audio/OPUS",
    "audio/multiopus",
    "audio/PCMU",
    "video/VP8",
    "video/vp9",
    "video/H264",
    "video/AV1",
    "video/rtx",
    "audio/rtx",
    "video/red/RTX",
    "video/x",
    "text/vp8",
    "video/",
    "video/\n",
    "video/\n/rtx",
    "v\u0131deo/VP8",
    "",
]
WEIRD: Final = [
    None,
    True,
    False,
    0,
    1,
    -1,
    1.5,
    2.0,
    100,
    300,
    2**40,
    "",
    "x",
    "1",
    "audio",
    "video",
    "sendonly",
    "somewhere",
    [],
    [1],
    ["nack"],
    {},
    {"a": 1},
    {"type": "nack"},
    {"ssrc": 5},
]
PAYLOAD_TYPES: Final = [0, 8, 96, 97, 98, 99, 100, 101, 102, 103, 127, 300]
FEEDBACK: Final = [
    {"type": "nack"},
    {"type": "nack", "parameter": "pli"},
    {"type": "ccm", "parameter": "fir"},
    {"type": "goog-remb"},
    {"type": "transport-cc"},
    {"type": "x", "parameter": ""},
    {"type": ""},
]
SUPPORTED: Final = ortc.SUPPORTED_RTP_CAPABILITIES
URIS: Final = [*sorted({extension.uri for extension in SUPPORTED.header_extensions}), "urn:x", ""]
USUAL: Final = [
    ("audio/opus", 48_000, 2),
    ("video/VP8", 90_000, None),
    ("video/VP9", 90_000, None),
    ("video/H264", 90_000, None),
    ("video/rtx", 90_000, None),
    ("audio/PCMU", 8_000, 1),
    ("audio/multiopus", 48_000, 4),
]
MEDIA: Final = [codec for codec in USUAL if codec[0] != "video/rtx"]


class Choices:
    """Picks by the bytes of one draw: as shrinkable as a draw for each pick, at a tenth of the cost."""

    def __init__(self, data: bytes) -> None:
        self._data = iter(data)

    def pick(self, options: Sequence[T]) -> T:
        return options[next(self._data, 0) % len(options)]

    def chance(self, part: int) -> bool:
        """True once in `part` times."""
        return self.pick(range(part)) == part - 1

    def some(self, options: Sequence[T]) -> list[T]:
        chosen = self.pick(range(2 ** len(options)))
        return [option for i, option in enumerate(options) if chosen >> i & 1]


def choices(size: int) -> st.SearchStrategy[Choices]:
    return st.binary(min_size=size, max_size=size).map(Choices)


def fmtp(of: Choices, mime_type: str) -> Json:
    """Format parameters that matter for the codec."""
    name = mime_type.lower()
    if name.endswith("rtx"):
        return {"apt": of.pick(PAYLOAD_TYPES)}
    if name == "video/h264":
        found: Json = {"packetization-mode": of.pick([0, 1, "1", 1.0])}
        if not of.chance(5):
            found["profile-level-id"] = of.pick(PROFILES)
        if of.chance(2):
            found["level-asymmetry-allowed"] = of.pick([1, 0, "1"])
        return found
    if name == "video/vp9":
        return {"profile-id": of.pick([0, 2, "0", ""])}
    if name == "audio/multiopus":
        return {"num_streams": of.pick([2, 1]), "coupled_streams": 2, "channel_mapping": "0,1,2,3"}
    return of.pick([{}, {"useinbandfec": 1}, {"ratio": 0.5, "": ""}, {"apt": 100}])


def codec(of: Choices, payload_type: str, always: bool) -> Json:
    mime_type, clock_rate, channels = of.pick(USUAL if always else MEDIA)
    if of.chance(12):
        mime_type = of.pick(MIME_TYPES)
        clock_rate = of.pick([8_000, 48_000, 90_000])
        channels = of.pick([None, 1, 2, 4])
    found: Json = {"mimeType": mime_type, "clockRate": clock_rate}
    if channels is not None:
        found["channels"] = channels
    if always or of.chance(8):
        found[payload_type] = of.pick(PAYLOAD_TYPES)
    if not of.chance(5):
        found["parameters"] = fmtp(of, mime_type)
    found["rtcpFeedback"] = of.some(FEEDBACK[:5]) if not of.chance(12) else of.some(FEEDBACK)
    return found


def media_codec(of: Choices) -> Json:
    return codec(of, "preferredPayloadType", False)


def codec_capability(of: Choices) -> Json:
    return codec(of, "preferredPayloadType", True)


def codec_parameters(of: Choices) -> Json:
    return codec(of, "payloadType", True)


def extension(of: Choices) -> Json:
    known = of.pick(SUPPORTED.header_extensions)
    found: Json = {"kind": known.kind, "uri": known.uri, "preferredId": known.preferred_id}
    if of.chance(5):
        found["uri"] = of.pick(URIS)
        found["direction"] = of.pick(["sendrecv", "sendonly", "recvonly", "inactive"])
        found["preferredEncrypt"] = of.chance(2)
    return found


def parameter_extension(of: Choices) -> Json:
    known = of.pick(SUPPORTED.header_extensions)
    found: Json = {"uri": known.uri, "id": known.preferred_id}
    return found if not of.chance(5) else {**found, "encrypt": of.chance(2), "parameters": {"a": 1}}


def encoding(of: Choices) -> Json:
    options = {
        "ssrc": of.pick([1111, 0, 2**32 - 1]),
        "rid": of.pick(["r0", "hi", ""]),
        "rtx": {"ssrc": 2222},
        "scalabilityMode": of.pick(MODES),
        "maxBitrate": of.pick([100_000, 0, 5_000_000, -5]),
        "dtx": of.chance(2),
    }
    return dict(of.some(list(options.items())))


def several(size: int, make: Callable[[Choices], Json], most: int) -> st.SearchStrategy[list[Json]]:
    return st.lists(choices(size).map(make), max_size=most)


# Made once: to make them is slower than to draw from them.
_media_codecs = several(12, media_codec, 4)
_codec_parameters = several(12, codec_parameters, 3)
_parameter_extensions = several(5, parameter_extension, 2)
_encodings = several(6, encoding, 3)
_codec_capabilities = several(12, codec_capability, 4)
_extensions = several(5, extension, 4)
_choices = choices(16)
_place = st.integers(0, 999)


@st.composite
def cases(draw: st.DrawFn) -> Json:
    """All that a producer and a consumer bring along; in half of the cases something is broken."""
    of = draw(_choices)
    case: Json = {
        "kind": of.pick(["audio", "video"]),
        "mediaCodecs": draw(_media_codecs),
        "params": {
            "codecs": draw(_codec_parameters),
            "headerExtensions": draw(_parameter_extensions),
            "encodings": draw(_encodings),
            "rtcp": of.pick([{}, {"cname": "c"}, {"cname": "", "reducedSize": False}]),
            "mid": of.pick(["", "1"]),
            "msid": of.pick(["", "stream track", None]),
        },
        "caps": {
            "codecs": draw(_codec_capabilities),
            "headerExtensions": draw(_extensions),
        },
    }
    if of.chance(2):  # an endpoint like the router
        case["caps"]["codecs"] += [{"preferredPayloadType": 100} | codec for codec in case["mediaCodecs"]]
    if of.chance(2):  # a producer like the router
        case["params"]["codecs"] = [
            {**codec, "payloadType": 96 + i} for i, codec in enumerate(case["mediaCodecs"])
        ]
    case = json.loads(json.dumps(case))  # a copy: the pieces are everybody's
    for _ in range(of.pick([0, 0, 0, 0, 1, 1, 2])):
        _break(draw(_place), of, case)
    return case


def _break(place: int, of: Choices, case: Json) -> None:
    """Changes, takes away or doubles something, wherever it is."""
    places = list(_places(case["params"])) + list(_places(case["caps"])) + list(_places(case["mediaCodecs"]))
    container, key = places[place % len(places)]
    if of.chance(6):
        del container[key]
    elif isinstance(container, list) and of.chance(4):
        container.append(copy.deepcopy(container[key]))
    else:
        container[key] = copy.deepcopy(of.pick(WEIRD))


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)
