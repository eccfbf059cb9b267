"""What a user gets from a running operator, on a real API server with fake media servers."""

from __future__ import annotations

from integration.operator.world import World
from mafalda_operator.effects.api import EVENTS, ROUTERS, SECRETS, SESSIONS, Resource
from mafalda_operator.effects.errors import NotFound


async def test_a_session_becomes_ready_and_ends(world: World) -> None:
    await world.cluster_of(servers=3)
    await world.operator()
    await world.session("standup", routers=3)
    await world.ready("standup")
    session = await world.api.get(SESSIONS, world.name, "standup")
    status = session["status"]
    assert status["readyRouters"] == 3
    assert status["observedGeneration"] == 1
    assert len(status["links"]) == 3
    assert all(link["ready"] for link in status["links"])
    assert status["url"].endswith(f"/?roomId={world.name}/standup")
    assert session["metadata"].get("finalizers") is None
    await world.consistent(3, sessions=1)

    async def routers_ready() -> bool:
        names = await world.routers()
        return all(
            [(await world.condition(ROUTERS, name, "Ready")).get("status") == "True" for name in names]
        )

    await world.eventually(routers_ready, "router statuses")
    for router in (await world.api.list(ROUTERS, world.name)).items:
        owner = router["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["uid"]) == ("MediaSession", session["metadata"]["uid"])

    await world.delete_session("standup")

    async def gone() -> bool:
        return not await world.routers() and not world.hosted()

    await world.eventually(gone, "routers gone everywhere")


async def test_token_keys_are_made_once_and_a_rotated_one_reaches_the_servers(world: World) -> None:
    await world.cluster_of(servers=1)
    first = await world.operator()
    await world.session("standup", routers=1)
    await world.ready("standup")
    secret = await world.api.get(SECRETS, world.name, "main-token-keys")
    assert len(secret["data"]) == 1
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "MediaCluster"
    await first.end()
    await world.operator()
    await world.api.patch(SECRETS, world.name, "main-token-keys", {"data": {"second": "QUJD" * 12}})
    (server,) = world.servers.values()

    async def told() -> bool:
        entry = server.desired.get(f"session/{world.name}/standup")
        return set(getattr(entry, "token_keys", {})) == {*secret["data"], "second"}

    await world.eventually(told, "both keys at the server")
    again = await world.api.get(SECRETS, world.name, "main-token-keys")
    assert again["data"].items() >= secret["data"].items()


async def test_events_tell_what_happened(world: World) -> None:
    await world.cluster_of(servers=2)
    await world.operator()
    await world.session("standup")
    await world.ready("standup")

    async def told() -> bool:
        events = (await world.api.list(EVENTS, world.name)).items
        return any(
            event["reason"] == "Scheduled" and event["involvedObject"]["name"] == "standup"
            for event in events
        )

    await world.eventually(told, "a Scheduled event")


async def test_a_namespace_deletion_finishes(world: World) -> None:
    await world.cluster_of(servers=2)
    await world.operator()
    await world.session("one")
    await world.session("two")
    await world.ready("one", "two")
    await world.delete_namespace()

    async def gone() -> bool:
        try:
            await world.api.get(Resource("Namespace", "namespaces", namespaced=False), None, world.name)
        except NotFound:
            return True
        return False

    await world.eventually(gone, "namespace gone", timeout=60)


async def test_a_quota_shows_in_the_session_and_is_retried(world: World) -> None:
    await world.cluster_of(servers=2)
    quotas = Resource("ResourceQuota", "resourcequotas")
    hard = {"count/mediarouters.mafalda.io": "1"}
    quota = await world.api.create(quotas, world.name, {"metadata": {"name": "few"}, "spec": {"hard": hard}})
    used = {"hard": hard, "used": {"count/mediarouters.mafalda.io": "0"}}
    await world.api.patch(quotas, world.name, "few", {"status": used}, subresource="status")
    await world.operator()
    await world.session("standup", routers=2)

    async def refused() -> bool:
        return (await world.condition(SESSIONS, "standup", "Scheduled")).get("reason") == "QuotaExceeded"

    await world.eventually(refused, "Scheduled=False QuotaExceeded")
    assert len(await world.routers()) == 1
    assert (await world.condition(SESSIONS, "standup", "Available"))["status"] == "True"
    await world.api.delete(quotas, world.name, "few", uid=quota["metadata"]["uid"])
    await world.ready("standup", timeout=40)
