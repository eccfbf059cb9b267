"""A world in memory: objects, media servers that do as told, and a clock, for tests of planning."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from mafalda_operator.model import (
    API_VERSION,
    EVERYTHING,
    NOTHING,
    ConnectionProblem,
    Inventory,
    KeySecret,
    MediaCluster,
    MediaRouter,
    MediaServer,
    MediaSession,
    NamespaceInfo,
    ObjectKey,
    Refusal,
    Reported,
    Scope,
    ServerView,
    Snapshot,
)
from mafalda_operator.planning import (
    BindRouter,
    CreateRouter,
    CreateTokenKeys,
    DeleteRouter,
    DesiredBook,
    Memory,
    Plan,
    plan,
)

from mediaserver.control import contract

PARSERS = {
    "MediaCluster": MediaCluster.parse,
    "MediaServer": MediaServer.parse,
    "MediaSession": MediaSession.parse,
    "MediaRouter": MediaRouter.parse,
}
KEY = b"k" * 32


class World:
    """Media servers here open what they are told at once; `settle` plans and acts until nothing is left."""

    def __init__(self, *, now: float = 1000.0) -> None:
        self.inventory = Inventory()
        self.views: dict[ObjectKey, ServerView] = {}
        self.objects: dict[tuple[str, ObjectKey], dict[str, Any]] = {}
        self.now = now
        self.leading_since = now
        self.memory = Memory()
        self.book = DesiredBook()
        self.scope: Scope = EVERYTHING
        self.plans: list[Plan] = []
        self.dead: set[ObjectKey] = set()
        self.participants: Counter[str] = Counter()
        """By router key: those who are attached. Sent away, they attach to another router of the session."""
        self.stubborn = False
        """Participants stay where they are, whatever they are asked."""
        self.cut = 0
        """How many lost their router without having been asked to go elsewhere before."""
        self._uids = itertools.count(1)

    # -- objects ------------------------------------------------------------------------------------------

    def put(self, kind: str, namespace: str, name: str, spec: dict[str, Any], **metadata: Any) -> Any:
        key = ObjectKey(namespace, name)
        old = self.objects.get((kind, key))
        obj = {
            "apiVersion": API_VERSION,
            "kind": kind,
            "metadata": {
                "namespace": namespace,
                "name": name,
                "uid": old["metadata"]["uid"] if old else f"uid-{next(self._uids)}",
                "generation": old["metadata"]["generation"] + 1 if old else 1,
                "creationTimestamp": old["metadata"]["creationTimestamp"] if old else self.wall_time,
                **metadata,
            },
            "spec": spec,
            "status": old["status"] if old else {},
        }
        self.objects[kind, key] = obj
        if namespace not in self.inventory.namespaces:
            self.scope |= self.inventory.put_namespace(namespace, NamespaceInfo({"name": namespace}))
        return self._parse(kind, key)

    def _parse(self, kind: str, key: ObjectKey) -> Any:
        resource = PARSERS[kind](copy.deepcopy(self.objects[kind, key]))
        self.scope |= self.inventory.put(resource)
        return resource

    def delete(self, kind: Any, namespace: str, name: str) -> None:
        key = ObjectKey(namespace, name)
        del self.objects[kind, key]
        self.scope |= self.inventory.remove(kind, key)

    def cluster(self, name: str = "main", namespace: str = "media", **spec: Any) -> MediaCluster:
        spec.setdefault("publicURL", "wss://media.example.com")
        spec.setdefault("allowedSessions", {"namespaces": {"from": "All"}})
        cluster: MediaCluster = self.put("MediaCluster", namespace, name, spec)
        sets = {key_set.name: KeySecret({"k1": KEY}) for key_set in cluster.key_sets}
        self.scope |= self.inventory.put_token_keys(cluster.key, sets)
        return cluster

    def server(
        self,
        name: str,
        *,
        cluster: str = "main",
        namespace: str = "media",
        connect: bool = True,
        spec: dict[str, Any] | None = None,
        **hello: Any,
    ) -> ObjectKey:
        spec = {"clusterRef": {"name": cluster}, "endpoint": {"address": f"{name}:4000"}, **(spec or {})}
        server = self.put("MediaServer", namespace, name, spec)
        if connect:
            self.connect(server.key, **hello)
        return server.key

    def session(self, name: str = "standup", namespace: str = "shop", **spec: Any) -> ObjectKey:
        spec.setdefault("clusterRef", {"name": "main", "namespace": "media"})
        if "min" in spec:
            spec["routers"] = {"min": spec.pop("min")}
        key: ObjectKey = self.put("MediaSession", namespace, name, spec).key
        return key

    def router(self, name: str, namespace: str = "shop", session: str = "standup", **spec: Any) -> ObjectKey:
        key: ObjectKey = self.put("MediaRouter", namespace, name, {"sessionName": session, **spec}).key
        return key

    # -- servers ------------------------------------------------------------------------------------------

    def connect(
        self,
        key: ObjectKey,
        *,
        workers: int = 2,
        zone: str = "",
        ports: int = 100,
        pipe_protocol: int = 1,
        instance: str = "",
        sends_away: bool = True,
    ) -> None:
        states = [contract.WorkerState(slot=slot, state="Running") for slot in range(workers)]
        hello = contract.ServerHello(
            protocol_version=1,
            cluster_uid="",
            instance_id=instance or f"{key}-1",
            highest_epoch=0,
            version="0.1.0",
            worker_version="3.27.1",
            pipe_protocol=pipe_protocol,
            workers=states,
            control=contract.Address(host=key.name, port=4000),
            peer=contract.Address(host=key.name, port=4000),
            participants=contract.Address(host=key.name, port=4001),
            client=contract.PortRange(host=key.name, port=10000, end_port=10010),
            pipe=contract.PortRange(host=key.name, port=20000, end_port=20099),
            nonce="",
            proof="",
            zone=zone,
            sends_away=sends_away,
        )
        reported = Reported()
        for state in states:
            reported.put(contract.worker_key(state.slot), state)
        self.dead.discard(key)
        self.views[key] = ServerView(
            key=key,
            connected=True,
            last_heard=self.now,
            hello=hello,
            reported=reported,
            report_received=True,
            load=contract.Load(
                workers=[
                    contract.WorkerLoad(slot=slot, cpu=0.0, routers=0, producers=0, consumers=0)
                    for slot in range(workers)
                ],
                routers={},
                peers=[],
                free_pipe_ports=ports,
            ),
            load_at=self.now,
        )
        self.scope |= Scope(servers=frozenset({key}))

    def drain(self, key: ObjectKey, state: str = "Drained") -> None:
        """What a user writes into spec.desiredState; `Active` calls it off."""
        spec = {**self.objects["MediaServer", key]["spec"], "desiredState": state}
        self.put("MediaServer", *key, spec)

    def say_leaving(self, key: ObjectKey, deadline: float = 900.0) -> None:
        """The server's process was told to end, and says so."""
        self.views[key].reported.put(
            contract.LEAVING_KEY, contract.LeavingState(reason="SIGTERM", deadline=deadline)
        )
        self.scope |= Scope(servers=frozenset({key}))

    def attend(self, session: ObjectKey, count: int = 1) -> None:
        """Participants come in on a ready router, rather on one that isn't leaving; nowhere if none is."""
        uid = self.inventory.sessions[session].uid
        if (router := self._choose(uid)) is not None:
            self.participants[router] += count
            self.load()

    def _choose(self, session_uid: str) -> str | None:
        ready = [
            (state.leaving, key)
            for server, view in self.views.items()
            if view.connected and server not in self.dead
            for key, state in view.routers.items()
            if state.session_uid == session_uid and state.ready
        ]
        return min(ready)[1] if ready else None

    def load(self) -> None:
        """Servers tell how many participants their routers have."""
        for server, view in self.views.items():
            if view.load is None:
                continue
            routers = {
                key: contract.RouterLoad(participants=self.participants[key], producers=0, consumers=0)
                for key in view.routers
            }
            self.views[server] = replace(view, load=msgspec.structs.replace(view.load, routers=routers))

    def view(self, key: ObjectKey, **changes: Any) -> None:
        self.views[key] = replace(self.views.get(key) or ServerView(key=key), **changes)
        self.scope |= Scope(servers=frozenset({key}))

    def die(self, *keys: ObjectKey) -> None:
        """The servers are gone: nobody hears them from now on."""
        for key in keys:
            self.dead.add(key)
            self.view(key, connected=False)

    def use_tenants(self, key: ObjectKey, cpu: float) -> None:
        """Applications' workers use that many of the server's cores from now on."""
        load = self.views[key].load
        assert load is not None
        tenants = contract.TenantLoad(workers=1, free=1, cpu=cpu)
        self.view(key, load=msgspec.structs.replace(load, tenants=tenants))

    def fail_worker(self, key: ObjectKey, slot: int) -> None:
        view = self.views[key]
        view.reported.put(
            contract.worker_key(slot), contract.WorkerState(slot=slot, state="Failing", reason="died 5 times")
        )
        self.scope |= Scope(servers=frozenset({key}))

    def refuse(self, key: ObjectKey, reason: str, message: str) -> None:
        self.view(key, connected=False, problem=ConnectionProblem(reason, message))

    def advance(self, seconds: float, *, heard_by: dict[ObjectKey, set[ObjectKey]] | None = None) -> None:
        """Time passes; who is alive is heard by the operator and by all others.

        ``heard_by`` says who else hears whom, for servers that the operator doesn't hear.
        """
        self.now += seconds
        alive = [key for key, view in self.views.items() if view.connected and key not in self.dead]
        for key in alive:
            view = self.views[key]
            assert view.load is not None
            peers = [
                contract.PeerAge(
                    server=str(other), instance_id=other_view.instance_id, age=self._age(key, other, heard_by)
                )
                for other, other_view in self.views.items()
                if other != key and other_view.last_heard is not None
            ]
            load = msgspec.structs.replace(view.load, peers=peers)
            self.views[key] = replace(view, last_heard=self.now, load=load, load_at=self.now)

    def _age(
        self, key: ObjectKey, other: ObjectKey, heard_by: dict[ObjectKey, set[ObjectKey]] | None
    ) -> float:
        view = self.views[other]
        hears = view.connected or key in (heard_by or {}).get(other, set())
        if hears and other not in self.dead:
            return 0.1
        assert view.last_heard is not None
        return self.now - view.last_heard

    # -- planning -----------------------------------------------------------------------------------------

    @property
    def wall_time(self) -> str:
        seconds = int(self.now)
        return f"2026-11-22T{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}Z"

    @property
    def snapshot(self) -> Snapshot:
        return self.inventory.snapshot(
            views=self.views, now=self.now, wall_time=self.wall_time, leading_since=self.leading_since
        )

    def plan(self, scope: Scope | None = None) -> Plan:
        """Plan what changed (or ``scope``) and remember it; nothing is carried out."""
        made = plan(self.snapshot, self.memory, self.scope if scope is None else scope)
        self.scope = NOTHING
        self.memory = made.memory
        self.plans.append(made)
        return made

    def act(self, made: Plan, *, obey: bool = True) -> None:
        """Carry a plan out as effects, API server and media servers do."""
        for action in made.actions:
            self._act(action)
        for status in made.statuses:
            obj = self.objects.get((status.kind, status.key))
            if obj is not None and obj["metadata"]["uid"] == status.uid:
                obj["status"] = copy.deepcopy(dict(status.status))
                self._parse(status.kind, status.key)
        self.book.take(made)
        if obey:
            self.obey()

    def _act(self, action: Any) -> None:
        if isinstance(action, CreateRouter):
            if ("MediaRouter", action.key) in self.objects:
                return
            self.put(
                "MediaRouter",
                *action.key,
                dict(action.spec),
                labels=dict(action.labels),
                annotations=dict(action.annotations),
                ownerReferences=[
                    {
                        "apiVersion": API_VERSION,
                        "kind": "MediaSession",
                        "name": action.owner.name,
                        "uid": action.owner.uid,
                        "controller": True,
                    }
                ],
            )
        elif isinstance(action, DeleteRouter):
            if self.inventory.routers[action.key].uid == action.uid:
                self.delete("MediaRouter", *action.key)
        elif isinstance(action, BindRouter):
            spec = self.objects["MediaRouter", action.key]["spec"]
            self.put(
                "MediaRouter",
                *action.key,
                {**spec, "serverName": action.server.name, "workerSlot": action.slot},
            )
        elif isinstance(action, CreateTokenKeys):
            held = dict(self.inventory.token_keys[action.cluster])
            held[action.key_set] = KeySecret({action.kid: KEY})
            self.scope |= self.inventory.put_token_keys(action.cluster, held)

    def obey(self) -> None:
        """Connected servers open and close what the book says, and report it."""
        for key, view in self.views.items():
            if not view.connected or key in self.dead:
                continue
            wanted: dict[str, Any] = {}
            for name, entry in self.book.of(key).items():
                if isinstance(entry, contract.RouterEntry):
                    wanted[name] = contract.RouterState(
                        namespace=entry.namespace,
                        name=entry.name,
                        session_uid=entry.session_uid,
                        worker_slot=entry.worker_slot,
                        ready=True,
                        id=f"id-{entry.uid}",
                        leaving=entry.leaving and self._sends_away(key),
                    )
                elif isinstance(entry, contract.LinkEntry):
                    wanted[name] = contract.LinkState(
                        namespace=entry.namespace,
                        local_router=entry.local_router,
                        remote_router=entry.remote_router,
                        ready=True,
                    )
            self._report(key, wanted)
        self._move()
        self.load()

    def _sends_away(self, key: ObjectKey) -> bool:
        hello = self.views[key].hello
        return hello is not None and hello.sends_away

    def _move(self) -> None:
        """Who was asked to leave a router attaches to another one; empty ones say so."""
        for server, view in self.views.items():
            if not view.connected or server in self.dead:
                continue
            for key, state in dict(view.routers).items():
                if not state.leaving or state.vacant:
                    continue
                if self.participants[key] and not self.stubborn:
                    other = self._choose(state.session_uid)
                    if other is not None and other != key:
                        self.participants[other] += self.participants.pop(key)
                if not self.participants[key]:
                    view.reported.put(key, msgspec.structs.replace(state, vacant=True))
                    session = self.inventory.session_of(state.namespace, state)
                    if session is not None:
                        self.scope |= Scope(sessions=frozenset({session}))

    def _report(self, key: ObjectKey, wanted: dict[str, Any]) -> None:
        reported = self.views[key].reported
        held: dict[str, Any] = {**reported.routers, **reported.links}
        for name, entry in [*held.items(), *wanted.items()]:
            if _same(wanted.get(name), held.get(name)):
                continue
            if isinstance(entry, contract.RouterState) and name not in wanted:
                self.cut += self.participants.pop(name, 0)
            if name in wanted:
                reported.put(name, wanted[name])
            else:
                reported.discard(name)
            session = self.inventory.session_of(entry.namespace, entry)
            if session is not None:
                self.scope |= Scope(sessions=frozenset({session}))

    def settle(self, limit: int = 20) -> None:
        """Plan and act until nothing is left; fails when that never happens."""
        for _ in range(limit):
            made = self.plan()
            self.act(made)
            if not made.actions and not made.statuses and not self.scope:
                return
        raise AssertionError(f"still busy after {limit} plans: {self.plans[-1]}")

    # -- looking ------------------------------------------------------------------------------------------

    def routers_of(self, session: ObjectKey) -> list[MediaRouter]:
        return [router for router in self.inventory.routers.values() if router.session == session]

    def status(self, kind: str, key: ObjectKey) -> dict[str, Any]:
        status: dict[str, Any] = self.objects[kind, key]["status"]
        return status

    def condition(self, kind: str, key: ObjectKey, which: str) -> tuple[str, str, str]:
        for item in self.status(kind, key).get("conditions", []):
            if item["type"] == which:
                return item["status"], item["reason"], item["message"]
        raise AssertionError(f"{kind} {key} has no condition {which}: {self.status(kind, key)}")

    def notes(self, reason: str) -> list[str]:
        return [note.message for made in self.plans for note in made.notes if note.reason == reason]

    def put_refusal(self, key: ObjectKey, reason: str, message: str, retry_in: float) -> None:
        self.inventory.put_refusal(key, Refusal(reason, message, self.now + retry_in))


def _same(wanted: Any, held: Any) -> bool:
    """Whether a server need report nothing: that a router is vacant it finds out later, and keeps saying."""
    if isinstance(wanted, contract.RouterState) and isinstance(held, contract.RouterState):
        return wanted == msgspec.structs.replace(held, vacant=False)
    return bool(wanted == held)


@pytest.fixture(scope="session")
def make_world() -> type[World]:
    """The class, since property tests make a world for each example."""
    return World


@pytest.fixture
def world() -> World:
    """One cluster `media/main` with three servers of two workers each, all connected."""
    made = World()
    made.cluster()
    for name in ("main-1", "main-2", "main-3"):
        made.server(name)
    made.settle()
    return made
