from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mediaserver.control.contract import Address, Load, TenantLoad, TenantOffer, WorkerLoad
from mediaserver.gateway.errors import Refused
from mediaserver.gateway.resources import ObjectKey
from mediaserver.gateway.worker_choice import (
    AVOID_SECONDS,
    Wish,
    WorkerPlacements,
    WorkerServer,
    choose,
    running,
)

NOW = 100.0
CLUSTER = ObjectKey("media", "main")
VERSION = "3.27.1"
WISH = Wish(cluster=CLUSTER, version=VERSION, token="t1")
HERE = Address(host="h", port=1)
OFFER = TenantOffer(versions=[VERSION], cores=4)


def load(
    workers: int = 0,
    free: int = 8,
    cpu: float = 0.0,
    *,
    sessions: Sequence[float] = (),
    by_token: dict[str, int] | None = None,
) -> Load:
    slots = [
        WorkerLoad(slot=slot, cpu=cpu, routers=0, producers=0, consumers=0)
        for slot, cpu in enumerate(sessions)
    ]
    tenants = TenantLoad(workers=workers, free=free, cpu=cpu, by_token=by_token or {})
    return Load(workers=slots, routers={}, peers=[], free_pipe_ports=0, tenants=tenants)


def server(
    name: str,
    told: Load | None = None,
    *,
    zone: str = "",
    leaving: bool = False,
    address: Address | None = HERE,
    offer: TenantOffer | None = OFFER,
    load_at: float = NOW - 0.5,
) -> WorkerServer:
    return WorkerServer(
        ObjectKey("media", name), zone, leaving, address, offer, told or load(), load_at=load_at
    )


def names(servers: Sequence[WorkerServer], wish: Wish = WISH, placed: WorkerPlacements | None = None) -> str:
    return " ".join(found.key.name for found in choose(wish, servers, placed or WorkerPlacements(), NOW))


def refused(servers: Sequence[WorkerServer], wish: Wish = WISH) -> Refused:
    with pytest.raises(Refused) as caught:
        choose(wish, servers, WorkerPlacements(), NOW)
    return caught.value


# -- order --------------------------------------------------------------------------------------------


def test_least_share_of_cpu_first() -> None:
    few = TenantOffer(versions=[VERSION], cores=2)
    servers = [
        server("a", load(cpu=1.0, sessions=(1.0, 0.5))),
        server("b", load(cpu=1.0), offer=few),
        server("c", load(cpu=1.0)),
        server("d", load(sessions=(0.8, 0.7))),
    ]
    assert names(servers) == "c d b a"


def test_shares_are_rounded_so_that_workers_decide() -> None:
    servers = [server("a", load(3, cpu=0.50)), server("b", load(2, cpu=0.55)), server("c", load(2, cpu=0.52))]
    assert names(servers) == "b c a"


def test_own_placements_spread_a_burst() -> None:
    placements = WorkerPlacements()
    servers = [server("a", load(1)), server("b"), server("c")]
    order = []
    for _ in range(7):
        best = choose(WISH, servers, placements, NOW)[0]
        placements.begin(best.key, "t1", NOW)
        order.append(best.key.name)
    assert order == ["b", "c", "a", "b", "c", "a", "b"]


def test_zone_before_load() -> None:
    servers = [server("a", load(cpu=3.9), zone="z"), server("b"), server("c", load(cpu=2.0), zone="z")]
    assert names(servers, Wish(CLUSTER, VERSION, "t1", zone="z")) == "c a b"
    assert names(servers, Wish(CLUSTER, VERSION, "t1", zone="y")) == "b c a"
    assert names(servers) == "b c a"


def test_who_did_not_take_one_comes_last_for_a_while() -> None:
    placements = WorkerPlacements()
    servers = [server("a"), server("b", load(5, cpu=3))]
    placements.failed(ObjectKey("media", "a"), NOW - AVOID_SECONDS + 0.1)
    assert names(servers, placed=placements) == "b a"
    placements.failed(ObjectKey("media", "a"), NOW - AVOID_SECONDS)
    assert names(servers, placed=placements) == "a b"


def test_room_that_may_have_been_taken_comes_last() -> None:
    """The server knows; its last word is older than what this gateway has brought there."""
    placements = WorkerPlacements()
    servers = [server("a", load(free=1)), server("b", load(7, free=1, cpu=3))]
    placement = placements.begin(ObjectKey("media", "a"), "t1", NOW)
    assert names(servers, placed=placements) == "b a"
    placements.end(placement)
    assert names(servers, placed=placements) == "a b"
    placements.begin(ObjectKey("media", "a"), "t1", NOW - 1)  # which the load shows
    assert names(servers, placed=placements) == "a b"


def test_what_is_connected_is_there_whatever_the_load_says() -> None:
    placements = WorkerPlacements()
    servers = [server("a", load(1)), server("b")]
    for _ in range(2):
        placements.begin(ObjectKey("media", "b"), "t1", NOW - 1)
    assert names(servers, placed=placements) == "a b"


# -- who is left out ----------------------------------------------------------------------------------

LACKING = {
    "full": server("full", load(8, free=0)),
    "without a worker of that version": server("v", offer=TenantOffer(versions=["3.20.0"], cores=4)),
    "not set up for it": server("t", offer=None),
    "without load figures": WorkerServer(ObjectKey("media", "f"), "", False, HERE, OFFER, None, 0.0),
    "not connected": server("away", address=None),
    "being deleted": server("leaving", leaving=True),
}


@pytest.mark.parametrize("why", LACKING)
def test_servers_that_lack_something(why: str) -> None:
    assert names([LACKING[why], server("b", load(7, free=1, cpu=4))]) == "b"
    error = refused([LACKING[why]])
    if "version" not in why:
        assert f"1 {why}" in error.text


@pytest.mark.parametrize("cores", [0, -1])
def test_a_server_without_cores_offers_nothing(cores: int) -> None:
    assert refused([server("a", offer=TenantOffer(versions=[VERSION], cores=cores))]).reason == "noServer"


def test_load_without_figures_of_tenants_is_none() -> None:
    empty = Load(workers=[], routers={}, peers=[], free_pipe_ports=0)
    assert "1 without load figures" in refused([server("a", empty)]).text


@pytest.mark.parametrize(
    ("lacks", "status", "reason", "final"),
    [
        (["full", "not connected"], 503, "full", True),
        (["full", "without a worker of that version"], 503, "full", True),
        (["without a worker of that version", "not connected"], 409, "noVersion", True),
        (["without a worker of that version", "without load figures"], 503, "noServer", False),
        (["not connected"], 503, "noServer", False),
        (["not set up for it"], 503, "noServer", True),
        (["not set up for it", "not connected"], 503, "noServer", False),
        (["being deleted"], 503, "noServer", True),
        ([], 503, "noServer", True),
    ],
)
def test_how_a_refusal_is_told(lacks: list[str], status: int, reason: str, final: bool) -> None:
    error = refused([LACKING[lack] for lack in lacks])
    assert (error.status, error.reason, error.final) == (status, reason, final)


def test_a_pinned_server_is_the_only_one() -> None:
    servers = [server("a", load(cpu=4)), server("b")]
    for pin in ("a", "media/a"):
        assert names(servers, Wish(CLUSTER, VERSION, "t1", server=pin)) == "a"
    for pin in ("other/a", "A", ""):
        assert refused(servers, Wish(CLUSTER, VERSION, "t1", server=pin)).reason == "noSuchServer"


# -- bounds -------------------------------------------------------------------------------------------


def test_workers_of_a_token_are_counted_once() -> None:
    placements = WorkerPlacements()
    here, there = ObjectKey("media", "a"), ObjectKey("media", "b")
    servers = [server("a", load(by_token={"t1": 2, "t2": 9})), server("b", address=None)]
    assert running("t1", servers, placements) == 2
    for at in (NOW - 2, NOW - 1):  # told of by the load
        placements.begin(here, "t1", at)
    assert running("t1", servers, placements) == 2
    new = placements.begin(here, "t1", NOW)
    assert running("t1", servers, placements) == 3
    placements.begin(there, "t1", NOW)
    assert running("t1", servers, placements) == 4
    placements.begin(here, "t2", NOW)
    assert running("t1", servers, placements) == 4
    placements.end(new)
    assert running("t1", servers, placements) == 3


@pytest.mark.parametrize(("bound", "admitted"), [(None, True), (4, True), (3, False), (1, False)])
def test_the_tokens_bound(bound: int | None, admitted: bool) -> None:
    servers = [server("a", load(by_token={"t1": 2})), server("b", load(by_token={"t1": 1}))]
    wish = Wish(CLUSTER, VERSION, "t1", bound=bound)
    if admitted:
        assert names(servers, wish)
        return
    error = refused(servers, wish)
    assert (error.status, error.reason, error.final) == (403, "workersBound", True)
    assert "and 3 run" in error.text


# -- whatever there is --------------------------------------------------------------------------------

KEYS = st.sampled_from("abcdef")
SERVERS = st.lists(
    st.builds(
        server,
        KEYS,
        st.builds(
            load,
            st.integers(0, 9),
            st.integers(-1, 3),
            st.floats(0, 5),
            sessions=st.lists(st.floats(0, 1), max_size=4),
            by_token=st.dictionaries(st.sampled_from(["t1", "t2"]), st.integers(0, 5)),
        ),
        zone=st.sampled_from(["", "x", "y"]),
        leaving=st.sampled_from([False, False, True]),
        address=st.sampled_from([HERE, HERE, None]),
        offer=st.sampled_from([OFFER, OFFER, None, TenantOffer(versions=["3.20.0"], cores=1)]),
        load_at=st.floats(NOW - 3, NOW),
    ),
    max_size=6,
    unique_by=lambda found: found.key,
)
WISHES = st.builds(
    Wish,
    st.just(CLUSTER),
    st.sampled_from([VERSION, "3.20.0", "1.0"]),
    st.sampled_from(["t1", "t2"]),
    st.sampled_from(["", "x"]),
    st.sampled_from([None, None, "a", "media/b"]),
    st.sampled_from([None, 1, 5, 20]),
)
DEEDS = st.lists(st.tuples(KEYS, st.sampled_from(["t1", "t2"]), st.floats(0, 3)), max_size=10)


def placed(deeds: list[tuple[str, str, float]]) -> WorkerPlacements:
    placements = WorkerPlacements()
    for name, token, ago in sorted(deeds, key=lambda deed: -deed[2]):
        placements.begin(ObjectKey("media", name), token, NOW - ago)
    return placements


def outcome(
    wish: Wish, servers: list[WorkerServer], placements: WorkerPlacements
) -> list[WorkerServer] | Refused:
    try:
        return choose(wish, servers, placements, NOW)
    except Refused as refused:
        return refused


@given(WISHES, SERVERS, DEEDS)
@settings(deadline=None)
def test_only_servers_that_can_run_it_are_chosen(
    wish: Wish, servers: list[WorkerServer], deeds: list[tuple[str, str, float]]
) -> None:
    placements = placed(deeds)
    chosen = outcome(wish, servers, placements)
    if isinstance(chosen, Refused):
        assert chosen.status in (403, 409, 503)
        assert chosen.text.isprintable()
        return
    assert chosen
    assert len({found.key for found in chosen}) == len(chosen)
    for found in chosen:
        assert found in servers
        assert found.address is not None
        assert not found.leaving
        assert found.offer is not None
        assert wish.version in found.offer.versions
        assert found.load is not None
        assert found.load.tenants is not None
        assert found.load.tenants.free > 0
        assert wish.server is None or found.key.name == wish.server[-1]
    assert wish.bound is None or running(wish.token, servers, placements) < wish.bound


@given(WISHES, SERVERS, DEEDS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_the_order_of_the_servers_does_not_matter(
    wish: Wish, servers: list[WorkerServer], deeds: list[tuple[str, str, float]], random: Random
) -> None:
    expected, shuffled = outcome(wish, servers, placed(deeds)), list(servers)
    random.shuffle(shuffled)
    found = outcome(wish, shuffled, placed(deeds))
    if isinstance(expected, Refused):
        assert isinstance(found, Refused)
        assert (found.status, found.text, found.final) == (expected.status, expected.text, expected.final)
    else:
        assert found == expected


@given(SERVERS, st.integers(1, 40), st.integers(1, 12))
@settings(deadline=None)
def test_a_burst_never_passes_the_bound(servers: list[WorkerServer], dials: int, bound: int) -> None:
    """Before any report comes."""
    placements = WorkerPlacements()
    wish = Wish(CLUSTER, VERSION, "t1", bound=bound)
    before = running("t1", servers, placements)
    begun = 0
    for _ in range(dials):
        try:
            best = choose(wish, servers, placements, NOW)[0]
        except Refused:
            break
        placements.begin(best.key, "t1", NOW)
        begun += 1
    assert begun == 0 or before + begun <= bound
    assert running("t1", servers, placements) == before + begun


@given(DEEDS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_placements_end_without_a_trace(deeds: list[tuple[str, str, float]], random: Random) -> None:
    placements = WorkerPlacements()
    begun = [placements.begin(ObjectKey("media", name), token, NOW - ago) for name, token, ago in deeds]
    random.shuffle(begun)
    for placement in begun:
        placements.end(placement)
    assert not placements._by_server
    assert not placements._by_token
