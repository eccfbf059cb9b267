"""The API server is away, stands still, lies by omission, or is busy: running sessions never notice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from aiohttp import web
from integration.operator.api_proxy import ApiProxy, Fault, Match
from integration.operator.test_operator_faults import epoch_of
from integration.operator.world import World
from mafalda_operator.cli.local.cluster import LocalCluster

from mediaserver.control.fake import FakeMediaServer


class Closings:
    """Notes every router that an operator takes away from a server."""

    def __init__(self, world: World) -> None:
        self.keys: list[str] = []
        for server in world.servers.values():
            self._follow(server)

    def _follow(self, server: FakeMediaServer) -> None:
        original = server.set_desired

        def noting(entries: dict[str, object]) -> None:
            gone = server.desired.keys() - entries.keys()
            self.keys += [key for key in gone if key.startswith("router/")]
            original(entries)  # type: ignore[arg-type]

        server.set_desired = noting  # type: ignore[method-assign, assignment]


async def test_the_api_server_is_restarted(world: World, embedded_cluster: LocalCluster) -> None:
    await world.cluster_of(servers=3)
    await world.operator()
    await world.session("before", routers=3)
    await world.ready("before")
    closings, routers = Closings(world), await world.routers()
    applies = sum(server.connections["operator"] for server in world.servers.values())
    await asyncio.to_thread(embedded_cluster.stop_apiserver, grace=0)
    try:
        await asyncio.sleep(5)
        assert sum(server.connections["operator"] for server in world.servers.values()) == applies == 3
    finally:  # others use this API server too
        await asyncio.to_thread(embedded_cluster.start_apiserver)
    await world.session("after", routers=2)
    await world.ready("after", timeout=30)
    assert closings.keys == []
    assert (await world.routers()).items() >= routers.items()
    await world.consistent_all()


async def test_the_api_server_stands_still(world: World, embedded_cluster: LocalCluster) -> None:
    await world.cluster_of(servers=3)
    await world.operator()
    await world.session("before", routers=3)
    await world.ready("before")
    closings, epoch = Closings(world), await epoch_of(world)
    embedded_cluster.pause_apiserver()
    try:
        await asyncio.sleep(8)
        assert all(server.connections == {"operator": 1} for server in world.servers.values())
        assert "nothing is decided until that works" in world.operators[0].output
    finally:
        embedded_cluster.resume_apiserver()
    await world.session("after", routers=2)
    await world.ready("after", timeout=30)
    assert closings.keys == []
    assert await epoch_of(world) == epoch
    await world.consistent_all()


async def test_what_is_deleted_while_the_watch_is_down_is_noticed(
    world: World, proxy: ApiProxy, tmp_path: Path
) -> None:
    """The watch is cut, comes back with 410 Gone, and kopf lists anew: it never sees the deletion."""
    await world.cluster_of(servers=2)
    await world.operator(kubeconfig=proxy.write_kubeconfig(tmp_path / "proxied"))
    await world.session("kept")
    await world.session("deleted")
    await world.ready("kept", "deleted")
    watches = Fault(_watch_of("mediasessions"), status=410)

    async def cut() -> bool:
        return proxy.cut_watches("mediasessions") > 0

    proxy.fail(watches)
    await world.eventually(cut, "the watch was there")

    async def refused() -> bool:
        return watches.met > 0

    await world.eventually(refused, "the watch is refused")
    await world.delete_session("deleted")

    async def gone() -> bool:
        sessions = {session for session, _, _ in (await world.routers()).values()}
        return sessions == {"kept"} and {session for session, _, _ in world.hosted().values()} == {"kept"}

    proxy.mend(watches)
    await world.eventually(gone, "the deleted session's routers are gone", timeout=30)
    assert await world.is_ready("kept")


@pytest.mark.parametrize("when", ["at the start", "later"])
async def test_an_api_server_that_stalls_on_routers_only(
    world: World, proxy: ApiProxy, tmp_path: Path, when: str
) -> None:
    await world.cluster_of(servers=3)
    kubeconfig = proxy.write_kubeconfig(tmp_path / "proxied")
    first = await world.operator(kubeconfig=kubeconfig)
    await world.session("running", routers=3)
    await world.ready("running")
    closings = Closings(world)
    stall = Fault(lambda request: request.path.endswith("/mediarouters") and request.method == "GET")
    if when == "at the start":
        assert await first.end() == 0
        proxy.fail(stall)
        await world.operator(kubeconfig=kubeconfig, identity="second")
    else:
        proxy.fail(stall)
        proxy.cut_watches("mediarouters")
        proxy.cut_watches("mediasessions")
    await asyncio.sleep(4)
    assert closings.keys == []
    assert len(world.hosted()) == 3
    proxy.mend(stall)
    await world.session("after", routers=2)
    await world.ready("after", timeout=40)
    assert closings.keys == []
    await world.consistent_all()


async def test_a_busy_api_server_is_asked_again_as_it_wishes(
    world: World, proxy: ApiProxy, tmp_path: Path
) -> None:
    await world.cluster_of(servers=2)
    await world.operator(kubeconfig=proxy.write_kubeconfig(tmp_path / "proxied"))
    await world.connected()
    busy = Fault(_write_of("mediarouters"), status=429, retry_after=1, times=3)
    broken = Fault(_write_of("mediasessions"), status=500, times=3)
    proxy.fail(busy)
    proxy.fail(broken)
    started = time.monotonic()
    await world.session("standup")
    await world.ready("standup", timeout=30)
    assert time.monotonic() - started >= 1
    assert busy.met == 3
    assert broken.met == 3
    await world.consistent(2, sessions=1)


async def test_a_watch_that_is_always_refused_ends_nothing(
    world: World, proxy: ApiProxy, tmp_path: Path
) -> None:
    """429 on watches and lists of kopf's: the operator lives, and our own writes go on."""
    await world.cluster_of(servers=2)
    operator = await world.operator(kubeconfig=proxy.write_kubeconfig(tmp_path / "proxied"))
    await world.session("one")
    await world.ready("one")
    fault = proxy.fail(Fault(_watch_of("mediasessions"), status=429, retry_after=1))
    proxy.cut_watches("mediasessions")
    await asyncio.sleep(4)
    assert operator.process.returncode is None
    proxy.mend(fault)
    await world.session("two")
    await world.ready("two", timeout=40)


async def test_a_wrong_kubeconfig(world: World, tmp_path: Path) -> None:
    await world.cluster()
    operator = await world.operator(kubeconfig=tmp_path / "absent")
    assert await asyncio.wait_for(operator.process.wait(), 20) == 1
    assert "absent" in operator.output
    assert "--kubeconfig" in operator.output


@pytest.mark.parametrize(
    ("status", "remedy"), [(404, "kubectl apply -f crds/"), (403, "allow get, list and watch")]
)
async def test_missing_definitions_and_missing_rights(
    world: World, proxy: ApiProxy, tmp_path: Path, status: int, remedy: str
) -> None:
    proxy.fail(Fault(lambda request: "/apis/mafalda.io/" in request.path, status=status))
    operator = await world.operator(kubeconfig=proxy.write_kubeconfig(tmp_path / "proxied"))
    assert await asyncio.wait_for(operator.process.wait(), 40) == 1
    assert remedy in operator.output.splitlines()[-1]


async def test_a_missing_lease_namespace(world: World) -> None:
    await world.cluster()
    operator = await world.operator("--lease-namespace", f"{world.name}-absent")
    assert await asyncio.wait_for(operator.process.wait(), 20) == 1
    assert f"kubectl create namespace {world.name}-absent" in operator.output


async def test_an_api_server_that_comes_late(world: World, proxy: ApiProxy, tmp_path: Path) -> None:
    await world.cluster_of(servers=1)
    kubeconfig = proxy.write_kubeconfig(tmp_path / "proxied")
    fault = proxy.fail(Fault(lambda request: True, status=503))
    operator = await world.operator(kubeconfig=kubeconfig)

    async def waiting() -> bool:
        return "cannot list all kinds yet" in operator.output

    await world.eventually(waiting, "waiting for the API server")
    proxy.mend(fault)
    await world.session("standup", routers=1)
    await world.ready("standup")


def _watch_of(plural: str) -> Match:
    def match(request: web.BaseRequest) -> bool:
        return request.path.endswith(f"/{plural}") and "watch" in request.query

    return match


def _write_of(plural: str) -> Match:
    def match(request: web.BaseRequest) -> bool:
        return f"/{plural}" in request.path and request.method in ("POST", "PATCH")

    return match


async def test_a_token_that_rotates_is_read_anew(world: World, proxy: ApiProxy, tmp_path: Path) -> None:
    """As a pod's token does on its disk every hour; the old one is refused, also to watches."""
    token = tmp_path / "token"
    token.write_text("one\n")
    proxy.token = "one"
    await world.cluster_of(servers=2)
    kubeconfig = proxy.write_kubeconfig(tmp_path / "proxied", token_file=token)
    operator = await world.operator(kubeconfig=kubeconfig)
    await world.session("before")
    await world.ready("before")
    for current in ("two", "three"):
        proxy.token = current
        kinds = ("mediaclusters", "mediaservers", "mediasessions", "mediarouters", "namespaces")
        assert sum(proxy.cut_watches(kind) for kind in kinds) == 5
        if current == "three":
            await asyncio.sleep(3)  # so long nothing but the old token is there
        token.write_text(f"{current}\n")
        await world.session(current)
        await world.ready(current)
        started = time.monotonic()
        await world.delete_session(current)
        await world.consistent(2, sessions=1)
        print(f"a deletion is noticed after {time.monotonic() - started:.1f} s")
    assert operator.process.returncode is None
    assert await operator.end() == 0
