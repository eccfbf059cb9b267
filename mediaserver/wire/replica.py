"""Replicated maps: how whole desired and reported states travel as small deltas.

Both directions of a control link carry one map, ``key -> entry``. The sender names the revision a
delta builds on and the digest of the whole map after it; a receiver whose base or digest differs asks
for everything. So a lost message, a restarted process and a new leader are all the same case.

The digest is over the bytes the sender wrote, so a receiver that knows fewer fields still agrees.
No I/O here: ``Sender`` yields deltas, ``Receiver`` applies them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Generic, TypeVar, get_args

import msgspec

from mediaserver.wire.errors import ResyncNeededError

__all__ = ["Delta", "Receiver", "ResyncNeededError", "Sender"]

EntryT = TypeVar("EntryT")

_DIGEST_BITS = 128
_encoder = msgspec.json.Encoder(order="deterministic")


class Delta(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A change from revision ``base`` to ``revision``; ``base=None`` replaces the whole map.

    ``digest`` is that of the whole map afterwards: 32 hexadecimal digits. ``set`` holds encoded entries.
    """

    revision: int
    digest: str
    base: int | None = None
    set: dict[str, msgspec.Raw] = {}
    remove: list[str] = []


class _Digest:
    """The sum of the entries' hashes modulo 2**128: independent of order, kept in step with each change."""

    def __init__(self) -> None:
        self._sum = 0
        self._hashes: dict[str, int] = {}

    def set(self, key: str, encoded: bytes | memoryview) -> None:
        self.remove(key)
        hashed = hashlib.sha256(key.encode() + b"\0" + encoded).digest()
        value = int.from_bytes(hashed[: _DIGEST_BITS // 8], "big")
        self._hashes[key] = value
        self._sum = (self._sum + value) % (1 << _DIGEST_BITS)

    def remove(self, key: str) -> None:
        self._sum = (self._sum - self._hashes.pop(key, 0)) % (1 << _DIGEST_BITS)

    def __str__(self) -> str:
        return f"{self._sum:032x}"


class Sender(Generic[EntryT]):
    """The side that owns the map."""

    def __init__(self) -> None:
        self.revision = 0
        self._entries: dict[str, EntryT] = {}
        self._digest = _Digest()
        self._sent = False

    @property
    def entries(self) -> Mapping[str, EntryT]:
        return self._entries

    @property
    def digest(self) -> str:
        return str(self._digest)

    def update(self, desired: Mapping[str, EntryT]) -> Delta | None:
        """Make the map equal to ``desired``; the delta to send, or None when nothing changed."""
        changed = {key: entry for key, entry in desired.items() if self._entries.get(key) != entry}
        gone = [key for key in self._entries if key not in desired]
        return self.change(changed, gone)

    def change(self, changed: Mapping[str, EntryT], gone: list[str]) -> Delta | None:
        """Set and remove entries; the delta to send (first the whole map), None if nothing changed."""
        if self._sent and not changed and not gone:
            return None
        encoded = {key: _encoder.encode(entry) for key, entry in changed.items()}
        self._entries.update(changed)
        for key, entry in encoded.items():
            self._digest.set(key, entry)
        for key in gone:
            self._entries.pop(key, None)
            self._digest.remove(key)
        base, self.revision = self.revision, self.revision + 1
        if not self._sent:
            return self.whole()
        raw = {key: msgspec.Raw(entry) for key, entry in encoded.items()}
        return Delta(revision=self.revision, digest=self.digest, base=base, set=raw, remove=list(gone))

    def whole(self) -> Delta:
        """Everything, for a receiver that has nothing or asked to resynchronise."""
        self._sent = True
        raw = {key: msgspec.Raw(_encoder.encode(entry)) for key, entry in self._entries.items()}
        return Delta(revision=self.revision, digest=self.digest, set=raw)


class Receiver(Generic[EntryT]):
    """The side that holds a copy; ``entry_type`` is the msgspec type, or union, that entries decode to.

    With ``ignore_unknown`` entries of kinds that the union doesn't have are left out of ``entries``: a newer
    sender tells of more.
    """

    def __init__(self, entry_type: Any, *, ignore_unknown: bool = False) -> None:
        self.revision: int | None = None
        self._tags = _tags(entry_type) if ignore_unknown else None
        self._decode = msgspec.json.Decoder(entry_type).decode
        self._entries: dict[str, EntryT] = {}
        self._digest = _Digest()

    @property
    def entries(self) -> Mapping[str, EntryT]:
        return self._entries

    @property
    def digest(self) -> str:
        return str(self._digest)

    def apply(self, delta: Delta) -> None:
        """Take a delta in.

        Raises ResyncNeededError when its base is not what is held, or the digest does not come out: only a
        whole map is accepted next, and ``entries`` keeps its last verified content until then. Raises
        msgspec.ValidationError for an entry that does not decode; nothing is changed then.
        """
        if delta.base is not None and delta.base != self.revision:
            raise ResyncNeededError(f"have revision {self.revision}, the change builds on {delta.base}")
        known = {key: raw for key, raw in delta.set.items() if self._is_known(raw)}
        decoded: dict[str, EntryT] = {key: self._decode(raw) for key, raw in known.items()}
        entries = {} if delta.base is None else dict(self._entries)
        digest = _Digest() if delta.base is None else self._digest
        for key in delta.set.keys() - known.keys():
            entries.pop(key, None)
        entries.update(decoded)
        for key, raw in delta.set.items():
            digest.set(key, memoryview(raw))
        for key in delta.remove:
            entries.pop(key, None)
            digest.remove(key)
        if str(digest) != delta.digest:
            self.revision = None
            raise ResyncNeededError(f"digest is {digest}, the sender's is {delta.digest}")
        self._entries, self._digest, self.revision = entries, digest, delta.revision

    def _is_known(self, raw: msgspec.Raw) -> bool:
        return self._tags is None or _decode_kind(raw).type in self._tags


class _Kind(msgspec.Struct):
    """What every tagged entry has."""

    type: str = ""


_decode_kind = msgspec.json.Decoder(_Kind).decode


def _tags(union: Any) -> frozenset[str]:
    """The tags of a union of structs."""
    kinds = get_args(union) or (union,)
    return frozenset(str(kind.__struct_config__.tag) for kind in kinds)
