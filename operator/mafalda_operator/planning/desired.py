"""What the servers of a session are told: entries of the control contract."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from mafalda_operator.model import MediaCluster, MediaSession, ObjectKey, Snapshot
from mafalda_operator.planning.access import Access, awaits_worker_keys, issuers, worker_tokens
from mafalda_operator.planning.codecs import as_capabilities
from mafalda_operator.planning.links import Edge, link_entries
from mafalda_operator.planning.recovery import Standing
from mafalda_operator.planning.topology import Topology
from mediaserver.control.contract import (
    DesiredEntry,
    RouterEntry,
    SessionEntry,
    SettingsEntry,
    router_key,
    session_key,
)


def settings_of(cluster: MediaCluster, snapshot: Snapshot) -> SettingsEntry | None:
    """None while nobody knows yet which applications' keys count: servers keep what they were told before."""
    if awaits_worker_keys(cluster, snapshot):
        return None
    return SettingsEntry(
        prune_delay=cluster.links.prune_delay,
        silence_timeout=cluster.silence_timeout,
        worker_tokens=worker_tokens(cluster, snapshot),
    )


def session_entries(
    session: MediaSession,
    access: Access,
    topology: Topology,
    links: list[Edge],
    keys: Mapping[str, str],
    standings: Mapping[ObjectKey, Standing],
    leaving: AbstractSet[ObjectKey] = frozenset(),
) -> dict[ObjectKey, dict[str, DesiredEntry]]:
    """By server: the session, its routers there, and their ends of its links. Nothing when not accepted.

    ``leaving`` are the routers whose participants are sent elsewhere.
    """
    cluster = access.cluster
    if not access.accepted or cluster is None:
        return {}
    namespace, name = session.key
    entries: dict[ObjectKey, dict[str, DesiredEntry]] = {}
    told = SessionEntry(
        namespace=namespace,
        name=name,
        uid=session.uid,
        issuers=issuers(cluster),
        token_keys=dict(keys),
    )
    codecs = as_capabilities(access.codecs)
    for member in topology.mesh:
        if member.place is None:
            continue
        of_server = entries.setdefault(member.place.server, {session_key(namespace, name): told})
        of_server[router_key(namespace, member.router.key.name)] = RouterEntry(
            namespace=namespace,
            name=member.router.key.name,
            uid=member.router.uid,
            session=name,
            session_uid=session.uid,
            worker_slot=member.place.slot,
            media_codecs=codecs,
            leaving=member.router.key in leaving,
        )
    for edge in links:
        for server, key, entry in link_entries(session, edge, cluster.links.rtx, standings):
            entries[server][key] = entry
    return entries
