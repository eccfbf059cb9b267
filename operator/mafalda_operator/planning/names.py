"""Names of the routers and pods that the operator makes: making one twice is the same act."""

from __future__ import annotations

import hashlib
from collections.abc import Container

from mafalda_operator.model import ObjectKey

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no look-alikes, as in names that Kubernetes makes."""

_LENGTH = 5


def router_name(session_name: str, session_uid: str, index: int, generation: int) -> str:
    """Session, '-' and five characters of a hash of session UID, index and generation."""
    return f"{session_name}-{_word(f'{session_uid}/{index}/{generation}')}"


def free_pod_name(cluster: ObjectKey, seed: str, taken: Container[ObjectKey]) -> ObjectKey:
    """Cluster, '-' and five characters of a hash of ``seed``: the first such name that nothing has."""
    attempt = 0
    while True:
        key = ObjectKey(cluster.namespace, f"{cluster.name}-{_word(f'{seed}/{attempt}')}")
        if key not in taken:
            return key
        attempt += 1


def _word(seed: str) -> str:
    """``_LENGTH`` characters that follow from ``seed``."""
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big")
    characters: list[str] = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return "".join(characters)


def free_router_name(
    session: ObjectKey, session_uid: str, index: int, generation: int, taken: Container[ObjectKey]
) -> tuple[ObjectKey, int]:
    """The name for an index, and its generation: the first from ``generation`` on that no object has."""
    while True:
        key = ObjectKey(session.namespace, router_name(session.name, session_uid, index, generation))
        if key not in taken:
            return key, generation
        generation += 1
