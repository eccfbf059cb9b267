"""mafalda-worker's protocol: records, frames, settings."""

from __future__ import annotations

import ast
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mediaserver import shim

GOOD = {"MEDIASOUP_VERSION": "3.27.1", "MAFALDA_URL": "wss://media.example.com", "MAFALDA_TOKEN": "a.b.c"}


def test_it_is_one_file_of_the_standard_library_that_python_3_9_can_read() -> None:
    tree = ast.parse(Path(shim.__file__).read_text(), feature_version=(3, 9))
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    import sys

    assert imported <= sys.stdlib_module_names


# -- records ------------------------------------------------------------------------------------------------


def test_records_come_once_and_in_order() -> None:
    one, other = shim.Stream(), shim.Stream()
    first, second = one.send(shim.REQUESTS, b"a"), one.send(shim.REQUESTS, b"b")
    assert other.receive(first) == (shim.REQUESTS, b"a")
    assert other.receive(first) is None
    assert other.receive(second) == (shim.REQUESTS, b"b")
    assert one.receive(other.heartbeat()) is None
    assert one.waiting == 0


def test_a_gap_and_a_false_acknowledgement_are_told() -> None:
    one, other = shim.Stream(), shim.Stream()
    one.send(shim.REQUESTS, b"a")
    with pytest.raises(shim.TunnelError, match="record 2 follows on 0"):
        other.receive(one.send(shim.REQUESTS, b"b"))
    with pytest.raises(shim.TunnelError, match="record 7 is acknowledged, 0 were sent"):
        other.receive(struct.pack("<BQQ", shim.HEARTBEAT, 0, 7))
    with pytest.raises(shim.TunnelError, match="kind 9"):
        other.receive(struct.pack("<BQQ", 9, 1, 0))
    with pytest.raises(shim.TunnelError, match="3 bytes"):
        other.receive(b"abc")


def test_what_was_acknowledged_cannot_be_had_again() -> None:
    one, other = shim.Stream(), shim.Stream()
    other.receive(one.send(shim.REQUESTS, b"a"))
    one.receive(other.heartbeat())
    with pytest.raises(shim.TunnelError, match="were acknowledged"):
        one.resume(0)
    with pytest.raises(shim.TunnelError, match="1 were sent"):
        one.resume(2)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("AB"), st.binary(max_size=8)),
            st.just("cut"),
        ),
        max_size=40,
    ),
    st.data(),
)
def test_nothing_is_lost_repeated_or_reordered_wherever_the_connection_is_cut(
    steps: list[object], data: st.DataObject
) -> None:
    """Two streams over a connection that loses what is under way whenever it is cut."""
    sides = {"A": shim.Stream(), "B": shim.Stream()}
    others = {"A": "B", "B": "A"}
    sent: dict[str, list[bytes]] = {"A": [], "B": []}
    taken: dict[str, list[bytes]] = {"A": [], "B": []}
    under_way: dict[str, list[bytes]] = {"A": [], "B": []}

    def deliver(side: str, most: int) -> None:
        for record in under_way[side][:most]:
            found = sides[others[side]].receive(record)
            if found is not None:
                taken[others[side]].append(found.payload)
        del under_way[side][:most]

    def reconnect() -> None:
        for side in "AB":
            under_way[side] = sides[side].resume(sides[others[side]].received)

    for step in steps:
        if step == "cut":
            for side in "AB":
                deliver(side, data.draw(st.integers(0, len(under_way[side]))))
            reconnect()
        else:
            side, payload = step  # type: ignore[misc]
            sent[side].append(payload)
            under_way[side].append(sides[side].send(shim.REQUESTS, payload))
    reconnect()
    for side in "AB":
        deliver(side, len(under_way[side]))
    assert taken["B"] == sent["A"]
    assert taken["A"] == sent["B"]


# -- frames -------------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([shim.TEXT, shim.BINARY]), st.binary(max_size=300)), max_size=6),
    st.lists(st.integers(1, 50), max_size=60),
    st.booleans(),
)
def test_frames_come_through_however_they_are_cut(
    messages: list[tuple[int, bytes]], cuts: list[int], from_client: bool
) -> None:
    sender, receiver = shim.Frames(client=from_client), shim.Frames(client=not from_client)
    stream = b"".join(sender.encode(opcode, payload) for opcode, payload in messages)
    found: list[tuple[int, bytes]] = []
    for cut in cuts:
        found += receiver.feed(stream[:cut])
        stream = stream[cut:]
    found += receiver.feed(stream)
    assert found == messages


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536, shim.CHUNK])
def test_frames_of_every_length_code(size: int) -> None:
    frame = shim.Frames(client=True).encode(shim.BINARY, bytes(size))
    assert shim.Frames(client=False).feed(frame) == [(shim.BINARY, bytes(size))]


def test_a_message_in_several_frames_with_a_ping_between_them() -> None:
    server = shim.Frames(client=True)
    stream = b"\x02\x01a" + b"\x89\x00" + b"\x00\x01b" + b"\x80\x01c"
    assert server.feed(stream) == [(shim.PING, b""), (shim.BINARY, b"abc")]


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (b"\xc2\x00", "extension"),
        (b"\x83\x00", "opcode 3"),
        (b"\x82\x80abcd", "masked by the wrong side"),
        (b"\x89\x7e\x00\x80", "control frame"),
        (b"\x09\x00", "control frame"),
        (b"\x82\x7f" + (1 << 40).to_bytes(8, "big"), "more than"),
        (b"\x80\x00", "goes on without a beginning"),
        (b"\x02\x01a\x82\x01b", "begins within another"),
    ],
)
def test_frames_that_nobody_may_send(frame: bytes, what: str) -> None:
    with pytest.raises(shim.TunnelError, match=what):
        shim.Frames(client=True).feed(frame)


@given(st.lists(st.binary(max_size=64), max_size=20), st.booleans())
def test_garbage_is_refused_and_nothing_else_happens(chunks: list[bytes], client: bool) -> None:
    frames = shim.Frames(client=client)
    try:
        for chunk in chunks:
            frames.feed(chunk)
    except shim.TunnelError:
        return


# -- settings -----------------------------------------------------------------------------------------------


def test_settings_of_an_environment() -> None:
    settings = shim.read_settings(
        {**GOOD, "MAFALDA_URL": "wss://media.example.com/sfu/"}, ["--logLevel=warn"]
    )
    assert (settings.secure, settings.host, settings.port) == (True, "media.example.com", 443)
    assert settings.path == "/sfu/worker"
    assert settings.arguments == ["--logLevel=warn"]
    assert shim.read_settings({**GOOD, "MAFALDA_URL": "ws://[::1]:8080"}, []).host == "::1"


@pytest.mark.parametrize(
    ("changes", "code", "what"),
    [
        ({"MEDIASOUP_VERSION": ""}, 41, "MEDIASOUP_VERSION is not set"),
        ({"MAFALDA_URL": ""}, 42, "MAFALDA_URL is ''"),
        ({"MAFALDA_URL": "ftp://x"}, 42, "MAFALDA_URL"),
        ({"MAFALDA_URL": "wss://host:99999"}, 42, "is no HOST or HOST:PORT"),
        ({"MAFALDA_TOKEN": ""}, 42, "MAFALDA_TOKEN is not set: make one"),
        ({"MAFALDA_TOKEN": "a b"}, 42, "MAFALDA_TOKEN is no token"),
        ({"MAFALDA_TOKEN": "", "MAFALDA_TOKEN_FILE": "/nowhere"}, 42, "MAFALDA_TOKEN_FILE /nowhere"),
        ({"MAFALDA_ZONE": "a\nb"}, 42, "MAFALDA_ZONE"),
        ({"MAFALDA_CONNECT_TIMEOUT": "soon"}, 42, "MAFALDA_CONNECT_TIMEOUT"),
    ],
)
def test_wrong_settings_name_the_variable_and_end_with_mediasoups_code(
    changes: dict[str, str], code: int, what: str
) -> None:
    with pytest.raises(shim.Failure, match=what) as caught:
        shim.read_settings({**GOOD, **changes}, [])
    assert caught.value.code == code


def test_a_token_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a.b.c\n")
    environment = {**GOOD, "MAFALDA_TOKEN": "", "MAFALDA_TOKEN_FILE": str(tmp_path / "token")}
    assert shim.read_settings(environment, []).token == "a.b.c"


def test_files_of_this_host_travel_by_their_contents(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_bytes(b"PEM")
    settings = shim.read_settings(GOOD, [f"--dtlsCertificateFile={tmp_path}/cert.pem", "--logTag=info"])
    assert settings.arguments == ["--logTag=info"]
    assert settings.files == {"dtlsCertificateFile": "UEVN"}
    with pytest.raises(shim.Failure, match="dtlsPrivateKeyFile /none cannot be read"):
        shim.read_settings(GOOD, ["--dtlsPrivateKeyFile=/none"])


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "proxy:3128"),
        ({"HTTPS_PROXY": "http://u:p@proxy:3128/", "NO_PROXY": "other"}, "u:p@proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": ".example.com"}, ""),
        ({"ALL_PROXY": "proxy:1"}, "proxy:1"),
    ],
)
def test_the_proxy_is_that_which_curl_would_take(environment: dict[str, str], proxy: str) -> None:
    assert shim.read_settings({**GOOD, **environment}, []).proxy == proxy
