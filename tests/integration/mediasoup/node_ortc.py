"""mediasoup's own ortc, run by Node, and what it makes of JSON that is not quite of its types."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

Json = dict[str, Any]

NODE_TESTS: Final = Path(__file__).parents[2] / "node"


class NodeOrtc:
    """A Node process that answers one line for each line."""

    def __enter__(self) -> Self:
        node = shutil.which("node")
        assert node is not None, "Node.js is needed (README, Requirements)"
        assert (NODE_TESTS / "node_modules" / "mediasoup").is_dir(), "run `make node` first"
        self._process = subprocess.Popen(
            [node, "ortc.js"], cwd=NODE_TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)

    def run(self, case: Json) -> dict[str, Json]:
        """What each step made of the case: {"value": …} or {"error": class, "reason": …}."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(case).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"node ended with {self._process.wait(10)}"
        results: dict[str, Json] = json.loads(line)
        return results


# mediasoup looks away from some wrong types, as if the field were absent. Python's types say what they say,
# and msgspec refuses such JSON; so the comparison is of what is left when those fields are left out.


def read_capabilities(caps: Json) -> Json:
    caps = _without(caps, ("codecs", "headerExtensions"), _is_falsy)
    for name, read in (("codecs", _codec), ("headerExtensions", _extension)):
        if isinstance(caps.get(name), list):
            caps[name] = [read(value) for value in caps[name]]
    return caps


def read_media_codecs(codecs: list[Any]) -> list[Any]:
    return [_codec(codec) for codec in codecs]


def read_parameters(params: Json) -> Json:
    params = _without(params, ("mid", "msid"), _is_falsy_no_text)
    params = _without(params, ("headerExtensions", "encodings", "rtcp"), _is_falsy)
    for name, read in (("codecs", _codec), ("headerExtensions", _parameter_extension)):
        if isinstance(params.get(name), list):
            params[name] = [read(value) for value in params[name]]
    if isinstance(params.get("encodings"), list):
        params["encodings"] = [_encoding(value) for value in params["encodings"]]
    if isinstance(params.get("rtcp"), list):
        params["rtcp"] = {}
    elif isinstance(params.get("rtcp"), dict):
        rtcp = _without(params["rtcp"], ("cname",), _is_falsy_no_text)
        params["rtcp"] = _without(rtcp, ("reducedSize",), lambda value: not isinstance(value, bool))
    return params


def read_mapping(mapping: Json) -> Json:
    return {**mapping, "encodings": [_encoding(encoding) for encoding in mapping["encodings"]]}


def read_sctp(params: Json) -> Json:
    params = _without(params, ("ordered",), lambda value: not isinstance(value, bool))
    return _without(params, ("maxPacketLifeTime", "maxRetransmits"), _is_falsy_no_number)


def _codec(codec: Any) -> Any:
    if not isinstance(codec, dict):
        return codec
    codec = _without(codec, ("kind",), lambda value: value not in ("audio", "video"))
    codec = _without(codec, ("preferredPayloadType",), _is_falsy_no_number)
    codec = _without(codec, ("rtcpFeedback",), lambda value: not isinstance(value, list))
    video = isinstance(codec.get("mimeType"), str) and codec["mimeType"].lower().startswith("video/")
    codec = _without(codec, ("channels",), lambda value: video or not _is_number(value))
    codec = _with_parameters(codec)
    if "rtcpFeedback" in codec:
        codec["rtcpFeedback"] = [
            _without(entry, ("parameter",), lambda value: not isinstance(value, str))
            if isinstance(entry, dict)
            else entry
            for entry in codec["rtcpFeedback"]
        ]
    return codec


def _extension(extension: Any) -> Any:
    if not isinstance(extension, dict):
        return extension
    return _without(extension, ("preferredEncrypt", "direction"), _is_falsy)


def _parameter_extension(extension: Any) -> Any:
    if not isinstance(extension, dict):
        return extension
    return _with_parameters(_without(extension, ("encrypt",), _is_falsy))


def _with_parameters(value: Json) -> Json:
    value = _without(value, ("parameters",), lambda given: not isinstance(given, dict | list))
    if isinstance(value.get("parameters"), list):
        value["parameters"] = {str(i): given for i, given in enumerate(value["parameters"])}
    return value


def _encoding(encoding: Any) -> Any:
    if not isinstance(encoding, dict):
        return encoding
    encoding = _without(encoding, ("scalabilityMode",), _is_falsy_no_text)
    encoding = _without(encoding, ("rid", "ssrc"), lambda value: value is None)
    encoding = _without(encoding, ("rtx",), _is_falsy)
    return _without(encoding, ("dtx",), lambda value: not isinstance(value, bool))


def _without(value: Json, names: Iterable[str], absent: Callable[[Any], bool]) -> Json:
    return {k: v for k, v in value.items() if k not in names or not absent(v)}


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


def _is_falsy_no_text(value: object) -> bool:
    return _is_falsy(value) and not isinstance(value, str)


def _is_falsy_no_number(value: object) -> bool:
    return _is_falsy(value) and not _is_number(value)


def _is_falsy(value: object) -> bool:
    return value is None or value is False or value == "" or (_is_number(value) and value == 0)


WHOLE: Final = frozenset(
    {"payloadType", "preferredPayloadType", "clockRate", "channels", "id", "preferredId", "ssrc"}
    | {"streamId", "maxPacketLifeTime", "maxRetransmits"}
)
UNCHECKED: Final = frozenset({"codecPayloadType", "maxBitrate"})
DIRECTIONS: Final = ("sendrecv", "sendonly", "recvonly", "inactive")


def is_refused_by_us_alone(value: Any) -> bool:
    """Whether there is something in it that mediasoup takes and only the worker would not understand.

    That is 1.5 and 1.0 where numbers are whole, fields that mediasoup does not look at at all, directions
    that nobody knows, lists for encodings (typeof [] is object), SSRCs and RIDs that are no such thing but
    false to JavaScript (the worker would see 0, or "false"). Ours has types for them, so it must refuse.
    """
    if isinstance(value, list):
        return any(is_refused_by_us_alone(item) for item in value)
    if not isinstance(value, dict):
        return False
    return any(
        (name in WHOLE and isinstance(item, float))
        or (name in UNCHECKED and item is not None and not isinstance(item, int))
        or (name in UNCHECKED and isinstance(item, bool))
        or (name == "ssrc" and (item is False or item == ""))
        or (name == "rid" and _is_falsy_no_text(item) and item is not None)
        or (name == "encodings" and isinstance(item, list) and any(isinstance(each, list) for each in item))
        or (name == "direction" and isinstance(item, str) and item not in DIRECTIONS)
        or (name != "parameters" and is_refused_by_us_alone(item))
        for name, item in value.items()
    )
