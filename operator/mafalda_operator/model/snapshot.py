"""One consistent view of everything a plan looks at, and the inventory that keeps it with its indexes.

The inventory is changed by one writer; a snapshot refers to its maps without copying them, so it is valid
until the next change, and planning (which never suspends) needs no copy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as with_fields

from mafalda_operator.model.keys import Kind, ObjectKey
from mafalda_operator.model.pod_inventory import PodInventory
from mafalda_operator.model.pods import NodeView, ObjectRef, OwnedObject, PodView
from mafalda_operator.model.resources import MediaCluster, MediaRouter, MediaServer, MediaSession
from mafalda_operator.model.scope import NOTHING, Scope, unindex
from mafalda_operator.model.views import KeySecret, NamespaceInfo, Refusal, ServerView, TlsSecret
from mediaserver.control.contract import LinkState, ReportedEntry, RouterState

AnyResource = MediaCluster | MediaServer | MediaSession | MediaRouter


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    clusters: Mapping[ObjectKey, MediaCluster]
    servers: Mapping[ObjectKey, MediaServer]
    sessions: Mapping[ObjectKey, MediaSession]
    routers: Mapping[ObjectKey, MediaRouter]
    namespaces: Mapping[str, NamespaceInfo]
    token_keys: Mapping[ObjectKey, Mapping[str, KeySecret]]
    """By cluster and key set; a cluster or set that is missing has not been read yet."""
    views: Mapping[ObjectKey, ServerView]
    refusals: Mapping[ObjectKey, Refusal]
    """By the key of the MediaRouter whose creation was refused."""
    now: float
    """Monotonic seconds, the clock of every view."""
    wall_time: str
    """RFC 3339 in UTC, whole seconds."""
    leading_since: float
    complete: bool = True
    """All kinds have been listed; nothing may be planned before."""

    sessions_by_cluster: Mapping[ObjectKey, Collection[ObjectKey]] = field(default_factory=dict)
    servers_by_cluster: Mapping[ObjectKey, Collection[ObjectKey]] = field(default_factory=dict)
    routers_by_session: Mapping[ObjectKey, Collection[ObjectKey]] = field(default_factory=dict)
    routers_by_server: Mapping[ObjectKey, Collection[ObjectKey]] = field(default_factory=dict)
    slot_routers: Mapping[ObjectKey, Mapping[int, int]] = field(default_factory=dict)
    """Routers bound to each worker slot of each server."""

    pods: Mapping[ObjectKey, PodView] = field(default_factory=dict)
    """Media server pods; a pod and its MediaServer have the same key."""
    pods_by_cluster: Mapping[ObjectKey, Collection[ObjectKey]] = field(default_factory=dict)
    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    """Empty while no cluster wants pods."""
    owned: Mapping[ObjectRef, OwnedObject] = field(default_factory=dict)
    """ConfigMaps, Services and PodDisruptionBudgets with a cluster's label."""
    followed: Mapping[str, str] = field(default_factory=dict)
    """Namespaces whose pods and owned objects are followed: empty text when all of them (and the nodes) are
    known, else what keeps the operator from knowing them. Nothing is made or deleted before."""
    object_refusals: Mapping[ObjectRef, Refusal] = field(default_factory=dict)
    """Pods, MediaServers and owned objects that the API server would not make."""
    default_image: str = ""
    """Of the pods whose MediaCluster names none; empty: there is none."""

    tls: Mapping[ObjectKey, TlsSecret] = field(default_factory=dict)
    """By cluster, of those that have pods; a cluster that is missing is not looked at yet."""

    def server_of(self, router: MediaRouter) -> ObjectKey | None:
        """The MediaServer that a router is bound to; None when unbound or when its session is gone."""
        session = self.sessions.get(router.session)
        if session is None or router.server_name is None:
            return None
        return ObjectKey(session.cluster.namespace, router.server_name)


class Inventory(PodInventory):
    """Objects by kind with indexes, each kept in step by `put` and `remove` at a cost that doesn't grow.

    Both return the scope to plan anew: empty when nothing but status changed, as after our own patches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers: dict[ObjectKey, MediaServer] = {}
        self.sessions: dict[ObjectKey, MediaSession] = {}
        self.routers: dict[ObjectKey, MediaRouter] = {}
        self.namespaces: dict[str, NamespaceInfo] = {}
        self.token_keys: dict[ObjectKey, Mapping[str, KeySecret]] = {}
        self.refusals: dict[ObjectKey, Refusal] = {}
        self.tls: dict[ObjectKey, TlsSecret] = {}
        self._session_by_uid: dict[str, ObjectKey] = {}
        self._sessions_by_cluster: dict[ObjectKey, dict[ObjectKey, None]] = {}
        self._servers_by_cluster: dict[ObjectKey, dict[ObjectKey, None]] = {}
        self._routers_by_session: dict[ObjectKey, dict[ObjectKey, None]] = {}
        self._routers_by_server: dict[ObjectKey, dict[ObjectKey, None]] = {}
        self._slot_routers: dict[ObjectKey, dict[int, int]] = {}
        self._placed: dict[ObjectKey, tuple[ObjectKey, int | None]] = {}

    def put(self, resource: AnyResource) -> Scope:
        if isinstance(resource, MediaRouter):
            return self._put_router(resource)
        if isinstance(resource, MediaSession):
            return self._put_session(resource)
        if isinstance(resource, MediaServer):
            return self._put_server(resource)
        old = self.clusters.get(resource.key)
        self.clusters[resource.key] = resource
        return NOTHING if _same_but_status(old, resource) else self._scope_of_cluster(resource.key)

    def remove(self, kind: Kind, key: ObjectKey) -> Scope:
        if kind == "MediaRouter":
            router = self.routers.pop(key, None)
            if router is None:
                return NOTHING
            unindex(self._routers_by_session, router.session, key)
            self._place(key, None)
            return Scope(sessions=frozenset({router.session}))
        if kind == "MediaSession":
            session = self.sessions.pop(key, None)
            if session is None:
                return NOTHING
            unindex(self._sessions_by_cluster, session.cluster, key)
            self._session_by_uid.pop(session.uid, None)
            self._place_routers_of(key)
            return Scope(sessions=frozenset({key}), clusters=frozenset({session.cluster}))
        if kind == "MediaServer":
            server = self.servers.pop(key, None)
            if server is None:
                return NOTHING
            unindex(self._servers_by_cluster, server.cluster, key)
            return Scope(servers=frozenset({key}), clusters=frozenset({server.cluster}))
        return self._scope_of_cluster(key) if self.clusters.pop(key, None) else NOTHING

    def put_namespace(self, name: str, info: NamespaceInfo | None) -> Scope:
        """Set or (None) remove a namespace. Costs a look at every session and cluster."""
        if self.namespaces.get(name) == info:
            return NOTHING
        if info is None:
            del self.namespaces[name]
        else:
            self.namespaces[name] = info
        return Scope(
            sessions=frozenset(key for key in self.sessions if key.namespace == name),
            clusters=frozenset(key for key in self.clusters if key.namespace == name),
        )

    def put_token_keys(self, cluster: ObjectKey, sets: Mapping[str, KeySecret]) -> Scope:
        """Set what the Secrets of all the key sets of a cluster hold."""
        if self.token_keys.get(cluster) == sets:
            return NOTHING
        self.token_keys[cluster] = sets
        return self._scope_of_cluster(cluster)

    def put_tls(self, cluster: ObjectKey, secret: TlsSecret | None) -> Scope:
        """Set what there is of a cluster's certificate; None: it needs none."""
        if self.tls.get(cluster) == secret:
            return NOTHING
        if secret is None:
            del self.tls[cluster]
        else:
            self.tls[cluster] = secret
        return Scope(clusters=frozenset({cluster}))

    def put_refusal(self, router: ObjectKey, refusal: Refusal) -> None:
        """Remember that the API server would not create this router. The planner's wake-up retries it."""
        self.refusals[router] = refusal

    def forget_refusals(self, now: float) -> None:
        """Drop those whose time to retry has come and gone by a minute, so that the maps stay small."""
        for key in [key for key, refusal in self.refusals.items() if refusal.retry_at + 60 < now]:
            del self.refusals[key]
        self.forget_object_refusals(now)

    def session_of(self, namespace: str, entry: ReportedEntry) -> ObjectKey | None:
        """The session that a reported router or link belongs to: what to plan when the report changes."""
        if isinstance(entry, RouterState):
            return self._session_by_uid.get(entry.session_uid)
        if isinstance(entry, LinkState):
            router = self.routers.get(ObjectKey(namespace, entry.local_router))
            return router.session if router else None
        return None

    def get(self, kind: str, key: ObjectKey) -> AnyResource | None:
        held: Mapping[str, Mapping[ObjectKey, AnyResource]] = {
            "MediaCluster": self.clusters,
            "MediaServer": self.servers,
            "MediaSession": self.sessions,
            "MediaRouter": self.routers,
        }
        return held[kind].get(key)

    def routers_of(self, session: ObjectKey) -> Collection[ObjectKey]:
        """The routers that name a session, whether it exists or not."""
        return self._routers_by_session.get(session, ())

    def snapshot(
        self,
        *,
        views: Mapping[ObjectKey, ServerView],
        now: float,
        wall_time: str,
        leading_since: float,
        complete: bool = True,
    ) -> Snapshot:
        return Snapshot(
            clusters=self.clusters,
            servers=self.servers,
            sessions=self.sessions,
            routers=self.routers,
            namespaces=self.namespaces,
            token_keys=self.token_keys,
            tls=self.tls,
            views=views,
            refusals=self.refusals,
            now=now,
            wall_time=wall_time,
            leading_since=leading_since,
            complete=complete,
            sessions_by_cluster=self._sessions_by_cluster,
            servers_by_cluster=self._servers_by_cluster,
            routers_by_session=self._routers_by_session,
            routers_by_server=self._routers_by_server,
            slot_routers=self._slot_routers,
            pods=self.pods,
            pods_by_cluster=self.pods_by_cluster,
            nodes=self.nodes,
            owned=self.owned,
            followed=self.followed,
            object_refusals=self.object_refusals,
            default_image=self.default_image,
        )

    # -- keeping the indexes --------------------------------------------------------------------------------

    def _put_router(self, router: MediaRouter) -> Scope:
        old = self.routers.get(router.key)
        self.routers[router.key] = router
        if _same_but_status(old, router):
            return NOTHING
        touched = {router.session}
        if old is not None and old.session != router.session:
            unindex(self._routers_by_session, old.session, router.key)
            touched.add(old.session)
        self._routers_by_session.setdefault(router.session, {})[router.key] = None
        self._place(router.key, router)
        return Scope(sessions=frozenset(touched))

    def _put_session(self, session: MediaSession) -> Scope:
        old = self.sessions.get(session.key)
        self.sessions[session.key] = session
        if _same_but_status(old, session):
            return NOTHING
        clusters = {session.cluster}
        if old is not None:
            clusters.add(old.cluster)
            unindex(self._sessions_by_cluster, old.cluster, session.key)
            self._session_by_uid.pop(old.uid, None)
        self._sessions_by_cluster.setdefault(session.cluster, {})[session.key] = None
        self._session_by_uid[session.uid] = session.key
        if old is None or old.cluster != session.cluster:
            self._place_routers_of(session.key)
        return Scope(sessions=frozenset({session.key}), clusters=frozenset(clusters))

    def _put_server(self, server: MediaServer) -> Scope:
        old = self.servers.get(server.key)
        self.servers[server.key] = server
        if _same_but_status(old, server):
            return NOTHING
        clusters = {server.cluster}
        if old is not None:
            clusters.add(old.cluster)
            unindex(self._servers_by_cluster, old.cluster, server.key)
        self._servers_by_cluster.setdefault(server.cluster, {})[server.key] = None
        return Scope(servers=frozenset({server.key}), clusters=frozenset(clusters))

    def _place_routers_of(self, session: ObjectKey) -> None:
        for key in self._routers_by_session.get(session, ()):
            self._place(key, self.routers[key])

    def _place(self, key: ObjectKey, router: MediaRouter | None) -> None:
        before = self._placed.pop(key, None)
        if before is not None:
            unindex(self._routers_by_server, before[0], key)
            self._count(before[0], before[1], -1)
        session = self.sessions.get(router.session) if router else None
        if router is None or session is None or router.server_name is None:
            return
        server = ObjectKey(session.cluster.namespace, router.server_name)
        self._placed[key] = (server, router.worker_slot)
        self._routers_by_server.setdefault(server, {})[key] = None
        self._count(server, router.worker_slot, 1)

    def _count(self, server: ObjectKey, slot: int | None, change: int) -> None:
        if slot is None:
            return
        slots = self._slot_routers.setdefault(server, {})
        slots[slot] = slots.get(slot, 0) + change
        if not slots[slot]:
            del slots[slot]

    def _scope_of_cluster(self, cluster: ObjectKey) -> Scope:
        return Scope(
            sessions=frozenset(self._sessions_by_cluster.get(cluster, ())),
            servers=frozenset(self._servers_by_cluster.get(cluster, ())),
            clusters=frozenset({cluster}),
        )


def _same_but_status(old: AnyResource | None, new: AnyResource) -> bool:
    if old is None or old.uid != new.uid or old.generation != new.generation or old.deleting != new.deleting:
        return False
    return with_fields(old, status=new.status) == new or _equal_resolved(old, new)


def _equal_resolved(old: AnyResource, new: AnyResource) -> bool:
    if isinstance(old, MediaSession) and isinstance(new, MediaSession):
        return with_fields(old, status=new.status, resolved_codecs=new.resolved_codecs) == new
    return False
