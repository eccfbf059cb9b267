"""Handshakes of whatever kind: read, or refused in one line."""

from __future__ import annotations

from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from mediaserver import shim
from mediaserver.gateway.errors import Refused
from mediaserver.gateway.worker_handshake import Handshake, one_line, read

GOOD = {
    "Host": "gateway",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "c2l4dGVlbiBieXRlcy4uIQ==",
    "Authorization": "Bearer t.o.k",
    shim.PROTOCOL_HEADER: "1",
    shim.VERSION_HEADER: "3.27.1",
}
VALUES = st.one_of(
    st.text(max_size=40),
    st.text("\r\n\x00\t a:", max_size=10),
    st.sampled_from(["websocket", "Upgrade", "keep-alive, Upgrade", "1", "13", "Bearer  x ", "x" * 9000]),
)
CHANGES = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([*GOOD, shim.TICKET_HEADER, shim.ZONE_HEADER]), st.text("Xx-", min_size=1)),
        st.one_of(st.none(), VALUES),
    ),
    max_size=4,
)


def test_a_handshake() -> None:
    found = read(make_mocked_request("GET", "/worker", GOOD))
    assert (found.token, found.ticket, found.version, found.zone) == ("t.o.k", "", "3.27.1", "")


def test_a_resume_needs_neither_token_nor_version() -> None:
    headers = {**GOOD, shim.TICKET_HEADER: "a.b.c"}
    del headers["Authorization"], headers[shim.VERSION_HEADER]
    found = read(make_mocked_request("GET", "/worker", headers))
    assert (found.token, found.ticket, found.version) == ("", "a.b.c", "")
    assert b"Authorization" not in found.forwarded("h:1")


def outcome(headers: CIMultiDict[str]) -> Handshake | Refused:
    try:
        return read(make_mocked_request("GET", "/worker", headers))
    except Refused as refused:
        return refused


@given(CHANGES, st.booleans())
@settings(deadline=None)
def test_garbage(changes: list[tuple[str, str | None]], twice: bool) -> None:
    headers = CIMultiDict(GOOD)
    for name, value in changes:
        if value is None:
            headers.pop(name, None)
        elif twice:
            headers.add(name, value)
        else:
            headers[name] = value
    found = outcome(headers)
    if isinstance(found, Refused):
        assert found.status in (400, 426)
        assert found.final
        line = one_line(found.text)
        assert line.isprintable()
        assert 10 < len(line) <= 600
        return
    head = found.forwarded("h:1").decode("ascii")
    assert head.endswith("\r\n\r\n")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    assert first == "GET /worker HTTP/1.1"
    assert all(line.isprintable() and line.partition(": ")[2] for line in lines)
    names = [line.partition(": ")[0] for line in lines]
    assert len(set(names)) == len(names) <= 10


@given(st.text())
@settings(deadline=None)
def test_one_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable() or not line
    assert len(line) <= 600


def test_what_is_forwarded() -> None:
    handshake = Handshake("t", "i", "3.1", "z", "k", "Bearer t")
    assert handshake.forwarded("h:1").decode().split("\r\n") == [
        "GET /worker HTTP/1.1",
        "Host: h:1",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: k",
        "Mafalda-Worker-Protocol: 1",
        "Authorization: Bearer t",
        "Mafalda-Worker-Version: 3.1",
        "Mafalda-Worker-Zone: z",
        "Mafalda-Worker-Ticket: i",
        "",
        "",
    ]
