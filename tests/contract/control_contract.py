"""What every media server keeps on `/control`, the fake one and the real one.

Subclass ControlContract under a name that starts with Test, and give it a fixture ``subject``: a server
that nobody has greeted yet, with two worker slots that run.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import pytest
from contract.control_client import ControlClient, dialled

from mediaserver.control.contract import (
    CONTROL_PROTOCOL,
    ERROR_BAD_PROOF,
    ERROR_NOT_ALLOWED,
    ERROR_OTHER_CLUSTER,
    ERROR_STALE_EPOCH,
    ERROR_VERSION_SKEW,
    ControlHello,
    DesiredEntry,
    Role,
    RouterEntry,
    RouterState,
    ServerHello,
    SessionEntry,
    SettingsEntry,
    WorkerState,
    router_key,
    session_key,
    worker_key,
)
from mediaserver.wire import frames
from mediaserver.wire.errors import ConnectionLost, MembershipError, RemoteError
from mediaserver.wire.membership import ClusterKey, new_nonce
from mediaserver.wire.replica import Delta

CODECS: list[dict[str, Any]] = [
    {"kind": "audio", "mimeType": "audio/opus", "clockRate": 48000, "channels": 2},
    {"kind": "video", "mimeType": "video/VP8", "clockRate": 90000},
]


@dataclass(frozen=True)
class Subject:
    """The server under test."""

    url: str
    """http://HOST:PORT/control"""
    key: ClusterKey


def session_entry(name: str = "standup", namespace: str = "shop") -> SessionEntry:
    return SessionEntry(namespace=namespace, name=name, uid=f"uid-{name}", issuers=["uid-1"], token_keys={})


def router_entry(name: str, slot: int, session: str = "standup", namespace: str = "shop") -> RouterEntry:
    return RouterEntry(
        namespace=namespace,
        name=name,
        uid=f"uid-{name}",
        session=session,
        session_uid=f"uid-{session}",
        worker_slot=slot,
        media_codecs=CODECS,
    )


def desired(*routers: RouterEntry) -> dict[str, DesiredEntry]:
    """Settings, the sessions of the routers, and the routers."""
    entries: dict[str, DesiredEntry] = {"settings": SettingsEntry()}
    for router in routers:
        session = session_entry(router.session, router.namespace)
        entries[session_key(router.namespace, router.session)] = session
        entries[router_key(router.namespace, router.name)] = router
    return entries


def ready(client: ControlClient, name: str) -> bool:
    state = client.reported.get(router_key("shop", name))
    return isinstance(state, RouterState) and state.ready


async def refusal(client: ControlClient, key: ClusterKey, **hello: Any) -> RemoteError:
    """The error that answers a hello; the connection ends, too, with a reason."""
    with pytest.raises(RemoteError) as error:
        await client.hello(key, **hello)
    await client.until(lambda: client.ended is not None, "the connection is closed")
    assert isinstance(client.ended, ConnectionLost)
    assert client.ended.code == 1008
    assert error.value.message[:40] in client.ended.reason
    return error.value


class ControlContract:
    # -- greeting -------------------------------------------------------------------------------------

    async def test_hello(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            hello = await client.hello(subject.key, epoch=7)
        assert hello.protocol_version == CONTROL_PROTOCOL
        assert hello.cluster_uid == "uid-1"
        assert hello.highest_epoch == 7
        assert [worker.slot for worker in hello.workers] == [0, 1]
        assert hello.instance_id
        for address in (hello.control, hello.peer, hello.participants, hello.client, hello.pipe):
            assert address.host
            assert 0 < address.port < 65536

    async def test_a_server_proves_itself(self, subject: Subject) -> None:
        """To the nonce of this very dialler."""
        async with dialled(subject.url) as client:
            challenge = await asyncio.wait_for(asyncio.shield(client.greeter._challenge), 5)
            assert len(challenge.nonce) == 64
        async with dialled(subject.url) as other:
            assert (await other.hello(subject.key)).nonce != challenge.nonce

    async def test_a_dialler_of_another_key(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            error = await refusal(client, ClusterKey(b"another key, of another cluster!"))
        assert error.code == ERROR_BAD_PROOF
        assert "--cluster-key-file" in error.message

    async def test_a_proof_for_another_epoch(self, subject: Subject) -> None:
        """What is proved includes who one says to be."""
        async with dialled(subject.url) as client:
            call = client.connection.call

            async def tampered(method: str, params: Any, result: Any, **options: Any) -> Any:
                return await call(method, msgspec.structs.replace(params, epoch=99), result, **options)

            client.connection.call = tampered  # type: ignore[assignment, method-assign]
            assert (await refusal(client, subject.key)).code == ERROR_BAD_PROOF

    async def test_other_cluster(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
        for role in ("operator", "observer"):
            async with dialled(subject.url) as client:
                error = await refusal(
                    client, subject.key, role=role, cluster_uid="uid-2", cluster_name="media/other"
                )
            assert error.code == ERROR_OTHER_CLUSTER
            assert error.data["clusterUid"] == "uid-1"
            for word in ("media/main", "uid-1", "media/other", "uid-2", "--forget"):
                assert word in error.message

    async def test_who_fails_binds_nothing(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await refusal(client, ClusterKey(b"x" * 32), cluster_uid="uid-2", epoch=50)
        async with dialled(subject.url) as client:
            hello = await client.hello(subject.key, epoch=1)
        assert (hello.cluster_uid, hello.highest_epoch) == ("uid-1", 1)

    async def test_version_skew(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            hello = ControlHello(
                protocol_version=CONTROL_PROTOCOL + 1,
                role="operator",
                cluster_uid="uid-1",
                cluster_name="media/main",
                server_name="media/main-1",
                nonce=new_nonce(),
                proof="",
            )
            with pytest.raises(RemoteError) as error:
                await client.connection.call("hello", hello, ServerHello)
            await client.until(lambda: client.ended is not None, "the connection is closed")
        assert error.value.code == ERROR_VERSION_SKEW
        assert error.value.data == {"protocolVersion": CONTROL_PROTOCOL}

    async def test_a_peer_has_no_business_here(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            assert (await refusal(client, subject.key, role="peer")).code == ERROR_NOT_ALLOWED

    async def test_hello_comes_first_and_once(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            for ask in (client.resync, client.dump, client.tenants, lambda: client.apply(desired())):
                with pytest.raises(RemoteError) as error:
                    await ask()
                assert error.value.code == ERROR_NOT_ALLOWED
            await client.hello(subject.key)
            with pytest.raises(RemoteError) as error:
                await client.hello(subject.key)
            assert error.value.code == ERROR_NOT_ALLOWED

    async def test_nothing_is_told_before_hello(self, subject: Subject) -> None:
        async with dialled(subject.url) as stranger, dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.until(lambda: len(client.loads) > 1, "load twice")
            assert not stranger.reports
            assert not stranger.loads

    # -- leadership -----------------------------------------------------------------------------------

    async def test_stale_epoch(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key, epoch=5)
        async with dialled(subject.url) as client:
            error = await refusal(client, subject.key, epoch=4)
            assert error.code == ERROR_STALE_EPOCH
            assert error.data == {"highestEpoch": 5}
        async with dialled(subject.url) as client:
            assert (await client.hello(subject.key, epoch=5)).highest_epoch == 5

    async def test_an_apply_of_an_older_epoch(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key, epoch=5)
            with pytest.raises(RemoteError) as error:
                await client.apply(desired(), epoch=4)
            assert error.value.code == ERROR_STALE_EPOCH

    async def test_the_newest_operator_commands(self, subject: Subject) -> None:
        async with dialled(subject.url) as older, dialled(subject.url) as newer:
            await older.hello(subject.key, epoch=1)
            await older.apply(desired(router_entry("a", 0)), epoch=1)
            await newer.hello(subject.key, epoch=2)
            await older.until(lambda: older.ended is not None, "the older operator is cut off")
            await newer.until(lambda: ready(newer, "a"), "what the older one opened is still there")
            await newer.apply(desired(router_entry("b", 1)), epoch=2)
            await newer.until(lambda: ready(newer, "b") and not ready(newer, "a"), "the newer one's wish")

    async def test_without_an_operator_all_stays(self, subject: Subject) -> None:
        async with dialled(subject.url) as operator:
            await operator.hello(subject.key)
            await operator.apply(desired(router_entry("a", 0)))
            await operator.until(lambda: ready(operator, "a"), "the router is ready")
        async with dialled(subject.url) as observer:
            await observer.hello(subject.key, role="observer")
            await observer.until(lambda: bool(observer.reported), "a report")
            assert ready(observer, "a")

    # -- observers ------------------------------------------------------------------------------------

    async def test_an_observer_watches(self, subject: Subject) -> None:
        async with dialled(subject.url) as operator, dialled(subject.url) as observer:
            await observer.hello(subject.key, role="observer", epoch=0)
            await operator.hello(subject.key)
            await operator.apply(desired(router_entry("a", 0)))
            await observer.until(lambda: ready(observer, "a"), "the router is reported to observers")
            await observer.until(lambda: bool(observer.loads), "load")
            assert await observer.dump() == await operator.dump()

    @pytest.mark.parametrize("role", ["operator", "observer"])
    async def test_workers_of_applications(self, subject: Subject, role: Role) -> None:
        """A server that runs none says so wherever it is asked."""
        async with dialled(subject.url) as client:
            hello = await client.hello(subject.key, role=role)
            assert hello.tenants is None
            assert (await client.tenants()).workers == []
            await client.until(lambda: bool(client.loads), "load")
            assert client.loads[-1].tenants is None

    async def test_an_observer_may_not_apply(self, subject: Subject) -> None:
        async with dialled(subject.url) as observer:
            await observer.hello(subject.key, role="observer", epoch=0)
            with pytest.raises(RemoteError) as error:
                await observer.apply(desired(router_entry("a", 0)))
            assert error.value.code == ERROR_NOT_ALLOWED
            await observer.until(lambda: bool(observer.reported), "a report")
            assert not ready(observer, "a")

    # -- apply and report -----------------------------------------------------------------------------

    async def test_the_first_report_is_whole(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.until(lambda: bool(client.reports), "a report")
            assert client.reports[0].base is None
            for slot in (0, 1):
                state = client.reported[worker_key(slot)]
                assert isinstance(state, WorkerState)
                assert state.state == "Running"

    async def test_whole_and_changed(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            first = desired(router_entry("a", 0))
            result = await client.apply(first)
            assert (result.revision, result.digest, result.resync) == (1, client.sender.digest, False)
            await client.until(lambda: ready(client, "a"), "the first router is ready")
            second = {**first, **desired(router_entry("b", 1))}
            delta = client.sender.update(second)
            assert delta is not None
            assert delta.base == 1
            assert (await client.send(delta)).digest == client.sender.digest
            await client.until(lambda: ready(client, "a") and ready(client, "b"), "both are ready")
            assert client.reports[-1].base is not None
            state = client.reported[router_key("shop", "b")]
            assert isinstance(state, RouterState)
            assert (state.worker_slot, state.session_uid) == (1, "uid-standup")
            assert state.id

    async def test_what_is_absent_from_a_whole_map_goes(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0), router_entry("b", 1)))
            await client.until(lambda: ready(client, "a") and ready(client, "b"), "both are ready")
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("b", 1)))
            gone = router_key("shop", "a")
            await client.until(lambda: bool(client.reports) and gone not in client.reported, "a is gone")
            assert ready(client, "b")

    async def test_removed(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0)))
            await client.until(lambda: ready(client, "a"), "ready")
            ids = [router["id"] for worker in (await client.dump()).workers for router in worker["routers"]]
            assert len(ids) == 1
            await client.apply({})
            await client.until(lambda: router_key("shop", "a") not in client.reported, "gone")
            assert client.reports[-1].remove == [router_key("shop", "a")]
            assert all(not worker["routers"] for worker in (await client.dump()).workers)

    async def test_a_router_that_cannot_be(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0), router_entry("far", 7)))
            await client.until(lambda: ready(client, "a"), "the other router is ready all the same")
            await client.until(lambda: router_key("shop", "far") in client.reported, "the problem is told")
            state = client.reported[router_key("shop", "far")]
            assert isinstance(state, RouterState)
            assert not state.ready
            assert (state.reason, state.id) == ("NoSuchSlot", "")
            assert "7" in state.message

    async def test_one_router_of_a_session_on_a_worker(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(
                desired(router_entry("a", 0), router_entry("b", 0), router_entry("c", 0, session="other"))
            )
            await client.until(lambda: ready(client, "a") and ready(client, "c"), "those that can are ready")
            await client.until(lambda: router_key("shop", "b") in client.reported, "the problem is told")
            state = client.reported[router_key("shop", "b")]
            assert isinstance(state, RouterState)
            assert (state.ready, state.reason) == (False, "SlotTaken")

    async def test_the_same_again_changes_nothing(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            wish = desired(router_entry("a", 0))
            await client.apply(wish)
            await client.until(lambda: ready(client, "a"), "ready")
            before = client.reported[router_key("shop", "a")]
            await client.apply(wish)
            await client.resync()
            assert client.reported[router_key("shop", "a")] == before

    async def test_a_router_that_is_to_be_left_stays_open(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            assert (await client.hello(subject.key)).sends_away
            key = router_key("shop", "a")
            entry = router_entry("a", 0)
            await client.apply(desired(entry))
            await client.until(lambda: ready(client, "a"), "the router is ready")
            before = client.reported[key]
            assert isinstance(before, RouterState)
            assert not before.leaving
            await client.apply(desired(msgspec.structs.replace(entry, leaving=True)))
            left = msgspec.structs.replace(before, leaving=True, vacant=True)
            await client.until(lambda: client.reported[key] == left, "it is leaving, and nobody is there")
            await client.apply(desired(entry))
            await client.until(lambda: client.reported[key] == before, "the very same router stays")

    async def test_a_base_that_does_not_fit(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0)))
            lost = client.sender.update(desired(router_entry("a", 0), router_entry("b", 1)))
            assert lost is not None
            late = client.sender.update(desired(router_entry("b", 1)))
            assert late is not None
            result = await client.send(late)
            assert result.resync
            result = await client.send(client.sender.whole())
            assert (result.resync, result.digest) == (False, client.sender.digest)
            await client.until(lambda: ready(client, "b") and not ready(client, "a"), "the whole map holds")

    async def test_a_digest_that_does_not_fit(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0)))
            await client.until(lambda: ready(client, "a"), "ready")
            delta = client.sender.update(desired())
            assert delta is not None
            assert (await client.send(msgspec.structs.replace(delta, digest="0" * 32))).resync
            await client.resync()
            assert ready(client, "a"), "what does not add up is not carried out"
            assert not (await client.send(client.sender.whole())).resync

    async def test_a_new_connection_starts_whole(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0)))
            delta = client.sender.update(desired(router_entry("b", 1)))
            assert delta is not None
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            assert (await client.send(delta)).resync

    async def test_resync_of_reports(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0)))
            await client.until(lambda: ready(client, "a"), "ready")
            count = len(client.reports)
            await client.resync()
            await client.until(lambda: len(client.reports) > count, "a report")
            assert client.reports[-1].base is None
            assert ready(client, "a")

    async def test_load_every_second(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 1)))
            await client.until(lambda: ready(client, "a"), "ready")
            seen = len(client.loads)
            begin = asyncio.get_running_loop().time()
            await client.until(lambda: len(client.loads) >= seen + 3, "three loads", deadline=5)
            assert 1.0 < asyncio.get_running_loop().time() - begin < 4.5
        load = client.loads[-1]
        assert [worker.slot for worker in load.workers] == [0, 1]
        assert [worker.routers for worker in load.workers] == [0, 1]
        assert set(load.routers) == {router_key("shop", "a")}
        assert load.free_pipe_ports > 0

    # -- what comes over the wire ---------------------------------------------------------------------

    async def test_unknown_fields_are_ignored(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            sender = client.sender
            first = sender.update(desired(router_entry("a", 0)))
            assert first is not None
            key = router_key("shop", "a")
            newer = {**msgspec.json.decode(first.set[key]), "ofTheFuture": {"x": [1]}}
            sender._digest.set(key, msgspec.json.encode(newer))
            delta = Delta(
                revision=first.revision,
                digest=sender.digest,
                set={**first.set, key: msgspec.Raw(msgspec.json.encode(newer))},
            )
            result = await client.send(delta)
            assert (result.resync, result.digest) == (False, sender.digest)
            await client.until(lambda: ready(client, "a"), "ready")

    async def test_an_entry_that_cannot_be_read(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            await client.apply(desired(router_entry("a", 0)))
            await client.until(lambda: ready(client, "a"), "ready")
            bad = Delta(
                revision=2, digest="0" * 32, set={"router/shop/b": msgspec.Raw(b'{"type": "router"}')}
            )
            with pytest.raises(RemoteError) as error:
                await client.send(bad)
            assert error.value.code == frames.INVALID_PARAMS
            await client.resync()
            assert ready(client, "a")
            assert not (await client.send(client.sender.whole())).resync

    async def test_methods_of_the_future(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.hello(subject.key)
            client.connection.notify("ofTheFuture", SettingsEntry())
            with pytest.raises(RemoteError) as error:
                await client.connection.call("ofTheFuture", SettingsEntry(), SettingsEntry)
            assert error.value.code == frames.METHOD_NOT_FOUND

    @pytest.mark.parametrize("garbage", ["", "{", '{"jsonrpc": "2.0"}', "\x00\x01"])
    async def test_garbage_closes_with_a_reason(self, subject: Subject, garbage: str) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(subject.url) as socket:
            await socket.send_str(garbage)
            while (message := await socket.receive(timeout=5)).type is aiohttp.WSMsgType.TEXT:
                continue
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert message.data == 1002
            assert message.extra
        async with dialled(subject.url) as client:
            await client.hello(subject.key)

    async def test_no_hello_in_time(self, subject: Subject) -> None:
        async with dialled(subject.url) as client:
            await client.until(lambda: client.ended is not None, "the connection is closed", deadline=12)
            assert isinstance(client.ended, ConnectionLost)
            assert "no hello" in client.ended.reason

    async def test_diallers_notice_an_impostor(self, subject: Subject) -> None:
        """Whoever holds another key fails on one side or the other."""
        async with dialled(subject.url) as client:
            with pytest.raises((RemoteError, MembershipError)):
                await client.hello(ClusterKey(b"y" * 32))
