"""Our ortc against mediasoup's: for whatever hypothesis makes up, the same result or both refuse.

MAFALDA_ORTC_SEED repeats a run; the seed of each run is printed.
"""

from __future__ import annotations

import base64
import os
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from integration.mediasoup.node_ortc import (
    Json,
    NodeOrtc,
    is_refused_by_us_alone,
    read_capabilities,
    read_mapping,
    read_media_codecs,
    read_parameters,
    read_sctp,
)
from integration.mediasoup.rtp_cases import cases

from mediaserver.mediasoup import (
    InvalidArgumentError,
    MediasoupError,
    RtpCapabilities,
    RtpCodecCapability,
    RtpParameters,
    UnsupportedError,
    ortc,
)
from mediaserver.mediasoup._fbs import rtp_parameters as fbs
from mediaserver.mediasoup.convert_rtp import rtp_mapping_to_fbs
from mediaserver.mediasoup.reports import RtpMapping
from mediaserver.mediasoup.types import SctpStreamParameters

SEED: Final = int(os.environ.get("MAFALDA_ORTC_SEED") or random.randrange(2**32))
SSRC: Final = 100_000_000
RTX_SSRC: Final = 200_000_000
CASES: Final = 5_100


class Ours:
    """The same steps as in tests/node/ortc.js, by ours."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}

    def step(self, name: str, needs: list[str], run: Callable[..., Any]) -> None:
        values = [self.results.get(need) for need in needs]
        if "rawCaps" in needs and isinstance(self.results["rawCaps"], Exception) and values[0] is not None:
            values[0] = self.results[name] = self.results["rawCaps"]  # refused before anything looks at it
        if any(value is None or isinstance(value, Exception) for value in values):
            return
        try:
            self.results[name] = run(*values)
        except (MediasoupError, msgspec.ValidationError) as error:
            self.results[name] = error

    def consumers(self, prefix: str, consumable: str) -> None:
        for rtx in (False, True):
            for pipe in (False, True):
                self.step(
                    f"{prefix}.consumer.{str(rtx).lower()}.{str(pipe).lower()}",
                    [consumable, "caps"],
                    lambda params, caps, rtx=rtx, pipe=pipe: ortc.get_consumer_rtp_parameters(
                        params, caps, enable_rtx=rtx, pipe=pipe, ssrc=SSRC, rtx_ssrc=RTX_SSRC
                    ),
                )
            self.step(
                f"{prefix}.pipe.{str(rtx).lower()}",
                [consumable],
                lambda params, rtx=rtx: ortc.get_pipe_consumer_rtp_parameters(
                    params, enable_rtx=rtx, ssrc=SSRC, rtx_ssrc=RTX_SSRC
                ),
            )

    def run(self, case: Json) -> dict[str, Any]:
        def convert(value: Any, kind: Any) -> Any:
            return msgspec.convert(value, kind)

        raw = read_capabilities(case["caps"])
        self.step("rawCaps", [], lambda: convert(raw, RtpCapabilities))
        self.step("caps", [], lambda: ortc.validate_rtp_capabilities(convert(raw, RtpCapabilities)))
        params = read_parameters(case["params"])
        self.step("params", [], lambda: ortc.validate_rtp_parameters(convert(params, RtpParameters)))
        codecs = read_media_codecs(case["mediaCodecs"])
        self.step(
            "router",
            [],
            lambda: ortc.generate_router_rtp_capabilities(convert(codecs, list[RtpCodecCapability])),
        )
        for router in ("router", "caps"):
            self.step(
                f"{router}.mapped",
                ["params", router],
                lambda params, caps: ortc.get_producer_rtp_parameters_mapping(params, caps, ssrc=SSRC),
            )
            self.step(f"{router}.serialized", [f"{router}.mapped"], lambda mapped: _serialized(mapped[1]))
            self.step(
                f"{router}.consumable",
                [f"{router}.mapped", router],
                lambda mapped, caps: ortc.get_consumable_rtp_parameters(
                    case["kind"], mapped[0], caps, mapped[1]
                ),
            )
            self.step(f"{router}.canConsume", [f"{router}.consumable", "rawCaps"], ortc.can_consume)
            self.consumers(router, f"{router}.consumable")
        self.step("params.canConsume", ["params", "rawCaps"], ortc.can_consume)
        self.consumers("params", "params")
        return self.results


def _serialized(mapping: RtpMapping) -> fbs.RtpMapping:
    table = rtp_mapping_to_fbs(mapping)
    try:
        table.write(bytearray())
    except struct.error as error:
        raise InvalidArgumentError(str(error)) from error
    return table


def from_node(name: str, value: Any) -> Any:
    """A value of Node's as one of ours."""
    kind = name.partition(".")[2] or name
    if kind == "caps" or name == "router":
        return msgspec.convert(read_capabilities(value), RtpCapabilities)
    if kind == "mapped":
        params, mapping = value
        return from_node("params", params), msgspec.convert(read_mapping(mapping), RtpMapping)
    if kind == "serialized":
        data = base64.b64decode(value)
        return fbs.RtpMapping.read(data, struct.unpack_from("<I", data)[0])
    if kind == "canConsume":
        return value
    return msgspec.convert(read_parameters(value), RtpParameters)


def check(name: str, ours: Any, node: Json) -> None:
    """Both gave the same, or both refused for the same kind of reason."""
    if "error" in node:
        assert isinstance(ours, Exception), f"{name}: Node refuses ({node['reason']}), ours gives {ours}"
        unsupported = isinstance(ours, UnsupportedError)
        if isinstance(ours, msgspec.ValidationError):
            return  # before ortc saw it
        assert unsupported == (node["error"] == "UnsupportedError"), f"{name}: {node['reason']}, ours: {ours}"
    else:
        assert not isinstance(ours, Exception), f"{name}: ours refuses ({ours}), Node gives {node['value']}"
        assert ours == from_node(name, node["value"]), name


def compare(case: Json, theirs: dict[str, Json]) -> int:
    """Compares the steps; the number of those that both took."""
    ours = Ours().run(case)
    alone = {
        "caps": is_refused_by_us_alone(read_capabilities(case["caps"])),
        "params": is_refused_by_us_alone(read_parameters(case["params"])),
        "router": is_refused_by_us_alone(read_media_codecs(case["mediaCodecs"])),
    }
    for name, refused in alone.items():
        if refused:
            result = ours.get(name, ours.get("rawCaps") if name == "caps" else None)
            assert isinstance(result, Exception), (
                f"{name}: ours takes {case[name if name in case else 'mediaCodecs']}"
            )
    compared = 0
    for name, node in theirs.items():
        source = name.partition(".")[0]
        if _needs(name, alone) or (source == "caps" and "." in name and _lacks_payload_types(ours["caps"])):
            continue
        if name.endswith(".serialized") and isinstance(ours.get(name), InvalidArgumentError):
            assert _outgrows(ours[name.replace("serialized", "mapped")][1])
            continue  # Node cuts such numbers off
        assert name in ours, f"{name}: ours did not come so far; Node has {node}"
        check(name, ours[name], node)
        compared += 1
    return compared


def _needs(name: str, alone: dict[str, bool]) -> bool:
    """Whether the step needs something that ours alone refuses."""
    if name in alone:
        return alone[name]
    sources = {name.partition(".")[0], "params"}
    if "onsume" in name.partition(".")[2]:
        sources.add("caps")
    return any(alone[source] for source in sources)


def _lacks_payload_types(caps: Any) -> bool:
    """A router's capabilities always have them; Node's mapping would say undefined."""
    return isinstance(caps, Exception) or any(codec.preferred_payload_type is None for codec in caps.codecs)


def _outgrows(mapping: RtpMapping) -> bool:
    numbers = [n for codec in mapping.codecs for n in (codec.payload_type, codec.mapped_payload_type)]
    ssrcs = [encoding.ssrc or 0 for encoding in mapping.encodings]
    return any(not 0 <= n < 2**8 for n in numbers) or any(not 0 <= n < 2**32 for n in ssrcs)


@pytest.fixture(scope="module")
def node() -> Iterator[NodeOrtc]:
    with NodeOrtc() as running:
        yield running


SETTINGS: Final = settings(
    deadline=None,
    database=None,
    print_blob=True,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(300)
def test_ours_and_nodes_decide_alike(node: NodeOrtc) -> None:
    counts = {"cases": 0, "steps": 0, "consumers": 0, "refused": 0}

    @seed(SEED)
    @settings(SETTINGS, max_examples=CASES)
    @given(cases())
    def run(case: Json) -> None:
        theirs = node.run(case)
        counts["cases"] += 1
        counts["steps"] += compare(case, theirs)
        counts["consumers"] += "value" in theirs.get("router.consumer.true.false", {})
        counts["refused"] += "error" in theirs["params"] or "error" in theirs["caps"]

    print(f"MAFALDA_ORTC_SEED={SEED}")
    run()
    print(counts)
    # Else the cases have become too tame, or too broken, to prove anything.
    assert counts["cases"] >= 5_000
    assert counts["consumers"] > 200, counts
    assert counts["refused"] > 200, counts


@seed(SEED)
@settings(SETTINGS, max_examples=500)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "streamId": st.sampled_from([0, 5, 65_535, "1", None, 1.5]),
            "ordered": st.sampled_from([True, False, None, 1]),
            "maxPacketLifeTime": st.sampled_from([0, 1, 500, None, "1", False, 1.5]),
            "maxRetransmits": st.sampled_from([0, 1, 500, None, "1", False]),
        },
    )
)
def test_sctp_stream_parameters(node: NodeOrtc, params: Json) -> None:
    theirs = node.run({"kind": "audio", "mediaCodecs": [], "params": {}, "caps": {}, "sctp": params})["sctp"]
    ours: Any
    try:
        converted = msgspec.convert(read_sctp(params), SctpStreamParameters)
        ours = ortc.validate_sctp_stream_parameters(converted)
    except (MediasoupError, msgspec.ValidationError) as error:
        ours = error
    if is_refused_by_us_alone(read_sctp(params)):
        assert isinstance(ours, Exception)
    elif "error" in theirs:
        assert isinstance(ours, Exception), theirs["reason"]
    else:
        assert ours == msgspec.convert(read_sctp(theirs["value"]), SctpStreamParameters)
