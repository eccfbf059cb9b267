"""Workers and pipe ports that are free, and the least loaded place for one more router.

One `Capacity` serves one plan and counts what that plan places, so that sessions planned together don't
pile up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mafalda_operator.model import ObjectKey, Snapshot
from mafalda_operator.planning.memory import Reservation
from mafalda_operator.planning.recovery import Standing

RESERVED_FOR = 3.0
"""Seconds until a server's load (sent every second) shows the pipe ports of routers placed on it."""

CPU_WEIGHT = 10.0
"""A worker that uses a whole core counts as this many idle routers. What applications' workers use of a
server's cores counts as if each of its workers used an equal part of it."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    server: ObjectKey
    slot: int


@dataclass(slots=True)
class _Offer:
    """A server that takes routers."""

    zone: str
    pipe_protocol: int
    loads: dict[int, float]
    """By running slot."""
    free_ports: int
    order: list[int] = field(default_factory=list)
    """Slots by load, least first."""
    total: float = 0.0

    def sort(self) -> None:
        self.total = sum(self.loads.values())
        self.order = sorted(self.loads, key=lambda slot: (self.loads[slot], slot))


@dataclass(slots=True)
class Occupied:
    """What a session has: its workers (those of routers being ended too), and the routers that count."""

    workers: set[Place] = field(default_factory=set)
    members: list[Place] = field(default_factory=list)
    protocol: int | None = None
    """Pipe protocol of its routers; None while it has none on a server that is known."""


class Capacity:
    def __init__(
        self, standings: Mapping[ObjectKey, Standing], snapshot: Snapshot, reservations: Iterable[Reservation]
    ) -> None:
        self._offers: dict[ObjectKey, _Offer] = {}
        self.reserved: list[Reservation] = []
        self._until = snapshot.now + RESERVED_FOR
        for key in sorted(standings):
            if accepting_reason(standings[key]) is None:
                self._offers[key] = _offer(standings[key], snapshot.slot_routers.get(key, {}))
        for reservation in reservations:
            offer = self._offers.get(reservation.server)
            if offer is not None:
                offer.free_ports -= reservation.ports

    @property
    def servers(self) -> list[ObjectKey]:
        """Those that take routers, ordered by name."""
        return list(self._offers)

    @property
    def zones(self) -> frozenset[str]:
        return frozenset(offer.zone for offer in self._offers.values() if offer.zone)

    def free_workers(self, occupied: Occupied) -> tuple[int, int]:
        """Running workers that hold no router of the session, and all of them."""
        every = [Place(key, slot) for key, offer in self._offers.items() for slot in offer.loads]
        return sum(1 for place in every if place not in occupied.workers), len(every)

    def lacks_ports(self, occupied: Occupied) -> bool:
        """Whether pipe ports, rather than workers, are what a further router of the session lacks."""
        return bool(occupied.members) and self.free_workers(occupied)[0] > 0

    def choose_protocol(self, wanted: int, occupied: Occupied) -> int | None:
        """The pipe protocol that a session's routers should share: that of those it has; else the newest with
        ``wanted`` workers, else the one with the most."""
        if occupied.protocol is not None:
            return occupied.protocol
        workers: dict[int, int] = {}
        for offer in self._offers.values():
            workers[offer.pipe_protocol] = workers.get(offer.pipe_protocol, 0) + len(offer.loads)
        if not workers:
            return None
        return max(workers, key=lambda protocol: (min(workers[protocol], wanted), protocol))

    def pick(
        self,
        occupied: Occupied,
        *,
        protocol: int | None,
        links: int = 0,
        zone: str = "",
        only: ObjectKey | None = None,
    ) -> Place | None:
        """The best free worker for one more router of a session; None: there is none.

        That is one on a server that the session doesn't use yet, in a zone that it doesn't use yet, least
        loaded, in this order. ``only`` and ``zone`` restrict the choice. ``links`` is how many the router
        will have in the end: servers without so many free pipe ports are the last choice.
        """
        return self._pick(occupied, protocol, links, zone, only) or self._pick(
            occupied, protocol, 0, zone, only
        )

    def _pick(
        self, occupied: Occupied, protocol: int | None, links: int, zone: str, only: ObjectKey | None
    ) -> Place | None:
        used_servers = {place.server for place in occupied.members}
        used_zones = {offer.zone for key in used_servers if (offer := self._offers.get(key))}
        if any(self._ports(server) < 1 for server in used_servers):
            return None
        best: tuple[tuple[bool, bool, float, float], Place] | None = None
        for key, offer in self._offers.items():
            if (only is not None and key != only) or (zone and offer.zone != zone):
                continue
            if protocol is not None and only is None and offer.pipe_protocol != protocol:
                continue
            if offer.free_ports < max(links, self._ports_needed(key, occupied)):
                continue
            slot = _free_slot(key, offer, occupied.workers)
            if slot is None:
                continue
            rank = (
                key in used_servers,
                offer.zone in used_zones,
                offer.loads[slot],
                offer.total,
            )
            if best is None or rank < best[0]:
                best = (rank, Place(key, slot))
        return best[1] if best else None

    def take(self, place: Place, occupied: Occupied) -> None:
        """Count one more router of the session at ``place``, with its links."""
        offer = self._offers.get(place.server)
        if offer is not None:
            offer.loads[place.slot] = offer.loads.get(place.slot, 0.0) + 1.0
            offer.sort()
            if occupied.protocol is None:
                occupied.protocol = offer.pipe_protocol
        for member in occupied.members:
            self._reserve(member.server)
            self._reserve(place.server)
        occupied.workers.add(place)
        occupied.members.append(place)

    def _ports(self, server: ObjectKey) -> int:
        offer = self._offers.get(server)
        return offer.free_ports if offer else 1

    def _ports_needed(self, server: ObjectKey, occupied: Occupied) -> int:
        """One for each link, two for a link to a router of the same server."""
        return sum(2 if member.server == server else 1 for member in occupied.members)

    def _reserve(self, server: ObjectKey) -> None:
        self.reserved.append(Reservation(server, 1, self._until))
        offer = self._offers.get(server)
        if offer is not None:
            offer.free_ports -= 1


def _offer(standing: Standing, routers: Mapping[int, int]) -> _Offer:
    view = standing.view
    assert view.hello is not None  # accepting_reason has looked
    assert view.load is not None
    cpu = {worker.slot: worker.cpu for worker in view.load.workers}
    tenants = view.load.tenants.cpu / len(view.workers) if view.load.tenants else 0.0
    offer = _Offer(
        zone=zone_of(standing),
        pipe_protocol=view.hello.pipe_protocol,
        loads={
            slot: routers.get(slot, 0) + CPU_WEIGHT * round(cpu.get(slot, 0.0) + tenants, 1)
            for slot, worker in view.workers.items()
            if worker.state == "Running"
        },
        free_ports=view.load.free_pipe_ports,
    )
    offer.sort()
    return offer


def _free_slot(server: ObjectKey, offer: _Offer, workers: AbstractSet[Place]) -> int | None:
    return next((slot for slot in offer.order if Place(server, slot) not in workers), None)


def zone_of(standing: Standing) -> str:
    """spec.zone, else what the server says."""
    hello = standing.view.hello
    return standing.server.zone or (hello.zone if hello else str(standing.server.status.get("zone", "")))


def accepting_reason(standing: Standing) -> str | None:
    """Why a server takes no routers, in one word; None: it does."""
    view = standing.view
    if standing.state != "Connected" or view.hello is None:
        return "NotConnected"
    if standing.server.deleting:
        return "Deleting"
    if standing.drain is not None:
        return "Drained" if standing.drain.drained else "Draining"
    if standing.server.desired_state == "Cordoned":
        return "Cordoned"
    if view.load is None:
        return "NoLoadYet"
    if not any(worker.state == "Running" for worker in view.workers.values()):
        return "NoWorkerRunning"
    return None
