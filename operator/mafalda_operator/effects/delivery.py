"""What servers are told of a plan, and what is withheld from them.

An apply that would close more than a few of a server's live routers goes out only once a fresh LIST has
confirmed that they are gone, moved or without a session. Until then a released server keeps them and gets
everything else; a server on a new connection is told nothing, since its first apply is the whole state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

from mafalda_operator.effects.servers import ServerLinks
from mafalda_operator.model import Inventory, ObjectKey
from mafalda_operator.planning.actions import Plan
from mafalda_operator.planning.book import DesiredBook, ServerChange
from mafalda_operator.planning.guard import ALWAYS_ALLOWED, Withheld, check_apply
from mediaserver.control.contract import RouterState

log = structlog.get_logger(__name__)


class Fresh(Protocol):
    """A source of fresh reads (`listing.Lister`)."""

    def request(self, reason: str, *, suspect: bool = True) -> float:
        """Ask for a LIST; the moment to compare with."""

    def fresh_since(self, moment: float) -> bool:
        """Whether a LIST that began after that moment has replaced the inventory."""


@dataclass
class _Held:
    """What is not told to a server yet."""

    withheld: Withheld
    asked: float
    gone: dict[str, None]
    """Keys to remove; empty for a server that is not released."""
    told: bool = False


class Delivery:
    """``on_withheld`` is called once for each server and withheld apply that a fresh read did not confirm."""

    def __init__(
        self,
        links: ServerLinks,
        inventory: Inventory,
        fresh: Fresh,
        on_withheld: Callable[[Withheld], None],
    ) -> None:
        self._links, self._inventory, self._fresh, self._on_withheld = links, inventory, fresh, on_withheld
        self._book = DesiredBook()
        self._held: dict[ObjectKey, _Held] = {}

    @property
    def withheld(self) -> Mapping[ObjectKey, Withheld]:
        """By server, what a fresh read did not confirm."""
        return {server: held.withheld for server, held in self._held.items() if held.told}

    def take(self, plan: Plan) -> None:
        """Fold the plan in; tell the servers what changed, and new connections everything."""
        for server, change in self._book.take(plan).items():
            if self._links.released(server):
                self._tell_change(server, change)

    def forget(self, server: ObjectKey) -> None:
        """Its MediaServer is gone."""
        self._book.forget(server)
        self._held.pop(server, None)

    def refresh(self, servers: Iterable[ObjectKey]) -> None:
        """Tell new connections everything, and try again what is withheld."""
        for server in servers:
            view = self._links.view(server)
            if view is None:
                continue
            if not self._links.released(server):
                if view.report_received:
                    self._tell_all(server)
            elif server in self._held:
                self._tell_change(server, ServerChange())

    # -- telling ----------------------------------------------------------------------------------------

    def _tell_all(self, server: ObjectKey) -> None:
        if self._allowed(server, {}):
            self._links.release(server, self._book.of(server))

    def _tell_change(self, server: ObjectKey, change: ServerChange) -> None:
        held, wanted = self._held.get(server), self._book.of(server)
        asked_for = [*(held.gone if held is not None else ()), *change.gone]
        gone = {key: None for key in asked_for if key not in wanted}
        if not gone:
            self._held.pop(server, None)
        elif not self._allowed(server, gone):
            gone = {}
        change = ServerChange(changed=change.changed, gone=list(gone))
        if change.changed or change.gone:
            self._links.send(server, change)

    def _allowed(self, server: ObjectKey, gone: dict[str, None]) -> bool:
        """Whether the server may be told now; if not, a fresh read is asked for and judged later."""
        view = self._links.view(server)
        live = view.routers if view is not None else {}
        closing = [key for key in (gone or live) if key in live]
        if len(closing) <= ALWAYS_ALLOWED:
            self._held.pop(server, None)
            return True
        held = self._held.get(server)
        answered = held is not None and self._fresh.fresh_since(held.asked)
        confirmed = {key for key in closing if self._is_gone(server, live[key])} if answered else set()
        withheld = check_apply(server, live, self._book.of(server), confirmed)
        if withheld is None:
            self._held.pop(server, None)
            return True
        self._hold(server, withheld, gone, answered=answered)
        return False

    def _hold(self, server: ObjectKey, withheld: Withheld, gone: dict[str, None], *, answered: bool) -> None:
        held = self._held.get(server)
        if held is None:
            reason = f"to confirm that {len(withheld.closing)} routers of {server} are to be closed"
            self._held[server] = _Held(withheld, self._fresh.request(reason, suspect=False), gone)
            return
        held.withheld, held.gone = withheld, gone
        if answered and not held.told:
            held.told = True
            log.error(withheld.message, server=str(server), reason="ApplyWithheld")
            self._on_withheld(withheld)

    def _is_gone(self, server: ObjectKey, state: RouterState) -> bool:
        """Whether the (fresh) inventory lacks the router, or has it elsewhere or without a session."""
        router = self._inventory.routers.get(ObjectKey(state.namespace, state.name))
        if router is None or router.deleting:
            return True
        session = self._inventory.sessions.get(router.session)
        if session is None or session.deleting or session.uid != state.session_uid:
            return True
        bound = ObjectKey(session.cluster.namespace, router.server_name) if router.server_name else None
        return bound != server or router.worker_slot != state.worker_slot
