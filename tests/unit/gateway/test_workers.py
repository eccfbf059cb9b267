"""Applications' dials at the gateway: who gets a worker, where, and how everybody else is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
import structlog
from doubles.workers import refusal
from unit.gateway.worker_world import (
    OTHER_KEY,
    TOKEN_KEY,
    VERSION,
    Refusal,
    Tunnel,
    WorkerWorld,
    quick_loads,
)

from mediaserver import shim
from mediaserver.control.contract import TenantLoad
from mediaserver.gateway import keys as keys_module
from mediaserver.gateway import worker_upstream
from mediaserver.gateway.worker_finding import WorkerLimits
from mediaserver.gateway.worker_handshake import Handshake
from mediaserver.wire.tokens import ParticipantClaims
from mediaserver.wire.tokens import mint as mint_participant

FULL = TenantLoad(workers=8, free=0, cpu=0.0)


@pytest.fixture
def limits() -> WorkerLimits:
    return WorkerLimits(links_wait=0.3)


@pytest.fixture
async def world(limits: WorkerLimits, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WorkerWorld]:
    quick_loads(monkeypatch)
    monkeypatch.setattr(worker_upstream, "DIAL_SECONDS", 0.5)
    monkeypatch.setattr(keys_module, "PATIENCE_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        made = WorkerWorld(stack, limits)
        await made.start()
        yield made


@pytest.fixture
async def one(world: WorkerWorld) -> WorkerWorld:
    await world.add_servers(1)
    return world


@pytest.fixture
async def three(world: WorkerWorld) -> WorkerWorld:
    await world.add_servers(3)
    return world


# -- the way through ----------------------------------------------------------------------------------


async def test_an_application_comes_through(one: WorkerWorld) -> None:
    token = one.token()
    tunnel, _ = await one.carried(
        Authorization=f"Bearer {token}", Mafalda_Worker_Zone="a", X_Other="x", Sec_WebSocket_Protocol="p"
    )
    for size in (1, 1000, 100_000):
        assert await tunnel.echoed(bytes(size)) == bytes(size)
    dial = await one.workers[0].dial()
    assert dial.request == "GET /worker HTTP/1.1"
    address = one.workers[0].address
    assert sorted(dial.headers) == sorted(
        one.headers(
            Host=f"{address.host}:{address.port}",
            Authorization=f"Bearer {token}",
            Mafalda_Worker_Zone="a",
        ).items()
    )


async def test_the_shim_itself_dials(one: WorkerWorld) -> None:
    """Its own handshake is good, and its own check of the acceptance holds."""
    host, port = "127.0.0.1", one.gateway.address.port
    environment = {
        "MEDIASOUP_VERSION": VERSION,
        "MAFALDA_URL": f"ws://{host}:{port}",
        "MAFALDA_TOKEN": one.token(),
    }
    settings = shim.read_settings(environment, [])
    welcome = {"worker": "w", "ticket": "t", "received": 0}
    welcome |= {"heartbeat": 1, "silence": 3, "resume": 30, "buffer": 1024}
    one.workers[0].reading.clear()  # an echo is nothing that it understands
    one.workers[0].beside = shim.Frames(client=False).encode(shim.TEXT, msgspec.json.encode(welcome))
    link = await asyncio.to_thread(shim.dial, settings, {"pid": 1, "arguments": [], "files": {}})
    assert link.welcome["worker"] == "w"
    link.socket.close()


async def test_what_comes_with_the_acceptance_belongs_to_the_stream(one: WorkerWorld) -> None:
    one.workers[0].beside = b"first" * 1000
    tunnel = await one.dial()
    assert isinstance(tunnel, Tunnel)
    assert await tunnel.reader.readexactly(5000) == b"first" * 1000
    assert await tunnel.echoed(b"x") == b"x"


async def test_many_at_a_time(three: WorkerWorld) -> None:
    tunnels = await asyncio.gather(*(three.opened() for _ in range(20)))
    assert await asyncio.gather(*(tunnel.echoed(b"y" * 10_000) for tunnel in tunnels)) == [b"y" * 10_000] * 20
    assert sorted(len(workers.dials) for workers in three.workers) == [6, 7, 7]


async def test_an_application_that_goes(one: WorkerWorld) -> None:
    tunnel, _ = await one.carried()
    tunnel.close()
    dial = await one.workers[0].dial()
    await asyncio.wait_for(dial.ended.wait(), 5)


async def test_an_application_that_vanishes(one: WorkerWorld) -> None:
    tunnel, _ = await one.carried()
    tunnel.writer.transport.abort()
    dial = await one.workers[0].dial()
    await asyncio.wait_for(dial.ended.wait(), 5)


async def test_an_application_that_closes_half(one: WorkerWorld) -> None:
    tunnel, _ = await one.carried()
    tunnel.writer.write_eof()
    await tunnel.ended()
    dial = await one.workers[0].dial()
    await asyncio.wait_for(dial.ended.wait(), 5)


async def test_a_server_that_dies(one: WorkerWorld) -> None:
    tunnel, _ = await one.carried()
    await one.workers[0].stop()
    await tunnel.ended()


async def test_an_application_that_goes_before_the_answer(one: WorkerWorld) -> None:
    one.workers[0].hang = True
    _, writer = await asyncio.open_connection("127.0.0.1", one.gateway.address.port)
    lines = ["GET /worker HTTP/1.1", *(f"{name}: {value}" for name, value in one.headers().items())]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    dial = await one.workers[0].dial()
    writer.transport.abort()
    await asyncio.wait_for(dial.ended.wait(), 5)
    one.workers[0].hang = False
    await one.carried()


async def test_nothing_is_left_behind(one: WorkerWorld) -> None:
    """Neither in aiohttp nor in the gateway."""
    for _ in range(3):
        tunnel, _ = await one.carried()
        tunnel.close()
    async with asyncio.timeout(5):
        while "mafalda_gateway_worker_tunnels 0.0" not in await one.metrics():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    door = one.gateway._worker_door
    assert door is not None
    await asyncio.wait_for(door._idle.wait(), 5)
    assert not door._relays
    assert not door._finder._placements._by_server
    assert not door._finder._placements._by_token
    text = await one.metrics()
    assert 'mafalda_gateway_worker_dials_total{outcome="started"} 3.0' in text
    assert 'mafalda_gateway_worker_endings_total{by="application"} 3.0' in text
    assert "mafalda_gateway_worker_admission_seconds_count 3.0" in text


async def test_a_lost_link_leaves_connections_alone(one: WorkerWorld) -> None:
    tunnel, _ = await one.carried()
    await one.servers[0].kill()
    links = one.gateway.links
    await one.until(lambda: not any(link.hello for link in links.all()))
    assert await tunnel.echoed(b"still there") == b"still there"


async def test_the_gateway_stops(one: WorkerWorld) -> None:
    tunnel, _ = await one.carried()
    begin = time.monotonic()
    await one.gateway.close()
    await tunnel.ended()
    assert time.monotonic() - begin < 3
    await asyncio.wait_for((await one.workers[0].dial()).ended.wait(), 5)


async def test_the_gateway_stops_while_an_application_does_not_read(one: WorkerWorld) -> None:
    tunnel, _ = await one.carried()
    tunnel.reader._transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(200):
        tunnel.writer.write(bytes(65536))
    dial = await one.workers[0].dial()
    async with asyncio.timeout(5):
        while dial.received < 1_000_000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    begin = time.monotonic()
    await one.gateway.close()
    assert time.monotonic() - begin < 3
    await asyncio.wait_for(dial.ended.wait(), 5)


# -- who is no mafalda-worker -------------------------------------------------------------------------


async def test_a_browser_is_told_what_this_is(one: WorkerWorld) -> None:
    async with one.http.get(f"http://{one.gateway.address}/worker") as answer:
        assert answer.status == 426
        assert answer.headers["Upgrade"] == "websocket"
        assert "mafalda-worker" in await answer.text()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
async def test_other_methods(one: WorkerWorld, method: str) -> None:
    answer = await one.dial(method=method)
    assert isinstance(answer, Refusal)
    assert answer.status in (400, 405)
    assert not one.workers[0].dials


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"Upgrade": None}, 426, "mafalda-worker"),
        ({"Upgrade": "h2c"}, 426, "mafalda-worker"),
        ({"Connection": "keep-alive"}, 426, "mafalda-worker"),
        ({"Sec_WebSocket_Version": "8"}, 426, "Sec-WebSocket-Version must be 13"),
        ({"Sec_WebSocket_Key": "short"}, 426, "Sec-WebSocket-Key"),
        ({"Mafalda_Worker_Protocol": "2"}, 400, "this gateway speaks 1"),
        ({"Mafalda_Worker_Protocol": None}, 400, "this gateway speaks 1"),
        ({"Mafalda_Worker_Protocol": "1" * 1000}, 400, "this gateway speaks 1"),
        ({"Mafalda_Worker_Version": None}, 400, "MEDIASOUP_VERSION"),
        ({"Mafalda_Worker_Version": ""}, 400, "MEDIASOUP_VERSION"),
        ({"Mafalda_Worker_Version": "../../x"}, 400, "MEDIASOUP_VERSION"),
        ({"Mafalda_Worker_Version": "3" * 65}, 400, "MEDIASOUP_VERSION"),
        ({"Mafalda_Worker_Zone": "z" * 64}, 400, "MAFALDA_ZONE"),
        ({"Mafalda_Worker_Zone": "ä"}, 400, "Mafalda-Worker-Zone"),
        ({"Authorization": "Bearer ä"}, 400, "Authorization"),
        ({"Content_Length": "5"}, 400, "body"),
        ({"Authorization": None}, 401, "MAFALDA_TOKEN"),
        ({"Authorization": "Basic YTpi"}, 401, "MAFALDA_TOKEN"),
        ({"Authorization": "Bearer"}, 401, "MAFALDA_TOKEN"),
        ({"Authorization": "Bearer x"}, 401, "the token is refused (malformed): the token cannot be read"),
    ],
)
async def test_handshakes_that_are_none(
    one: WorkerWorld, headers: dict[str, str | None], status: int, text: str
) -> None:
    answer = await one.refused(**headers)
    assert (answer.status, answer.final) == (status, True)
    assert text in answer.text
    assert not one.workers[0].dials


@pytest.mark.parametrize("name", ["Authorization", shim.TICKET_HEADER, shim.PROTOCOL_HEADER])
async def test_a_header_twice(one: WorkerWorld, name: str) -> None:
    lines = ["GET /worker HTTP/1.1", *(f"{key}: {value}" for key, value in one.headers().items())]
    lines += [f"{name}: x", f"{name}: y"]
    answer = await one.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert isinstance(answer, Refusal)
    assert answer.status == 400
    assert name in answer.text or "Duplicate" in answer.text


async def test_headers_too_large(one: WorkerWorld) -> None:
    for value in ("x" * 8000, "x" * 9000, "x" * 100_000):
        answer = await one.dial(Authorization=f"Bearer {value}")
        assert isinstance(answer, Refusal)
        assert answer.status in (400, 401)
        assert len(answer.text) < 9000
    assert not one.workers[0].dials


async def test_an_old_http(one: WorkerWorld) -> None:
    lines = ["GET /worker HTTP/1.0", *(f"{key}: {value}" for key, value in one.headers().items())]
    answer = await one.send(("\r\n".join(lines) + "\r\n\r\n").encode())
    assert isinstance(answer, Refusal)
    assert answer.status == 426


# -- tokens -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "text"),
    [
        ({"exp": time.time() - 60}, "expired"),
        ({"nbf": time.time() + 3600}, "is valid in"),
        ({"iss": "elsewhere"}, "'elsewhere' is no MediaCluster"),
        ({"key": OTHER_KEY}, "signature"),
        ({"kid": "k9"}, "no token key 'k9'"),
    ],
)
async def test_tokens_that_do_not_hold(one: WorkerWorld, claims: dict[str, Any], text: str) -> None:
    answer = await one.refused(Authorization=f"Bearer {one.token(**claims)}")
    assert (answer.status, answer.final) == (401, True)
    assert text in answer.text
    assert not one.workers[0].dials


async def test_a_participants_token(one: WorkerWorld) -> None:
    now = time.time()
    claims = ParticipantClaims(iss="main", sub="a", session="a/b", exp=now + 60, nbf=now, jti="1")
    answer = await one.refused(Authorization=f"Bearer {mint_participant(claims, 'w1', TOKEN_KEY)}")
    assert answer.status == 401
    assert "'mafalda/session', not 'mafalda/worker'" in answer.text


@pytest.mark.parametrize("listed", [b"t1", b"a\nt1\n", b"a, t1,b", b"a t1"])
async def test_a_revoked_token(one: WorkerWorld, listed: bytes) -> None:
    one.api.secrets["media/worker-keys"] = {"w1": TOKEN_KEY, "revoked": listed}
    answer = await one.refused()
    assert answer.status == 401
    assert "revoked" in answer.text
    await one.carried(Authorization=f"Bearer {one.token(jti='t2')}")


async def test_the_list_of_revoked_tokens_is_no_key(one: WorkerWorld) -> None:
    one.api.secrets["media/worker-keys"] = {"w1": TOKEN_KEY, "revoked": OTHER_KEY}
    answer = await one.refused(Authorization=f"Bearer {one.token(kid='revoked', key=OTHER_KEY)}")
    assert "no token key 'revoked'" in answer.text


async def test_key_sets_that_admit_no_workers(one: WorkerWorld) -> None:
    one.put_cluster("media", "main", workers=False)
    cluster = next(iter(one.gateway.directory.clusters.values()))
    await one.until(
        lambda: next(iter(one.gateway.directory.clusters.values())) is not cluster,
    )
    answer = await one.refused()
    assert (answer.status, answer.final) == (401, True)
    assert "has no key set with workers: true" in answer.text


async def test_keys_that_cannot_be_read(one: WorkerWorld) -> None:
    one.api.down = True
    answer = await one.refused()
    assert (answer.status, answer.final) == (503, False)
    assert "token keys" in answer.text


async def test_known_keys_last_without_the_api(one: WorkerWorld) -> None:
    await one.carried()
    one.api.down = True
    one.api.end_watches()
    await one.carried()
    assert (await one.refused(Authorization=f"Bearer {one.token(kid='k9')}")).status == 401


@pytest.mark.parametrize("issuer", ["uid-main", "media/main", "main"])
async def test_names_of_a_cluster(one: WorkerWorld, issuer: str) -> None:
    await one.carried(Authorization=f"Bearer {one.token(iss=issuer)}")


async def test_two_clusters_of_a_name(one: WorkerWorld) -> None:
    """Whichever keys fit."""
    one.put_cluster("another", "main", uid="uid-2")
    one.put_cluster("zzz", "main", uid="uid-3")
    one.api.secrets["another/worker-keys"] = {"w1": OTHER_KEY}
    one.api.secrets["zzz/worker-keys"] = {"z1": OTHER_KEY}
    await one.until(lambda: len(one.gateway.directory.clusters) == 3)
    await one.carried(Authorization=f"Bearer {one.token(iss='main')}")
    answer = await one.refused(Authorization=f"Bearer {one.token(iss='main', key=OTHER_KEY)}")
    assert (answer.status, answer.final) == (503, True)
    assert "MediaCluster another/main has no media server" in answer.text
    answer = await one.refused(Authorization=f"Bearer {one.token(iss='main', kid='nobody')}")
    assert answer.status == 401


async def test_nothing_is_logged_of_what_was_sent(one: WorkerWorld) -> None:
    secrets = [one.token(), one.token(kid="k9"), one.ticket(), one.ticket(instance="other")]
    with structlog.testing.capture_logs() as logs:
        await one.carried(Authorization=f"Bearer {secrets[0]}", Mafalda_Worker_Zone="zone-of-mine")
        await one.refused(Authorization=f"Bearer {secrets[1]}", Mafalda_Worker_Zone="zone-of-mine")
        await one.carried(Mafalda_Worker_Ticket=secrets[2])
        await one.refused(Mafalda_Worker_Ticket=secrets[3])
        one.workers[0].answer = refusal(401, f"your token {secrets[0]} is bad")
        await one.refused(Authorization=f"Bearer {secrets[0]}")
    told = repr(logs)
    assert "application turned away" in told
    for secret in (*secrets, "zone-of-mine"):
        assert secret not in told
        assert secret.rpartition(".")[2] not in told


async def test_parsers_errors_do_not_log_what_was_sent(
    one: WorkerWorld, caplog: pytest.LogCaptureFixture
) -> None:
    """aiohttp tells what it could not parse."""
    secret = "secret" * 2000
    caplog.set_level("INFO")
    await one.dial(Authorization=f"Bearer {secret}")
    await one.dial(Authorization=f"Bearer {secret[:100]}\x00")
    assert "secretsecret" not in caplog.text
    assert caplog.text.count("malformed request") == 2


# -- which server -------------------------------------------------------------------------------------


async def test_the_least_loaded_server(three: WorkerWorld) -> None:
    three.servers[0].tenant_load = TenantLoad(workers=1, free=8, cpu=2.0)
    three.servers[1].tenant_load = TenantLoad(workers=1, free=8, cpu=0.2)
    three.servers[2].tenant_load = TenantLoad(workers=1, free=8, cpu=1.0)
    await three.loaded()
    assert (await three.carried())[1] == 1


async def test_sessions_load_counts(three: WorkerWorld) -> None:
    three.servers[0].worker_cpu = {0: 0.9, 1: 0.9}
    three.servers[1].worker_cpu = {0: 0.9}
    three.servers[2].worker_cpu = {0: 0.9, 1: 0.2}
    for server in three.servers:  # told together with the load
        server.tenant_load = TenantLoad(workers=1, free=8, cpu=0.0)
    await three.loaded()
    assert (await three.carried())[1] == 1


@pytest.mark.parametrize(("of_token", "of_header", "index"), [("b", "c", 1), (None, "c", 2), (None, "x", 0)])
async def test_zones(world: WorkerWorld, of_token: str | None, of_header: str, index: int) -> None:
    await world.add_server(zone="a")
    await world.add_server(zone="z")
    await world.add_server(zone="c", load=TenantLoad(workers=5, free=1, cpu=3.0))
    spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": world.servers[1].endpoint}, "zone": "b"}
    world.api.put("mediaservers", "media", "main-1", spec=spec)
    await world.loaded()
    await world.until(lambda: any(s.spec.zone == "b" for s in world.gateway.directory.servers.values()))
    token = world.token(zone=of_token)
    authorization = f"Bearer {token}"
    assert (await world.carried(Authorization=authorization, Mafalda_Worker_Zone=of_header))[1] == index


@pytest.mark.parametrize("server", ["main-2", "media/main-2"])
async def test_a_pinned_server(three: WorkerWorld, server: str) -> None:
    three.servers[2].tenant_load = TenantLoad(workers=1, free=8, cpu=2.0)
    await three.loaded()
    assert (await three.carried(Authorization=f"Bearer {three.token(server=server)}"))[1] == 2


async def test_pinned_servers_that_do_not_do(world: WorkerWorld) -> None:
    await world.add_server(load=FULL)
    await world.add_server(offer=False, load=None)
    await world.add_server(versions=("3.20.0",))
    await world.loaded()

    async def refused(server: str) -> tuple[int, bool, str]:
        answer = await world.refused(Authorization=f"Bearer {world.token(server=server)}")
        return answer.status, answer.final, answer.text

    assert await refused("main-9") == (
        403,
        True,
        "the token's `server` 'main-9' is no MediaServer of MediaCluster media/main: "
        "make a token with another one, or without\n",
    )
    status, final, text = await refused("main-0")
    assert (status, final) == (503, True)
    assert "'main-0' takes no worker: it is full" in text
    status, final, text = await refused("main-1")
    assert (status, final) == (403, True)
    assert "--tenant-ports" in text
    status, final, text = await refused("main-2")
    assert (status, final) == (409, True)
    assert VERSION in text
    assert "3.20.0" in text
    await world.servers[0].kill()
    await world.until(lambda: sum(link.hello is not None for link in world.gateway.links.all()) == 2)
    status, final, text = await refused("media/main-0")
    assert (status, final) == (503, False)
    assert "'media/main-0' takes no worker: it is not connected" in text


async def test_versions(world: WorkerWorld) -> None:
    await world.add_server(versions=("3.20.0",))
    await world.add_server(versions=("3.19.0", "3.20.0"), load=TenantLoad(workers=1, free=8, cpu=3.0))
    await world.loaded()
    assert (await world.carried(Mafalda_Worker_Version="3.19.0"))[1] == 1
    answer = await world.refused()
    assert (answer.status, answer.final) == (409, True)
    assert answer.text == (
        "mediasoup 3.27.1 needs a worker of its version and the media servers have 3.19.0, 3.20.0; install "
        "that version of mediasoup, or start media servers with --worker VERSION=PATH\n"
    )


async def test_no_room(world: WorkerWorld) -> None:
    await world.add_server(load=FULL)
    await world.add_server(load=FULL)
    await world.add_server(offer=False, load=None)
    await world.add_server(versions=("3.20.0",))
    await world.add_server(load=None)
    await world.loaded()
    await world.servers[4].kill()
    await world.until(lambda: sum(link.hello is not None for link in world.gateway.links.all()) == 4)
    answer = await world.refused()
    assert (answer.status, answer.final) == (503, True)
    assert answer.text == (
        "no media server has room for a worker of mediasoup 3.27.1: MediaCluster media/main has 5, 2 full, "
        "1 without a worker of that version, 1 not set up for it, 1 not connected; "
        "add media servers or raise their --tenant-workers\n"
    )


async def test_without_load_figures_a_server_gets_nothing(world: WorkerWorld) -> None:
    await world.add_server(load=None)
    await world.loaded()
    answer = await world.refused()
    assert (answer.status, answer.final) == (503, False)
    assert "1 without load figures" in answer.text


async def test_a_server_that_is_being_deleted(one: WorkerWorld) -> None:
    spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": one.servers[0].endpoint}}
    one.api.put(
        "mediaservers", "media", "main-0", spec=spec, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}
    )
    await one.until(
        lambda: all(s.metadata.deletion_timestamp for s in one.gateway.directory.servers.values())
    )
    answer = await one.refused()
    assert "1 being deleted or drained" in answer.text


async def test_no_server_at_all(world: WorkerWorld) -> None:
    answer = await world.refused()
    assert (answer.status, answer.final) == (503, True)
    assert "MediaCluster media/main has no media server" in answer.text


@pytest.mark.parametrize("limits", [WorkerLimits(links_wait=3)])
async def test_a_server_that_has_just_started_is_waited_for(world: WorkerWorld) -> None:
    server = await world.add_server()
    server.silence()
    dialling = asyncio.create_task(world.dial())
    await asyncio.sleep(0.1)  # so that the gateway waits
    server.wake()
    tunnel = await dialling
    assert isinstance(tunnel, Tunnel), tunnel


async def test_a_server_that_refuses_for_now_is_passed_over(three: WorkerWorld) -> None:
    three.workers[0].answer = refusal(503, "all 8 places are taken")
    assert (await three.carried())[1] == 1
    assert len(three.workers[0].dials) == 1
    assert (await three.carried())[1] == 2
    assert len(three.workers[0].dials) == 1, "left alone for a while"


async def test_a_server_that_cannot_be_reached_is_passed_over(three: WorkerWorld) -> None:
    await three.workers[0].stop()
    three.workers[1].hang = True
    assert (await three.carried())[1] == 2


async def test_when_no_server_takes_it(three: WorkerWorld) -> None:
    three.workers[0].answer = refusal(503, "all 8 places are taken")
    three.workers[1].answer = b"HTTP/1.1 200 OK\r\n\r\n"
    three.workers[2].answer = b""
    answer = await three.refused()
    assert (answer.status, answer.final) == (503, False)
    assert answer.text == "the media server media/main-2 cannot be reached by the gateway\n"


@pytest.mark.parametrize(
    ("status", "final"), [(401, True), (403, True), (409, True), (410, True), (500, False), (503, True)]
)
async def test_other_refusals_are_passed_on(three: WorkerWorld, status: int, final: bool) -> None:
    three.workers[0].answer = refusal(status, "not you\n", final=final)
    answer = await three.refused()
    assert (answer.status, answer.final, answer.text) == (status, final, "not you\n")
    assert not three.workers[1].dials


async def test_a_refusal_without_a_text_for_people(one: WorkerWorld) -> None:
    one.workers[0].answer = refusal(500, "<html>", kind="text/html")
    answer = await one.refused()
    assert (answer.status, answer.text) == (500, "the media server media/main-0 answers HTTP 500\n")


# -- bounds -------------------------------------------------------------------------------------------


async def test_the_tokens_bound(three: WorkerWorld) -> None:
    """However many dial at once, before any server has told of one."""
    token = three.token(workers=4)
    answers = await asyncio.gather(*(three.dial(Authorization=f"Bearer {token}") for _ in range(10)))
    refused = [answer for answer in answers if isinstance(answer, Refusal)]
    assert len(refused) == 6
    assert {(answer.status, answer.final) for answer in refused} == {(403, True)}
    assert "admits 4 workers at the same time and 4 run" in refused[0].text
    await three.carried(Authorization=f"Bearer {three.token(workers=4, jti='other')}")


async def test_the_tokens_bound_counts_what_servers_tell(three: WorkerWorld) -> None:
    for server, count in zip(three.servers, (1, 2, 0), strict=True):
        server.tenant_load = TenantLoad(workers=3, free=5, cpu=0, by_token={"t1": count, "x": 7})
    await three.loaded()
    await three.carried(Authorization=f"Bearer {three.token(workers=4)}")
    answer = await three.refused(Authorization=f"Bearer {three.token(workers=3)}")
    assert answer.status == 403
    assert "admits 3 workers at the same time" in answer.text


async def test_a_worker_that_ended_frees_its_place(one: WorkerWorld) -> None:
    authorization = f"Bearer {one.token(workers=1)}"
    tunnel, _ = await one.carried(Authorization=authorization)
    assert (await one.refused(Authorization=authorization)).status == 403
    tunnel.close()
    door = one.gateway._worker_door
    assert door is not None
    await asyncio.wait_for(door._idle.wait(), 5)
    await one.carried(Authorization=authorization)


@pytest.mark.parametrize("bound", [1, None])
async def test_a_worker_that_ends_makes_room_for_the_next(one: WorkerWorld, bound: int | None) -> None:
    """It ends at that very moment, and its server says so a little later."""
    one.servers[0].tenant_load = TenantLoad(
        workers=1, free=0 if bound is None else 7, cpu=0, by_token={"t1": 1}
    )
    await one.loaded()
    dialling = asyncio.create_task(one.dial(Authorization=f"Bearer {one.token(workers=bound)}"))
    door = one.gateway._worker_door
    assert door is not None
    async with asyncio.timeout(5):
        while not one.gateway._loaded._waiters:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    one.servers[0].tenant_load = TenantLoad(workers=0, free=8, cpu=0)
    assert isinstance(await dialling, Tunnel)


async def test_a_dial_that_failed_does_not_count(one: WorkerWorld) -> None:
    authorization = f"Bearer {one.token(workers=1)}"
    one.workers[0].answer = refusal(500, "no")
    assert (await one.refused(Authorization=authorization)).status == 500
    one.workers[0].answer = None
    await one.carried(Authorization=authorization)


async def test_own_placements_spread(three: WorkerWorld) -> None:
    indexes = [(await three.carried())[1] for _ in range(6)]
    assert sorted(indexes) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("limits", [WorkerLimits(max_tunnels=2, links_wait=0.3)])
async def test_a_full_gateway(one: WorkerWorld) -> None:
    first, _ = await one.carried()
    await one.carried()
    answer = await one.refused()
    assert (answer.status, answer.final) == (503, False)
    assert "2 workers" in answer.text
    first.close()
    async with asyncio.timeout(5):
        while isinstance(await one.dial(), Refusal):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# -- coming back --------------------------------------------------------------------------------------


async def test_an_application_comes_back(three: WorkerWorld) -> None:
    """To its own server, even with a token that has ended, and whatever the load is."""
    three.servers[1].tenant_load = FULL
    await three.loaded()
    token = three.token(exp=time.time() - 600)
    ticket = three.ticket(1)
    authorization = f"Bearer {token}"
    _, index = await three.carried(Authorization=authorization, Mafalda_Worker_Ticket=ticket)
    assert index == 1
    dial = await three.workers[1].dial()
    assert dial.header(shim.TICKET_HEADER) == ticket
    assert dial.header("Authorization") == authorization
    assert 'outcome="resumed"} 1.0' in await three.metrics()


@pytest.mark.parametrize(
    ("changed", "status", "text"),
    [
        ({"key": OTHER_KEY}, 401, "signature"),
        ({"kid": "k9"}, 401, "no token key 'k9'"),
        ({"iss": "elsewhere"}, 401, "no MediaCluster"),
        ({"token": "t0"}, 401, "revoked"),
        ({"instance": "another"}, 410, "media/main-0 was restarted, so the worker is gone"),
        ({"server": "media/main-7"}, 410, "there is no MediaServer media/main-7 any more"),
        ({"server": "nonsense"}, 410, "there is no MediaServer nonsense any more"),
    ],
)
async def test_tickets_that_do_not_hold(
    one: WorkerWorld, changed: dict[str, Any], status: int, text: str
) -> None:
    one.api.secrets["media/worker-keys"]["revoked"] = b"t0"
    answer = await one.refused(Mafalda_Worker_Ticket=one.ticket(**changed))
    assert (answer.status, answer.final) == (status, True)
    assert text in answer.text
    assert not one.workers[0].dials


async def test_a_token_is_no_ticket(one: WorkerWorld) -> None:
    answer = await one.refused(Mafalda_Worker_Ticket=one.token())
    assert answer.status == 401
    answer = await one.refused(Authorization=f"Bearer {one.ticket()}")
    assert answer.status == 401


async def test_coming_back_to_a_server_that_is_away(one: WorkerWorld) -> None:
    ticket = one.ticket()
    await one.servers[0].kill()
    await one.until(lambda: not any(link.hello for link in one.gateway.links.all()))
    answer = await one.refused(Mafalda_Worker_Ticket=ticket)
    assert (answer.status, answer.final) == (503, False)
    assert "media/main-0 is not connected to the gateway" in answer.text


async def test_coming_back_to_a_server_that_does_not_answer(one: WorkerWorld) -> None:
    await one.workers[0].stop()
    answer = await one.refused(Mafalda_Worker_Ticket=one.ticket())
    assert (answer.status, answer.final) == (503, False)


async def test_coming_back_to_a_server_that_may_exist(one: WorkerWorld) -> None:
    """The API server does not answer, so that nobody knows."""
    await one.carried()
    one.api.down = True
    one.api.end_watches()
    directory = one.gateway.directory
    async with asyncio.timeout(5):
        while directory.knows_servers:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    answer = await one.refused(Mafalda_Worker_Ticket=one.ticket(server="media/main-7"))
    assert (answer.status, answer.final) == (503, False)


async def test_coming_back_to_another_clusters_server(one: WorkerWorld) -> None:
    one.put_cluster("other", "side")
    one.api.secrets["other/worker-keys"] = {"w1": TOKEN_KEY}
    await one.until(lambda: len(one.gateway.directory.clusters) == 2)
    answer = await one.refused(Mafalda_Worker_Ticket=one.ticket(iss="uid-side"))
    assert answer.status == 410


async def test_what_the_server_says_to_a_ticket_is_passed_on(one: WorkerWorld) -> None:
    one.workers[0].answer = refusal(410, "the worker has ended", final=True)
    answer = await one.refused(Mafalda_Worker_Ticket=one.ticket())
    assert (answer.status, answer.final, answer.text) == (410, True, "the worker has ended\n")


# -- starting and stopping ----------------------------------------------------------------------------


async def test_before_anything_is_known(limits: WorkerLimits) -> None:
    async with AsyncExitStack() as stack:
        world = WorkerWorld(stack, limits)
        world.api.down = True
        await world.start()
        answer = await world.refused()
        assert (answer.status, answer.final) == (503, False)
        assert "has not read the MediaClusters" in answer.text


@pytest.mark.parametrize("limits", [WorkerLimits(links_wait=5)])
async def test_dials_do_not_outlast_the_gateway(world: WorkerWorld) -> None:
    server = await world.add_server()
    server.silence()
    dialling = asyncio.create_task(world.dial())
    door = world.gateway._worker_door
    assert door is not None
    async with asyncio.timeout(5):
        while not door._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await world.gateway.close()
    answer = await dialling
    assert isinstance(answer, Refusal)
    assert (answer.status, answer.final, answer.text) == (503, False, "the gateway stops\n")


def test_nothing_secret_is_shown() -> None:
    """What is held of a dial can be logged by accident."""
    shown = repr(Handshake("s1", "s2", "3", "a", "s3", "s4"))
    assert not any(secret in shown for secret in ("s1", "s2", "s3", "s4"))
