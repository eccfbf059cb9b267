"""Participants at the gateway: who gets in, where to, and how everybody else is told."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import msgspec
import pytest
import structlog
from contract.control_contract import desired, router_entry

from mediaserver.control.contract import LeavingState, router_key
from mediaserver.gateway.frontdoor import Limits


@pytest.fixture
async def one(world: Any) -> Any:
    await world.add_servers(1)
    return world


@pytest.fixture
async def three(world: Any) -> Any:
    await world.add_servers(3)
    return world


# -- the way through ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/ws"])
async def test_a_participant_comes_through(one: Any, path: str) -> None:
    token = one.token()
    socket = await one.dial(path=path, token=token, extra="a b/ü&")
    assert socket.protocol == "protoo"
    for text in ("first", "second", "x" * 65536):
        await socket.send_str(text)
        assert await socket.receive_str(timeout=5) == text
    await socket.send_bytes(b"\x00\x01")
    assert await socket.receive_bytes(timeout=5) == b"\x00\x01"
    arrival = await one.participants[0].arrival()
    assert arrival.path == "/ws"
    assert arrival.router == "shop/r0"
    assert arrival.query == {
        "roomId": "shop/standup",
        "peerId": "ann",
        "token": token,
        "extra": "a b/ü&",
    }


async def test_a_goodbye_reaches_the_server(one: Any) -> None:
    socket, _ = await one.admitted()
    await socket.close(code=1000, message=b"bye")
    arrival = await one.participants[0].arrival()
    await asyncio.wait_for(arrival.ended.wait(), 5)
    assert arrival.code == 1000


async def test_a_participant_that_vanishes(one: Any) -> None:
    """The server sees a broken line, not a goodbye, so that it keeps what the participant has."""
    socket, _ = await one.admitted()
    socket._response.connection.transport.abort()
    arrival = await one.participants[0].arrival()
    await asyncio.wait_for(arrival.ended.wait(), 5)
    assert arrival.code == 1006


@pytest.mark.parametrize(
    ("code", "reason"), [(4000, "replaced"), (4001, "draining"), (4002, "full"), (1008, "x")]
)
async def test_what_the_server_decides_is_passed_on(one: Any, code: int, reason: str) -> None:
    socket, _ = await one.admitted()
    await socket.send_str(f"close {code} {reason}")
    assert await one.closed(socket) == (code, reason)


@pytest.mark.parametrize("code", [1001, 1011, 1012])
async def test_a_server_that_stops(one: Any, code: int) -> None:
    socket, _ = await one.admitted()
    await socket.send_str(f"close {code} stopping")
    assert await one.closed(socket) == (4001, "media server lost")


async def test_messages_too_large(one: Any) -> None:
    socket, _ = await one.admitted()
    await socket.send_str("x" * 65537)
    assert (await one.closed(socket))[0] == 1009
    arrival = await one.participants[0].arrival()
    await asyncio.wait_for(arrival.ended.wait(), 5)
    assert arrival.received == ["hello"]


async def test_large_messages_of_the_server_pass(one: Any) -> None:
    socket, _ = await one.admitted()
    arrival = await one.participants[0].arrival()
    await arrival.socket.send_str("y" * 1_000_000)
    assert len(await socket.receive_str(timeout=5)) == 1_000_000


async def test_what_is_no_websocket(one: Any) -> None:
    async with one.session.get(f"http://{one.gateway.address}/?token=x") as answer:
        assert answer.status == 426
        assert "WebSocket" in await answer.text()


# -- who is turned away -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": time.time() - 60}, "token refused: expired"),
        ({"nbf": time.time() + 3600}, "token refused: notYetValid"),
        ({"session": "shop/other"}, "token refused: wrongSession"),
        ({"sub": "bob"}, "token refused: wrongPeer"),
        ({"iss": "elsewhere"}, "token refused: wrongIssuer"),
        ({"aud": "else"}, "token refused: wrongAudience"),
        ({"key": b"f" * 32}, "token refused: forged"),
        ({"kid": "k9"}, "token refused: unknownKey"),
    ],
)
async def test_tokens_that_do_not_hold(one: Any, claims: dict[str, Any], reason: str) -> None:
    assert await one.refused(token=one.token(**claims)) == (4000, reason)
    assert not one.participants[0].arrivals


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"token": ""}, "token refused: malformed"),
        ({"token": "x" * 5000}, "token refused: malformed"),
        ({"roomId": ""}, "roomId must be NAMESPACE/SESSION"),
        ({"roomId": "standup"}, "roomId must be NAMESPACE/SESSION"),
        ({"roomId": "a/b/c"}, "roomId must be NAMESPACE/SESSION"),
        ({"roomId": "x" * 1000 + "/y"}, "roomId must be NAMESPACE/SESSION"),
        ({"peerId": ""}, "peerId must have 1 to 253 characters"),
        ({"peerId": "p" * 254}, "peerId must have 1 to 253 characters"),
        ({"roomId": "shop/nowhere"}, "session ended"),
    ],
)
async def test_queries_that_make_no_sense(one: Any, query: dict[str, str], reason: str) -> None:
    assert await one.refused(**query) == (4000, reason)


async def test_issuers(one: Any) -> None:
    for issuer in ("uid-main", "main", "media/main"):
        await one.admitted(token=one.token(iss=issuer))


async def test_a_resume_token(one: Any) -> None:
    await one.admitted(token=one.token(resume=True))


async def test_another_sub_protocol(one: Any) -> None:
    socket = await one.dial(protocols=())
    assert await one.closed(socket) == (4000, "sub-protocol protoo expected")


async def test_a_session_that_is_being_deleted(one: Any) -> None:
    one.api.put(
        "mediasessions",
        "shop",
        "standup",
        metadata={"deletionTimestamp": "2026-11-22T00:00:00Z"},
        spec={"clusterRef": {"name": "main", "namespace": "media"}},
    )
    await one.until(lambda: any(session.ended for session in one.gateway.directory.sessions.values()))
    assert await one.refused() == (4000, "session ended")


async def test_no_ready_router(one: Any) -> None:
    one.put_session(routers=0)
    await one.until(lambda: all(not s.status.routers for s in one.gateway.directory.sessions.values()))
    begin = time.monotonic()
    assert await one.refused() == (4002, "no router is ready")
    assert time.monotonic() - begin < 2


async def test_a_router_that_the_server_does_not_have(one: Any) -> None:
    """Whatever status says."""
    one.servers[0].set_desired({})
    link = one.gateway.links.all()[0]
    await one.until(lambda: not link.router_ready(("shop", "r0")))
    assert await one.refused() == (4002, "no router is ready")


async def went_to(world: Any, socket: Any) -> str:
    """The router that a participant was brought to."""
    await socket.send_str("hello")
    assert await socket.receive_str(timeout=5) == "hello"
    for server in world.participants:
        for arrival in server.arrivals:
            return str(arrival.router)
    raise AssertionError("nowhere")


def leave(world: Any, index: int, **faults: Any) -> None:
    for name, value in faults.items():
        setattr(world.servers[index].faults, name, value)
    world.servers[index].report()


async def test_a_server_that_ends_is_skipped_while_another_one_is_there(world: Any) -> None:
    await world.add_servers(2)
    leave(world, 0, leaving=LeavingState(reason="SIGTERM", deadline=60))
    await world.until(lambda: any(link.leaving for link in world.gateway.links.all()))
    assert await went_to(world, await world.dial()) == "shop/r1"


async def test_a_server_that_is_drained_is_skipped_while_another_one_is_there(world: Any) -> None:
    await world.add_servers(2)
    spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": world.servers[0].endpoint}}
    world.api.put("mediaservers", "media", "main-0", spec=spec, status={"drain": {"reason": "Requested"}})
    await world.until(lambda: any(server.draining for server in world.gateway.directory.servers.values()))
    assert await went_to(world, await world.dial()) == "shop/r1"


async def test_a_router_that_is_left_is_skipped_and_servers_that_end_are_better(world: Any) -> None:
    await world.add_servers(2)
    entry = msgspec.structs.replace(router_entry("r0", 0), leaving=True)
    world.servers[0].set_desired(desired(entry))
    leave(world, 1, leaving=LeavingState(reason="SIGTERM", deadline=60))
    links = world.gateway.links.all
    await world.until(lambda: any(link.router_leaving(("shop", "r0")) for link in links()))
    await world.until(lambda: any(link.leaving for link in links()))
    assert await went_to(world, await world.dial()) == "shop/r1"


async def test_with_nothing_else_left_a_server_that_ends_takes_participants(one: Any) -> None:
    leave(one, 0, leaving=LeavingState(reason="SIGTERM", deadline=60))
    await one.until(lambda: one.gateway.links.all()[0].leaving)
    assert await went_to(one, await one.dial()) == "shop/r0"


async def test_a_session_made_just_now(world: Any) -> None:
    """Neither session nor router are there when the participant dials."""
    world.api.put("mediaservers", "media", "none", spec={"clusterRef": {"name": "main"}})
    dialling = asyncio.create_task(world.dial())
    await asyncio.sleep(0.05)
    await world.add_servers(1)
    socket = await dialling
    await socket.send_str("hello")
    assert await socket.receive_str(timeout=5) == "hello"


@pytest.mark.parametrize("limits", [Limits(max_participants=1)])
async def test_a_full_gateway(one: Any) -> None:
    socket, _ = await one.admitted()
    assert await one.refused() == (4002, "gateway full")
    await socket.close()
    async with asyncio.timeout(5):
        while one.gateway._door._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await one.admitted()


# -- which router -------------------------------------------------------------------------------------


async def test_participants_spread(three: Any) -> None:
    """Own placements count before the servers report them."""
    came_to = [(await three.admitted())[1] for _ in range(6)]
    assert came_to == [0, 1, 2, 0, 1, 2]


async def test_the_least_loaded(three: Any) -> None:
    await three.loaded(5, 1, 4)
    assert [(await three.admitted())[1] for _ in range(6)] == [1, 1, 1, 1, 2, 0]


async def test_routers_ready_by_status_come_first(three: Any) -> None:
    ref = {"name": "main", "namespace": "media"}
    routers = [
        {"name": f"r{i}", "serverName": f"main-{i}", "workerSlot": 0, "ready": i == 2} for i in range(3)
    ]
    three.api.put("mediasessions", "shop", "standup", spec={"clusterRef": ref}, status={"routers": routers})
    sessions = three.gateway.directory.sessions
    await three.until(lambda: not sessions[("shop", "standup")].status.routers[0].ready)
    assert [(await three.admitted())[1] for _ in range(2)] == [2, 2]
    three.servers[2].silence()
    await three.connected(2)
    assert (await three.admitted())[1] == 0


@pytest.mark.parametrize("fault", ["refuse", "hang", "stop"])
@pytest.mark.parametrize("limits", [Limits(session_wait=0.2, router_wait=5)])
async def test_a_listener_that_fails_is_passed_over(three: Any, fault: str) -> None:
    if fault == "stop":
        await three.participants[0].stop()
    else:
        setattr(three.participants[0], fault, True)
    assert (await three.admitted())[1] == 1
    begin = time.monotonic()
    assert (await three.admitted())[1] == 2
    assert time.monotonic() - begin < 1, "it is not tried again at once"


@pytest.mark.parametrize("limits", [Limits(session_wait=0.2, router_wait=0.5)])
async def test_when_every_listener_fails(three: Any) -> None:
    for participants in three.participants:
        participants.refuse = True
    assert await three.refused() == (4002, "no router is ready")


async def test_a_router_that_sends_away_is_left_alone(three: Any) -> None:
    socket = await three.dial()
    await socket.send_str("close 4001 moved")
    assert await three.closed(socket) == (4001, "moved")
    assert [(await three.admitted())[1] for _ in range(3)] == [1, 2, 1]


# -- servers that go ----------------------------------------------------------------------------------


async def test_a_server_that_dies(three: Any) -> None:
    socket, index = await three.admitted()
    assert index == 0
    await asyncio.gather(three.servers[0].kill(), three.participants[0].stop())
    assert await three.closed(socket) == (4001, "media server lost")
    assert (await three.admitted())[1] == 1


async def test_a_server_that_falls_silent(three: Any) -> None:
    """Its sockets stay open, as those of a stopped process do."""
    socket, index = await three.admitted()
    other, _ = await three.admitted()
    assert index == 0
    begin = time.monotonic()
    three.servers[0].silence()
    assert await three.closed(socket) == (4001, "media server lost")
    assert 1 < time.monotonic() - begin < 4
    assert (await three.admitted())[1] in (1, 2)
    await other.send_str("still there")
    assert await other.receive_str(timeout=5) == "still there"
    three.servers[0].wake()
    await three.connected(3)


async def test_a_control_link_that_breaks_for_a_moment(one: Any) -> None:
    """Participants of a server that is back within two seconds notice nothing."""
    socket, _ = await one.admitted()
    for session in tuple(one.servers[0]._sessions):
        await session.cut()
    await one.connected(0)
    await one.connected(1)
    with pytest.raises(TimeoutError):
        await socket.receive(timeout=2.5)
    await socket.send_str("still there")
    assert await socket.receive_str(timeout=5) == "still there"


async def test_a_server_that_is_away_too_long(one: Any) -> None:
    """Its participants' sockets may be alive in name only, behind a host that is gone."""
    socket, _ = await one.admitted()
    await one.servers[0].close()
    assert await one.closed(socket) == (4001, "media server lost")


@pytest.mark.parametrize("limits", [Limits(router_wait=5)])
async def test_participants_wait_for_a_router(one: Any) -> None:
    """A dial during the moment without any router is held, not sent away."""
    await one.servers[0].close()
    await one.connected(0)
    dialling = asyncio.create_task(one.dial())
    await asyncio.sleep(0.1)
    await one.servers[0].start()
    socket = await dialling
    await socket.send_str("hello")
    assert await socket.receive_str(timeout=5) == "hello"


# -- the gateway itself -------------------------------------------------------------------------------


async def test_stopping(three: Any) -> None:
    sockets = [(await three.admitted())[0] for _ in range(3)]
    closing = asyncio.create_task(three.gateway.close())
    assert [await three.closed(socket) for socket in sockets] == [(4002, "gateway stopping")] * 3
    await asyncio.wait_for(closing, 10)
    arrival = three.participants[0].arrivals[0]
    await asyncio.wait_for(arrival.ended.wait(), 5)
    assert arrival.code == 4002, "no goodbye: the participant comes back by another gateway"
    with pytest.raises(aiohttp.ClientConnectionError):
        await three.dial()


@pytest.mark.parametrize("limits", [Limits(reattach=5.0)])
async def test_participants_attach_elsewhere_while_it_stops(world: Any) -> None:
    await world.add_servers(1)
    moving, staying = (await world.admitted())[0], (await world.admitted())[0]
    began = time.monotonic()
    closing = asyncio.create_task(world.gateway.close())
    for socket in (moving, staying):
        told = msgspec.json.decode(await socket.receive_str(timeout=5))
        assert told["notification"]
        assert told["method"] == "reattach"
        assert told["data"] == {"reason": "the gateway stops", "within": 5.0}
    await moving.send_str("still carried")
    assert await moving.receive_str(timeout=5) == "still carried"
    assert await world.closed(await world.dial()) == (4002, "gateway stopping")
    await moving.close()
    await staying.close()
    await asyncio.wait_for(closing, 10)
    assert time.monotonic() - began < 5.0, "it waits though nobody is left"


@pytest.mark.parametrize("limits", [Limits(reattach=0.2)])
async def test_who_does_not_attach_elsewhere_is_cut_off_in_the_end(world: Any) -> None:
    await world.add_servers(1)
    socket = (await world.admitted())[0]
    closing = asyncio.create_task(world.gateway.close())
    assert msgspec.json.decode(await socket.receive_str(timeout=5))["method"] == "reattach"
    assert await world.closed(socket) == (4002, "gateway stopping")
    await asyncio.wait_for(closing, 10)


async def test_nothing_is_left(three: Any) -> None:
    before = {task for task in asyncio.all_tasks() if "Proxy" in repr(task)}
    for _ in range(5):
        socket, _ = await three.admitted()
        await socket.close()
    for participants in three.participants:
        for arrival in participants.arrivals:
            await asyncio.wait_for(arrival.ended.wait(), 5)
    async with asyncio.timeout(5):
        while three.gateway._door._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not three.gateway._door._proxies
    assert {task for task in asyncio.all_tasks() if "Proxy" in repr(task)} == before


async def test_tokens_are_not_logged(one: Any) -> None:
    token, bad = one.token(), one.token(sub="bob")
    with structlog.testing.capture_logs() as logs:
        socket, _ = await one.admitted(token=token)
        await socket.close()
        await one.refused(token=bad)
        one.participants[0].refuse = True
        await one.refused(token=token)
    assert len(logs) >= 4
    assert token not in repr(logs)
    assert bad not in repr(logs)
    assert token.split(".")[1] not in repr(logs)


async def test_health_and_metrics(three: Any) -> None:
    socket, _ = await three.admitted()
    await three.refused(token="")
    base = f"http://{three.gateway.health_address}"
    for path in ("/healthz", "/readyz"):
        async with three.session.get(base + path) as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
    async with three.session.get(base + "/metrics") as answer:
        text = await answer.text()
    assert "mafalda_gateway_participants 1.0" in text
    assert 'mafalda_gateway_dials_total{outcome="admitted"} 1.0' in text
    assert 'mafalda_gateway_dials_total{outcome="refused"} 1.0' in text
    assert 'mafalda_gateway_servers{state="connected"} 3.0' in text
    assert 'mafalda_gateway_watch_age_seconds{kind="mediasessions"}' in text
    await socket.close()


# -- the API server -----------------------------------------------------------------------------------


async def test_without_the_api_server(three: Any) -> None:
    await three.admitted()
    three.api.down = True
    three.api.end_watches()
    await asyncio.sleep(0)
    assert (await three.admitted())[1] == 1
    await asyncio.gather(three.servers[2].kill(), three.participants[2].stop())
    await three.connected(2)
    assert {(await three.admitted())[1] for _ in range(4)} == {0, 1}
    async with three.session.get(f"http://{three.gateway.health_address}/readyz") as answer:
        assert answer.status == 200


@pytest.mark.parametrize("api_down", [True])
async def test_before_the_api_server_answers(world: Any) -> None:
    assert await world.refused() == (4002, "gateway starting")
    async with world.session.get(f"http://{world.gateway.health_address}/readyz") as answer:
        assert answer.status == 503
        assert "mediasessions not listed yet" in await answer.text()
    world.api.down = False
    await world.until(lambda: world.gateway.directory.synced)
    async with world.session.get(f"http://{world.gateway.health_address}/readyz") as answer:
        assert answer.status == 200


async def test_keys_that_cannot_be_read(one: Any) -> None:
    one.api.down = True
    assert await one.refused() == (4002, "token keys cannot be read")


async def test_a_key_added_later(one: Any) -> None:
    await one.admitted()
    new = b"n" * 32
    one.api.secrets["media/keys"] = {"k1": b"t" * 32, "k2": new}
    one.gateway._keys._secrets._clock = lambda: time.monotonic() + 3
    await one.admitted(token=one.token(kid="k2", key=new))


async def test_servers_that_come_and_go(three: Any) -> None:
    await three.admitted()
    three.api.delete("mediaservers", "media", "main-1")
    await three.connected(2)
    assert {(await three.admitted())[1] for _ in range(4)} == {0, 2}
    assert router_key("shop", "r1") in three.servers[1].reported


async def test_a_server_of_another_cluster(one: Any) -> None:
    """Its link is refused, with a reason that names both."""
    one.servers[0].cluster_uid = "uid-other"
    one.servers[0].cluster_name = "media/other"
    for session in tuple(one.servers[0]._sessions):
        await session.cut()
    await one.connected(0)
    link = one.gateway.links.all()[0]
    async with asyncio.timeout(5):
        while "belongs to MediaCluster media/other" not in link.problem:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert await one.refused() == (4002, "no router is ready")
