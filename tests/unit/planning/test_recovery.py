"""Silence, loss, freezing and what moves."""

from dataclasses import replace
from typing import Any

import msgspec
from mafalda_operator.model import EVERYTHING, ObjectKey, Scope
from mafalda_operator.planning import CreateRouter, DeleteRouter, Memory, plan

SESSION = ObjectKey("shop", "standup")
ONE, TWO, THREE = (ObjectKey("media", f"main-{number}") for number in (1, 2, 3))


def started(world: Any, routers: int = 3) -> None:
    world.session(min=routers)
    world.settle()
    world.advance(30)
    world.settle()


def router_on(world: Any, server: ObjectKey) -> Any:
    return next(router for router in world.routers_of(SESSION) if router.server_name == server.name)


def pass_time(world: Any, seconds: int, **kwargs: Any) -> None:
    for _ in range(seconds):
        world.advance(1, **kwargs)
        world.settle()


def test_a_lost_server_s_router_is_replaced_and_then_ended(world: Any) -> None:
    started(world)
    old = router_on(world, TWO)
    world.die(TWO)
    pass_time(world, 2)
    assert router_on(world, TWO).key == old.key, "not lost before the silence timeout"
    world.advance(1)
    made = world.plan()
    assert [type(action) for action in made.actions] == [CreateRouter]
    create = made.actions[0]
    assert create.reason == "RouterMoved"
    assert create.annotations["mafalda.io/generation"] == "1"
    assert create.spec["serverName"] in ("main-1", "main-3")
    world.act(made)
    following = world.plan()
    assert [type(action) for action in following.actions] == [DeleteRouter]
    assert following.actions[0].key == old.key
    world.act(following)
    world.settle()
    assert {router.server_name for router in world.routers_of(SESSION)} == {"main-1", "main-3"}
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"
    assert world.condition("MediaSession", SESSION, "Spread")[1] == "SharedServer"
    assert len(world.notes("ServerLost")) == 1
    assert len(world.notes("RouterMoved")) == 1
    assert world.condition("MediaServer", TWO, "Ready")[:2] == ("False", "ServerLost")


def test_without_a_free_worker_the_router_of_a_lost_server_stays_bound(make_world: Any) -> None:
    world = make_world()
    world.cluster()
    for name in ("main-1", "main-2", "main-3"):
        world.server(name, workers=1)
    started(world)
    world.die(TWO)
    pass_time(world, 5)
    router = router_on(world, TWO)
    assert world.condition("MediaRouter", router.key, "Scheduled")[0] == "True"
    assert world.condition("MediaRouter", router.key, "Ready")[:2] == ("False", "ServerLost")
    assert world.condition("MediaSession", SESSION, "Scheduled")[:2] == ("False", "NoCapacity")
    assert world.condition("MediaSession", SESSION, "Available")[0] == "True"
    world.connect(TWO, workers=1, instance="main-2-again")
    world.settle()
    assert router_on(world, TWO).key == router.key, "a server that comes back keeps its router"
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"


def test_a_server_that_a_peer_hears_is_only_marked(world: Any) -> None:
    started(world)
    world.view(TWO, connected=False)
    for _ in range(10):
        world.advance(1, heard_by={TWO: {ONE}})
        world.settle()
    assert router_on(world, TWO)
    assert world.condition("MediaServer", TWO, "Ready")[:2] == ("False", "HeardByPeer")
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"
    assert world.plans[-1].wake_at <= world.now + 1
    world.dead.add(TWO)
    pass_time(world, 4)
    assert all(router.server_name != "main-2" for router in world.routers_of(SESSION))


def test_a_restarted_server_gets_its_routers_back(world: Any) -> None:
    started(world)
    before = {router.key for router in world.routers_of(SESSION)}
    world.die(TWO)
    pass_time(world, 1)
    world.connect(TWO, instance="main-2-again")
    world.settle()
    assert {router.key for router in world.routers_of(SESSION)} == before
    assert world.views[TWO].routers, "reopened from the desired state"
    assert world.notes("ServerLost") == []


def test_half_the_servers_and_more_falling_silent_freezes(world: Any) -> None:
    started(world)
    before = {router.key for router in world.routers_of(SESSION)}
    world.die(ONE, TWO)
    pass_time(world, 20)
    assert {router.key for router in world.routers_of(SESSION)} == before
    assert world.condition("MediaCluster", ObjectKey("media", "main"), "Frozen")[:2] == (
        "True",
        "ServersSilent",
    )
    assert world.condition("MediaCluster", ObjectKey("media", "main"), "Ready")[:2] == (
        "False",
        "ServersSilent",
    )
    pass_time(world, 45)
    assert world.condition("MediaCluster", ObjectKey("media", "main"), "Frozen")[0] == "False"
    assert sorted(router.server_name for router in world.routers_of(SESSION)).count("main-3") == 2
    assert len(world.notes("Frozen")) == 1


def test_servers_that_fall_silent_one_after_another_do_not_freeze(world: Any) -> None:
    started(world, routers=1)
    world.die(ONE)
    pass_time(world, 15)
    world.die(TWO)
    pass_time(world, 15)
    assert world.notes("Frozen") == []
    assert len(world.notes("ServerLost")) == 2
    assert [router.server_name for router in world.routers_of(SESSION)] == ["main-3"]


def test_cut_off_from_all_servers_nothing_moves_however_long(world: Any) -> None:
    started(world)
    before = {router.key: router for router in world.routers_of(SESSION)}
    world.die(ONE, TWO, THREE)
    pass_time(world, 100)
    assert {router.key: router for router in world.routers_of(SESSION)} == before
    assert world.condition("MediaCluster", ObjectKey("media", "main"), "Frozen")[:2] == (
        "True",
        "NoServerConnected",
    )
    for server in (ONE, TWO, THREE):
        world.connect(server)
    world.settle()
    assert {router.key for router in world.routers_of(SESSION)} == set(before)
    assert world.condition("MediaSession", SESSION, "Ready")[0] == "True"


def test_a_new_leader_waits_before_it_judges(world: Any) -> None:
    started(world)
    before = {router.key for router in world.routers_of(SESSION)}
    world.die(TWO)
    world.memory = Memory()
    world.leading_since = world.now
    world.view(TWO, last_heard=None, hello=None, load=None)
    statuses = {key: dict(obj["status"]) for key, obj in world.objects.items()}
    made = world.plan(EVERYTHING)
    assert made.actions == ()
    links = {key for key in made.desired[SESSION][ONE] if key.startswith("link/")}
    assert len(links) == 2, "links to the silent server stay asked for"
    world.act(made)
    pass_time(world, 7)
    assert {router.key for router in world.routers_of(SESSION)} == before
    assert world.objects["MediaSession", SESSION]["status"] == statuses["MediaSession", SESSION]
    pass_time(world, 2)
    assert {router.server_name for router in world.routers_of(SESSION)} == {"main-1", "main-3"}


def test_a_new_leader_with_all_servers_judges_at_once(world: Any) -> None:
    started(world)
    world.memory = Memory()
    world.leading_since = world.now
    world.act(world.plan(EVERYTHING))
    world.settle()
    world.die(TWO)
    pass_time(world, 3)
    assert {router.server_name for router in world.routers_of(SESSION)} == {"main-1", "main-3"}


def test_a_link_that_is_made_anew_does_not_lose_its_server(world: Any) -> None:
    """As when the address or the silenceTimeout is changed: the new link has heard nothing yet."""
    started(world)
    before = {router.key for router in world.routers_of(SESSION)}
    world.views.pop(TWO)
    world.scope |= Scope(servers=frozenset({TWO}))
    pass_time(world, 2)
    assert {router.key for router in world.routers_of(SESSION)} == before
    world.connect(TWO)
    world.settle()
    assert {router.key for router in world.routers_of(SESSION)} == before
    world.views.pop(TWO)
    world.scope |= Scope(servers=frozenset({TWO}))
    pass_time(world, 4)
    assert {router.server_name for router in world.routers_of(SESSION)} == {"main-1", "main-3"}


def test_a_server_that_only_refuses_was_never_connected(world: Any) -> None:
    world.server("other", connect=False)
    other = ObjectKey("media", "other")
    world.refuse(other, "OtherCluster", "it belongs to another cluster")
    pass_time(world, 15)
    assert world.condition("MediaServer", other, "Ready")[:2] == ("False", "OtherCluster")
    assert world.notes("ServerLost") == []


def test_a_failing_worker_s_router_moves(world: Any) -> None:
    started(world)
    old = router_on(world, TWO)
    world.fail_worker(TWO, old.worker_slot)
    world.settle()
    routers = world.routers_of(SESSION)
    assert len(routers) == 3
    assert old.key not in {router.key for router in routers}
    assert router_on(world, TWO).worker_slot != old.worker_slot, "its server's other worker is free"
    assert world.condition("MediaServer", TWO, "Ready")[:2] == ("False", "WorkerFailing")


def test_a_server_whose_object_is_gone_loses_its_routers(world: Any) -> None:
    started(world)
    world.delete("MediaServer", *TWO)
    world.settle()
    assert {router.server_name for router in world.routers_of(SESSION)} == {"main-1", "main-3"}
    assert len(world.routers_of(SESSION)) == 3


def test_a_fresh_cluster_without_servers_is_not_frozen(make_world: Any) -> None:
    world = make_world()
    cluster = world.cluster()
    world.settle()
    assert world.condition("MediaCluster", cluster.key, "Frozen")[0] == "False"
    assert world.condition("MediaCluster", cluster.key, "Available")[:2] == ("False", "NoServers")


def test_a_lost_link_is_told_once_and_once_when_it_is_back(world: Any) -> None:
    started(world, routers=2)
    view = next(view for view in world.views.values() if view.links)
    key, state = next(iter(view.links.items()))
    down = msgspec.structs.replace(state, ready=False, reason="MediaStalled", message="no bytes for 3 s")
    view.reported.put(key, down)
    world.scope |= Scope(sessions=frozenset({SESSION}))
    for _ in range(3):
        world.act(world.plan(), obey=False)
        world.scope |= Scope(sessions=frozenset({SESSION}))
    assert world.condition("MediaSession", SESSION, "Linked")[:2] == ("False", "MediaStalled")
    assert len(world.notes("LinkDown")) == 1
    world.settle()
    world.settle()
    assert len(world.notes("LinkRestored")) == 1
    assert len(world.notes("LinkDown")) == 1
    assert world.memory.links_down == {}


def test_an_incomplete_snapshot_plans_nothing(world: Any) -> None:
    world.session(min=3)
    made = plan(replace(world.snapshot, complete=False), world.memory, EVERYTHING)
    assert (made.actions, made.desired, made.statuses, made.memory) == ((), {}, (), world.memory)
