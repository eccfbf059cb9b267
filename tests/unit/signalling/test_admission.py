"""Tokens, rights, bounds, and messages that no proper client sends."""

import asyncio
import json

import pytest
from aiohttp import ClientSession
from doubles.protoo import JOIN, RTP, Refusal, eventually

from mediaserver.signalling import SignallingSettings
from mediaserver.wire.close_codes import DIAL_LATER, ENDED


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1_800_000_000 - 31}, "expired"),
        ({"nbf": 1_800_000_000 + 31}, "notYetValid"),
        ({"session": "shop/other"}, "wrongSession"),
        ({"sub": "bob"}, "wrongPeer"),
        ({"iss": "elsewhere"}, "wrongIssuer"),
        ({"aud": "other"}, "wrongAudience"),
        ({"kid": "9"}, "unknownKey"),
        ({"key": b"x" * 32}, "forged"),
    ],
)
async def test_tokens_are_refused_with_a_reason(world, claims: dict, reason: str) -> None:
    token = world.token("alice", **claims) if "sub" not in claims else world.token(**claims)
    alice = await world.dial("alice", token=token)
    assert await alice.end() == (ENDED, f"token refused: {reason}")


async def test_clocks_may_differ_by_half_a_minute(world) -> None:
    alice = await world.dial("alice", exp=world.now - 29)
    await alice.ask("join", JOIN)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 7000])
async def test_garbage_is_no_token(world, token: str) -> None:
    alice = await world.dial("alice", token=token)
    assert await alice.end() == (ENDED, "token refused: malformed")


@pytest.mark.parametrize("room", ["", "standup", "a/b/c", "/x"])
async def test_the_room_must_be_namespace_and_name(world, room: str) -> None:
    alice = await world.dial("alice", room=room)
    assert await alice.end() == (ENDED, "roomId must be namespace/name")


async def test_a_client_without_the_sub_protocol_is_told(world) -> None:
    alice = await world.dial("alice", protocols=())
    assert await alice.end() == (ENDED, "sub-protocol protoo expected")


async def test_plain_http_is_told(world) -> None:
    async with ClientSession() as http, http.get(world.base) as answer:
        assert answer.status == 426


@pytest.mark.parametrize(("claim", "flag"), [("publish", "producing"), ("subscribe", "consuming")])
async def test_rights_are_held(world, claim: str, flag: str) -> None:
    alice = await world.dial("alice", **{claim: False})
    with pytest.raises(Refusal, match=claim) as refusal:
        await alice.ask("createWebRtcTransport", {flag: True})
    assert refusal.value.code == 403


async def test_an_unknown_verb_is_named(world) -> None:
    alice = await world.dial()
    with pytest.raises(Refusal, match="unknown method 'teleport'") as refusal:
        await alice.ask("teleport")
    assert refusal.value.code == 501


@pytest.mark.parametrize(
    ("method", "data"),
    [
        ("produce", {"transportId": "x", "kind": "audio", "rtpParameters": RTP}),
        ("closeProducer", {"producerId": "x"}),
        ("pauseConsumer", {"consumerId": "x"}),
        ("changeDisplayName", {"displayName": "x"}),
    ],
)
async def test_what_needs_a_join_says_so(world, method: str, data: dict) -> None:
    alice = await world.dial()
    with pytest.raises(Refusal, match="not joined yet") as refusal:
        await alice.ask(method, data)
    assert refusal.value.code == 409


async def test_joining_twice_is_refused(world) -> None:
    alice = await world.dial()
    await alice.ask("join", JOIN)
    with pytest.raises(Refusal, match="joined already"):
        await alice.ask("join", JOIN)


@pytest.mark.parametrize(
    ("method", "data", "named"),
    [
        ("produce", {"transportId": 7}, r"transportId"),
        ("produce", {}, "missing required field"),
        ("connectWebRtcTransport", {"transportId": "x", "dtlsParameters": []}, "dtlsParameters"),
        ("setConsumerPriority", {"consumerId": "x", "priority": "high"}, "priority"),
        ("changeDisplayName", {"displayName": "x" * 129}, "displayName has 129"),
        ("createWebRtcTransport", {}, "producing and consuming"),
        ("closeProducer", {"producerId": "none"}, "no producer 'none'"),
        ("pauseConsumer", {"consumerId": "none"}, "no consumer 'none'"),
        ("restartIce", {"transportId": "none"}, "no transport 'none'"),
        (
            "produce",
            {"transportId": "T", "kind": "audio", "rtpParameters": RTP, "appData": {"source": ""}},
            "source",
        ),
        (
            "produce",
            {"transportId": "T", "kind": "audio", "rtpParameters": RTP, "appData": {"x": "y" * 5000}},
            "larger",
        ),
    ],
)
async def test_wrong_parameters_are_named_and_the_call_goes_on(
    world, method: str, data: dict, named: str
) -> None:
    alice, transport_id = await world.publisher()
    data = {**data, **({"transportId": transport_id} if data.get("transportId") == "T" else {})}
    with pytest.raises(Refusal, match=named):
        await alice.ask(method, data)
    await alice.ask("changeDisplayName", {"displayName": "still here"})


@pytest.mark.parametrize("text", ["nonsense", "[]", "{}", '{"request": true, "method": "join"}', "[" * 9000])
async def test_malformed_messages_end_the_call_with_a_reason(world, text: str) -> None:
    alice, _ = await world.publisher()
    await alice.send(text)
    code, reason = await alice.end()
    assert code == ENDED
    assert reason.startswith("not a protoo frame")
    await eventually(lambda: not world.router.open_transports)
    await (await world.dial("bob")).ask("join", JOIN)


async def test_binary_messages_end_the_call_with_a_reason(world) -> None:
    alice = await world.dial()
    await alice.socket.send_bytes(b"\0")
    assert (await alice.end())[0] == ENDED


async def test_a_message_of_64_kib_is_the_largest(world) -> None:
    alice = await world.dial()
    frame = {"request": True, "id": 1, "method": "x", "data": ""}
    frame["data"] = "a" * (65_536 - len(json.dumps(frame)))
    await alice.send(json.dumps(frame))
    frame["data"] += "a"
    await alice.send(json.dumps(frame))
    assert (await alice.end())[0] == 1009
    await (await world.dial("bob")).ask("join", JOIN)


async def test_answers_to_nothing_and_notifications_are_ignored(world) -> None:
    alice = await world.dial()
    await alice.send({"response": True, "id": 99, "ok": True})
    await alice.send({"notification": True, "method": "hello", "data": {}})
    await alice.ask("join", JOIN)


class TestBounds:
    @pytest.fixture
    def settings(self) -> SignallingSettings:
        return SignallingSettings(
            max_transports=2, max_producers=1, max_participants=2, max_requests=4, join_timeout=0.2
        )

    async def test_of_transports(self, world) -> None:
        alice, _ = await world.publisher()
        await alice.ask("createWebRtcTransport", {"producing": True})
        with pytest.raises(Refusal, match="2 transports, at most 2") as refusal:
            await alice.ask("createWebRtcTransport", {"producing": True})
        assert refusal.value.code == 429

    async def test_of_producers(self, world) -> None:
        alice, transport_id = await world.publisher()
        produce = {"transportId": transport_id, "kind": "audio", "rtpParameters": RTP}
        await alice.ask("produce", {**produce, "appData": {"source": "a"}})
        with pytest.raises(Refusal, match="1 producers, at most 1"):
            await alice.ask("produce", {**produce, "appData": {"source": "b"}})
        await alice.ask("produce", {**produce, "appData": {"source": "a"}})

    async def test_of_participants(self, world) -> None:
        await (await world.dial("a")).ask("join", JOIN)
        await (await world.dial("b")).ask("join", JOIN)
        late = await world.dial("c")
        assert await late.end() == (DIAL_LATER, "router full: 2 participants")

    async def test_of_requests(self, world) -> None:
        alice, transport_id = await world.publisher()
        world.router.delay = 0.3
        produce = {"transportId": transport_id, "kind": "audio", "rtpParameters": RTP}
        for number in range(10):
            frame = {"request": True, "id": 100 + number, "method": "produce", "data": produce}
            alice._answers[100 + number] = future = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda f: f.cancelled() or f.exception())
            await alice.send(frame)
        refused = alice._answers[109]
        with pytest.raises(Refusal, match="slow down") as refusal:
            await refused
        assert refusal.value.code == 429

    async def test_of_time_until_the_join(self, world) -> None:
        idle = await world.dial()
        assert await idle.end() == (DIAL_LATER, "no join came in time")
