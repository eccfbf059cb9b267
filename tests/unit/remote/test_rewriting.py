"""Listen infos: what becomes of an application's addresses and ports."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.remote.channel_data import (
    KEEP,
    POLICY,
    info,
    pipe,
    plain,
    webrtc,
    webrtc_server,
    webrtc_with_server,
)

from mediaserver.mediasoup._fbs import transport
from mediaserver.mediasoup._fbs.web_rtc_transport import ListenIndividual
from mediaserver.mediasoup.flatbuffer import Table
from mediaserver.remote.policy import TenantPolicy
from mediaserver.remote.rewriting import UnacceptableError, rewrite, rewrites

OURS = "10.1.0.5"
ANNOUNCED = "203.0.113.5"
RANGE = POLICY.client_ports


def server_infos(*infos: transport.ListenInfo, policy: TenantPolicy = POLICY) -> list[transport.ListenInfo]:
    body = webrtc_server("s", *infos)
    rewrite(policy, body)
    return body.listen_infos or []


def one(asked: transport.ListenInfo, policy: TenantPolicy = POLICY) -> transport.ListenInfo:
    (got,) = server_infos(asked, policy=policy)
    return got


@pytest.mark.parametrize(
    "ip", ["127.0.0.1", "0.0.0.0", "::", "::1", "192.0.2.7", "10.2.0.5", "::ffff:10.1.0.5"]
)
def test_a_foreign_address_becomes_ours_with_our_announced_one(ip: str) -> None:
    asked = info(ip, announced="198.51.100.1", expose=True, only6=True, reuse=True, send=1000, recv=2000)
    assert one(asked) == info(OURS, announced=ANNOUNCED, ports=RANGE, send=1000, recv=2000)
    nothing_announced = replace(POLICY, announced_address=None)
    assert one(asked, nothing_announced) == info(OURS, ports=RANGE, send=1000, recv=2000)


@pytest.mark.parametrize(
    ("announced", "expected"),
    [("media.example.org", "media.example.org"), (None, ANNOUNCED), ("", ANNOUNCED)],
)
def test_our_own_address_stays(announced: str | None, expected: str) -> None:
    asked = info(OURS, announced=announced, expose=True, only6=True, reuse=True)
    assert one(asked) == info(OURS, announced=expected, expose=True, only6=True, ports=RANGE)


def test_an_application_never_means_this_server_by_all_addresses() -> None:
    everywhere = replace(POLICY, client_host="0.0.0.0")
    asked = info("0.0.0.0", announced="198.51.100.1", expose=True)
    assert one(asked, everywhere) == info("0.0.0.0", announced=ANNOUNCED, ports=RANGE)


@pytest.mark.parametrize(
    ("port", "ports", "expected"),
    [
        (0, (0, 0), (0, RANGE)),
        (41_000, (0, 0), (41_000, (0, 0))),
        (41_999, (0, 0), (41_999, (0, 0))),
        (40_999, (0, 0), (0, RANGE)),
        (42_000, (0, 0), (0, RANGE)),
        (22, (0, 0), (0, RANGE)),
        (0, (41_500, 41_600), (0, (41_500, 41_600))),
        (0, RANGE, (0, RANGE)),
        (0, (40_000, 41_500), (0, RANGE)),
        (0, (41_500, 42_000), (0, RANGE)),
        (0, (2000, 3000), (0, RANGE)),
        (0, (1, 65_535), (0, RANGE)),
        # The worker goes by a range before it looks at a port.
        (41_100, (41_500, 41_600), (0, (41_500, 41_600))),
        (41_100, (2000, 3000), (0, RANGE)),
        (22, (41_500, 41_600), (0, (41_500, 41_600))),
        # And takes one with an open end for none.
        (41_100, (0, 50_000), (41_100, (0, 0))),
        (41_100, (50_000, 0), (41_100, (0, 0))),
        (22, (0, 41_500), (0, RANGE)),
    ],
)
def test_ports(port: int, ports: tuple[int, int], expected: tuple[int, tuple[int, int]]) -> None:
    for ip in ("127.0.0.1", OURS):
        got = one(info(ip, port=port, ports=ports))
        assert (got.port, (got.port_range.min, got.port_range.max)) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        info("localhost"),
        info("media.example.org"),
        info(""),
        info("123"),
        info("127.1"),
        info("10.1.0.5 "),
        info("0x7f.0.0.1"),
        info("10.1.0.5\0"),
        info("x" * 10_000),
        info(ports=(4000, 3000)),
        info(protocol=0),
        info(protocol=3),
    ],
    ids=lambda wrong: f"{wrong.ip[:20]!r} {wrong.port_range.min} {wrong.protocol}",
)
@pytest.mark.parametrize(
    "make",
    [
        lambda wrong: webrtc_server("s", info(), wrong),
        lambda wrong: webrtc("t", wrong),
        lambda wrong: plain("t", wrong),
        lambda wrong: plain("t", info(), wrong),
        lambda wrong: pipe("t", wrong),
    ],
    ids=["server", "webrtc", "rtp", "rtcp", "pipe"],
)
def test_what_the_worker_would_refuse_is_refused_with_its_error(
    make: object, wrong: transport.ListenInfo
) -> None:
    with pytest.raises(UnacceptableError) as caught:
        rewrite(POLICY, make(wrong))  # type: ignore[operator]
    assert caught.value.error == "TypeError"
    assert len(caught.value.reason) < 200


def test_infos_that_only_their_address_told_apart_are_one() -> None:
    got = server_infos(
        info("0.0.0.0"),
        info("0.0.0.0", protocol=2),
        info("::"),
        info("::", protocol=2),
        info("192.0.2.7", port=41_007),
        info("127.0.0.1", port=41_007),
        info("127.0.0.1", ports=(41_100, 41_200)),
    )
    assert got == [
        info(OURS, announced=ANNOUNCED, ports=RANGE),
        info(OURS, announced=ANNOUNCED, ports=RANGE, protocol=2),
        info(OURS, announced=ANNOUNCED, port=41_007),
        info(OURS, announced=ANNOUNCED, ports=(41_100, 41_200)),
    ]


def test_ports_that_were_asked_for_apart_stay_apart() -> None:
    got = server_infos(info("0.0.0.0", port=5000), info("::", port=5001), info("0.0.0.0"), info("0.0.0.0"))
    assert got == [info(OURS, announced=ANNOUNCED, ports=RANGE)] * 4


def test_of_two_that_became_one_the_one_that_names_us_counts() -> None:
    assert server_infos(info("0.0.0.0"), info(OURS, announced="a.example.org"), info("::1")) == [
        info(OURS, announced="a.example.org", ports=RANGE)
    ]
    assert server_infos(info(OURS, announced="a.example.org"), info("0.0.0.0")) == [
        info(OURS, announced="a.example.org", ports=RANGE)
    ]


@pytest.mark.parametrize("port", [41_007, 5000])
def test_a_port_asked_for_twice_is_refused_as_the_worker_would(port: int) -> None:
    with pytest.raises(UnacceptableError, match="asked twice") as caught:
        server_infos(info(port=port), info(port=port, announced="1.2.3.4"))
    assert caught.value.error == "Error"


def test_plain_transports_have_both_infos_put_right() -> None:
    body = plain("t", info("0.0.0.0", port=41_001), info("0.0.0.0", port=41_002))
    rewrite(POLICY, body)
    assert body.options.listen_info == info(OURS, announced=ANNOUNCED, port=41_001)
    assert body.options.rtcp_listen_info == info(OURS, announced=ANNOUNCED, port=41_002)
    muxed = plain("t", info("0.0.0.0"))
    rewrite(POLICY, muxed)
    assert muxed.options.rtcp_listen_info is None


@pytest.mark.parametrize("ip", ["127.0.0.1", "0.0.0.0", "10.1.0.5", "10.2.0.5"])
@pytest.mark.parametrize(
    ("port", "ports"), [(0, POLICY.pipe_ports), (42_001, (0, 0)), (41_001, POLICY.pipe_ports)]
)
def test_pipe_transports_get_the_pipe_address_unannounced(ip: str, port: int, ports: tuple[int, int]) -> None:
    body = pipe(
        "t", info(ip, announced="198.51.100.1", expose=True, reuse=True, only6=True, port=port, send=9)
    )
    rewrite(POLICY, body)
    kept = port if ports == (0, 0) else 0
    assert body.options.listen_info == info("10.2.0.5", port=kept, ports=ports, send=9)


@pytest.mark.parametrize("addresses", ["Rewrite", "RewritePipes"])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("ip", "automatic"),
    [("127.0.0.1", True), ("::1", True), ("0:0:0:0:0:0:0:1", True), ("0.0.0.0", False), ("10.2.0.5", False)],
)
def test_srtp_of_pipes(ip: str, automatic: bool, asked: bool, addresses: str) -> None:
    for setting, expected in (("Auto", automatic or asked), ("Never", asked)):
        body = pipe("t", info(ip), srtp=asked)
        rewrite(replace(POLICY, addresses=addresses, pipe_srtp=setting), body)  # type: ignore[arg-type]
        assert body.options.enable_srtp is expected


def test_which_requests_each_setting_changes() -> None:
    bodies: list[Table] = [webrtc_server("s", info()), webrtc("t"), plain("t"), pipe("t")]
    settings = {"Rewrite": [True] * 4, "RewritePipes": [False, False, False, True], "Keep": [False] * 4}
    for addresses, expected in settings.items():
        policy = replace(POLICY, addresses=addresses)  # type: ignore[arg-type]
        assert [rewrites(policy, type(body)) for body in bodies] == expected
    body = webrtc("t", info("8.8.8.8", port=22, reuse=True))
    for policy in (KEEP, replace(POLICY, addresses="RewritePipes")):
        rewrite(policy, body)
    assert body == webrtc("t", info("8.8.8.8", port=22, reuse=True))


def test_a_transport_of_a_webrtc_server_has_no_address() -> None:
    body = webrtc_with_server("t", "s")
    rewrite(POLICY, body)
    assert body == webrtc_with_server("t", "s")


IPS = st.one_of(
    st.sampled_from(["127.0.0.1", "0.0.0.0", "::", "::1", OURS, "10.2.0.5", "192.0.2.7"]),
    st.ip_addresses().map(str),
)
PORTS = st.one_of(st.just(0), st.integers(40_990, 42_110), st.integers(0, 65_535))
INFOS = st.builds(
    info,
    IPS,
    protocol=st.sampled_from([1, 2]),
    announced=st.one_of(st.none(), st.text(max_size=9)),
    expose=st.booleans(),
    port=PORTS,
    ports=st.tuples(PORTS, PORTS),
    reuse=st.booleans(),
    only6=st.booleans(),
    send=st.integers(0, 2**32 - 1),
    recv=st.integers(0, 2**32 - 1),
)


def check_ports(got: transport.ListenInfo, allowed: tuple[int, int]) -> None:
    """Whatever the worker looks at first."""
    first, last = allowed
    low, high = got.port_range.min, got.port_range.max
    if low or high:
        assert first <= low <= high <= last
        assert got.port == 0
    else:
        assert first <= got.port <= last


@given(st.lists(INFOS, min_size=1, max_size=6), st.sampled_from([ANNOUNCED, None]))
def test_no_infos_lead_out_of_the_policy(infos: list[transport.ListenInfo], announced: str | None) -> None:
    policy = replace(POLICY, announced_address=announced)
    body = webrtc("t", *infos)
    try:
        rewrite(policy, body)
    except UnacceptableError:
        return
    assert isinstance(body.options.listen, ListenIndividual)
    got = body.options.listen.listen_infos
    assert got == server_infos(*infos, policy=policy)
    assert {entry.protocol for entry in got} == {asked.protocol for asked in infos}
    for entry in got:
        assert entry.ip == OURS
        assert not entry.flags.udp_reuse_port
        check_ports(entry, RANGE)
        if entry.announced_address != announced or entry.expose_internal_ip:
            assert any(asked.ip == OURS for asked in infos)


@given(INFOS, INFOS)
def test_no_plain_or_pipe_transport_does(rtp: transport.ListenInfo, rtcp: transport.ListenInfo) -> None:
    try:
        body = plain("t", rtp, rtcp)
        rewrite(POLICY, body)
        piped = pipe("t", rtp)
        rewrite(POLICY, piped)
    except UnacceptableError:
        return
    assert body.options.rtcp_listen_info is not None
    for got in (body.options.listen_info, body.options.rtcp_listen_info):
        assert got.ip == OURS
        assert not got.flags.udp_reuse_port
        check_ports(got, RANGE)
    assert piped.options.listen_info.ip == "10.2.0.5"
    assert piped.options.listen_info.announced_address is None
    assert not piped.options.listen_info.expose_internal_ip
    assert not piped.options.listen_info.flags.udp_reuse_port
    check_ports(piped.options.listen_info, POLICY.pipe_ports)
