"""The inventory's indexes and scopes."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mafalda_operator.model import (
    EVERYTHING,
    NOTHING,
    Inventory,
    MediaCluster,
    MediaRouter,
    MediaServer,
    MediaSession,
    NamespaceInfo,
    ObjectKey,
    Reported,
    Scope,
)

from mediaserver.control.contract import LinkState, RouterState, WorkerState


def make(parse: Any, namespace: str, name: str, spec: dict[str, Any], **more: Any) -> Any:
    metadata = {"namespace": namespace, "name": name, "uid": f"{name}-uid", "generation": 1}
    return parse({"metadata": {**metadata, **more.pop("metadata", {})}, "spec": spec, **more})


def session(name: str = "s", cluster: str = "main", **more: Any) -> MediaSession:
    found: MediaSession = make(
        MediaSession.parse, "shop", name, {"clusterRef": {"name": cluster, "namespace": "media"}}, **more
    )
    return found


def router(name: str, session_name: str = "s", **spec: Any) -> MediaRouter:
    found: MediaRouter = make(MediaRouter.parse, "shop", name, {"sessionName": session_name, **spec})
    return found


def snapshot(inventory: Inventory) -> Any:
    return inventory.snapshot(views={}, now=0.0, wall_time="", leading_since=0.0)


def test_a_router_before_its_session_is_placed_once_the_session_comes() -> None:
    inventory = Inventory()
    inventory.put(router("r1", serverName="main-1", workerSlot=1))
    assert snapshot(inventory).routers_by_server == {}
    inventory.put(session())
    server = ObjectKey("media", "main-1")
    assert list(snapshot(inventory).routers_by_server[server]) == [ObjectKey("shop", "r1")]
    assert snapshot(inventory).slot_routers[server] == {1: 1}
    inventory.remove("MediaSession", ObjectKey("shop", "s"))
    assert snapshot(inventory).routers_by_server == {}
    assert snapshot(inventory).slot_routers[server] == {}
    assert snapshot(inventory).server_of(inventory.routers[ObjectKey("shop", "r1")]) is None


def test_our_own_status_writes_need_no_plan() -> None:
    inventory = Inventory()
    assert inventory.put(session()) == Scope(
        sessions=frozenset({ObjectKey("shop", "s")}), clusters=frozenset({ObjectKey("media", "main")})
    )
    codecs = {"mediaCodecs": [{"mimeType": "audio/opus"}]}
    assert inventory.put(session(status={"readyRouters": 1, **codecs})) == NOTHING
    assert inventory.sessions[ObjectKey("shop", "s")].status["readyRouters"] == 1
    assert inventory.put(session(metadata={"generation": 2})) != NOTHING
    assert inventory.put(session(metadata={"generation": 2, "deletionTimestamp": "now"})) != NOTHING


def test_a_cluster_concerns_all_its_sessions_and_servers() -> None:
    inventory = Inventory()
    inventory.put(session())
    spec = {"clusterRef": {"name": "main"}, "endpoint": {"address": "a:1"}}
    inventory.put(make(MediaServer.parse, "media", "main-1", spec))
    scope = inventory.put(make(MediaCluster.parse, "media", "main", {}))
    assert scope == Scope(
        sessions=frozenset({ObjectKey("shop", "s")}),
        servers=frozenset({ObjectKey("media", "main-1")}),
        clusters=frozenset({ObjectKey("media", "main")}),
    )
    assert inventory.remove("MediaCluster", ObjectKey("media", "main")) == scope
    assert inventory.remove("MediaCluster", ObjectKey("media", "main")) == NOTHING


def test_a_namespace_concerns_its_sessions() -> None:
    inventory = Inventory()
    inventory.put(session())
    info = NamespaceInfo({"a": "b"})
    assert inventory.put_namespace("shop", info).sessions == {ObjectKey("shop", "s")}
    assert inventory.put_namespace("shop", info) == NOTHING
    assert inventory.put_namespace("shop", None).sessions == {ObjectKey("shop", "s")}


def test_reports_lead_to_their_session() -> None:
    inventory = Inventory()
    inventory.put(session())
    inventory.put(router("r1"))
    key = ObjectKey("shop", "s")
    state = RouterState(namespace="shop", name="gone", session_uid="s-uid", worker_slot=0, ready=True)
    assert inventory.session_of("shop", state) == key
    link = LinkState(namespace="shop", local_router="r1", remote_router="r2", ready=True)
    assert inventory.session_of("shop", link) == key
    assert inventory.session_of("shop", WorkerState(slot=0, state="Running")) is None


def test_scopes_add_up() -> None:
    one = Scope(sessions=frozenset({ObjectKey("a", "b")}))
    assert one | NOTHING == one
    assert one | EVERYTHING == EVERYTHING
    assert bool(one)
    assert bool(EVERYTHING)
    assert not NOTHING


def test_reported_keeps_its_indexes() -> None:
    reported = Reported()
    state = RouterState(namespace="shop", name="r1", session_uid="u", worker_slot=0, ready=True)
    reported.put("router/shop/r1", state)
    reported.put("worker/0", WorkerState(slot=0, state="Running"))
    reported.put("router/shop/r1", state)
    assert reported.routers_by_session == {"u": {"router/shop/r1": state}}
    reported.discard("router/shop/r1")
    reported.discard("router/shop/r1")
    assert (reported.routers, reported.routers_by_session) == ({}, {})
    reported.replace({"worker/1": WorkerState(slot=1, state="Failing")})
    assert set(reported.workers) == {1}


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("session"), st.sampled_from("ab"), st.sampled_from("xy")),
        st.tuples(st.just("router"), st.sampled_from("pqr"), st.sampled_from("ab"), st.integers(0, 1)),
        st.tuples(st.just("drop-session"), st.sampled_from("ab")),
        st.tuples(st.just("drop-router"), st.sampled_from("pqr")),
    ),
    max_size=20,
)


@given(operations=OPERATIONS)
def test_indexes_equal_those_made_from_scratch(operations: list[tuple[Any, ...]]) -> None:
    inventory = Inventory()
    for number, (what, name, *rest) in enumerate(operations):
        if what == "session":
            inventory.put(
                session(name, cluster=rest[0], metadata={"uid": f"u{number}", "generation": number})
            )
        elif what == "router":
            spec = {"sessionName": rest[0], "serverName": f"m{rest[1]}", "workerSlot": rest[1]}
            inventory.put(
                make(
                    MediaRouter.parse,
                    "shop",
                    name,
                    spec,
                    metadata={"uid": f"u{number}", "generation": number},
                )
            )
        elif what == "drop-session":
            inventory.remove("MediaSession", ObjectKey("shop", name))
        else:
            inventory.remove("MediaRouter", ObjectKey("shop", name))
    fresh = Inventory()
    for resource in (*inventory.sessions.values(), *inventory.routers.values()):
        fresh.put(resource)
    one, other = snapshot(inventory), snapshot(fresh)
    for index in ("routers_by_session", "routers_by_server", "sessions_by_cluster"):
        left = {key: set(value) for key, value in getattr(one, index).items()}
        assert left == {key: set(value) for key, value in getattr(other, index).items()}
    counts = {key: value for key, value in one.slot_routers.items() if value}
    assert counts == {key: value for key, value in other.slot_routers.items() if value}
