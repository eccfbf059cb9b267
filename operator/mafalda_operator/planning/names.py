"""Names of the routers that the operator makes: making one twice is the same act."""

from __future__ import annotations

import hashlib
from collections.abc import Container

from mafalda_operator.model import ObjectKey

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""No vowels and no look-alikes, as in names that Kubernetes makes."""

_LENGTH = 5


def router_name(session_name: str, session_uid: str, index: int, generation: int) -> str:
    """Session, '-' and five characters of a hash of session UID, index and generation."""
    hashed = hashlib.sha256(f"{session_uid}/{index}/{generation}".encode()).digest()
    number = int.from_bytes(hashed[:8], "big")
    characters: list[str] = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[digit])
    return f"{session_name}-{''.join(characters)}"


def free_router_name(
    session: ObjectKey, session_uid: str, index: int, generation: int, taken: Container[ObjectKey]
) -> tuple[ObjectKey, int]:
    """The name for an index, and its generation: the first from ``generation`` on that no object has."""
    while True:
        key = ObjectKey(session.namespace, router_name(session.name, session_uid, index, generation))
        if key not in taken:
            return key, generation
        generation += 1
