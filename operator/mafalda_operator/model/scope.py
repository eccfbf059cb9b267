"""What changed since the last plan, and so has to be planned anew."""

from __future__ import annotations

from dataclasses import dataclass

from mafalda_operator.model.keys import ObjectKey


@dataclass(frozen=True, slots=True)
class Scope:
    """What changed since the last plan; None stands for all of that kind."""

    sessions: frozenset[ObjectKey] | None = frozenset()
    servers: frozenset[ObjectKey] | None = frozenset()
    clusters: frozenset[ObjectKey] | None = frozenset()

    def __or__(self, other: Scope) -> Scope:
        return Scope(
            _either(self.sessions, other.sessions),
            _either(self.servers, other.servers),
            _either(self.clusters, other.clusters),
        )

    def __bool__(self) -> bool:
        return any(part is None or part for part in (self.sessions, self.servers, self.clusters))


EVERYTHING = Scope(None, None, None)
NOTHING = Scope()


def _either(
    one: frozenset[ObjectKey] | None, other: frozenset[ObjectKey] | None
) -> frozenset[ObjectKey] | None:
    return None if one is None or other is None else one | other


def unindex(index: dict[ObjectKey, dict[ObjectKey, None]], by: ObjectKey, key: ObjectKey) -> None:
    """Take a key out of the set that an index holds by another; an empty set goes too."""
    keys = index.get(by)
    if keys is not None:
        keys.pop(key, None)
        if not keys:
            del index[by]
