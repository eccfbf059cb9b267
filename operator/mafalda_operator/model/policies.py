"""Parts of a MediaCluster's spec: who may use it, whose tokens count, how links are made, codecs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from mafalda_operator.model.fields import Problem, Reader

From = Literal["Same", "All", "Selector"]
Srtp = Literal["BetweenServers", "Always", "Never"]

DEFAULT_PRUNE_DELAY = 10.0
"""Seconds that a producer nobody consumes stays piped, when `links.pruneDelay` is absent."""

DEFAULT_SILENCE_TIMEOUT = 3.0
"""Seconds of silence after which a server counts as lost, when `recovery.silenceTimeout` is absent."""

DEFAULT_DRAIN_TIMEOUT = 900.0
"""Seconds that a draining server's participants have, when `drain.timeout` is absent."""

DEFAULT_KEY_SET = "default"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One entry of a label selector's matchExpressions."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels
            case _:
                return False


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A Kubernetes label selector; the empty one matches everything."""

    match_labels: tuple[tuple[str, str], ...] = ()
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )

    @classmethod
    def read(cls, reader: Reader) -> LabelSelector:
        return cls(
            match_labels=tuple(sorted(reader.string_map("matchLabels").items())),
            match_expressions=tuple(
                Requirement(item.text("key") or "", item.text("operator") or "", item.strings("values"))
                for item in reader.items("matchExpressions")
            ),
        )


@dataclass(frozen=True, slots=True)
class NamespacePolicy:
    """Which namespaces are meant: the object's own, all, or those whose labels match."""

    source: From = "Same"
    selector: LabelSelector = LabelSelector()

    def allows(self, own_namespace: str, namespace: str, labels: Mapping[str, str] | None) -> bool:
        """``labels`` are those of ``namespace``; None (not known) matches no selector."""
        if self.source == "Same":
            return namespace == own_namespace
        if self.source == "All":
            return True
        return labels is not None and self.selector.matches(labels)

    @classmethod
    def read(cls, reader: Reader) -> NamespacePolicy:
        source = reader.choice("from", ("Same", "All", "Selector"), "Same")
        return cls(cast(From, source), LabelSelector.read(reader.child("selector")))


@dataclass(frozen=True, slots=True)
class KeySet:
    """Token keys held in a Secret of the cluster's namespace: data key = key id, value = HS256 key.

    The data key ``worker_tokens.REVOKED`` is no key id.
    """

    name: str
    secret_name: str
    namespaces: NamespacePolicy = NamespacePolicy()
    """Whose sessions' participants its keys admit."""
    workers: bool = False
    """Whether its keys admit applications' workers, too; to the whole cluster, whatever ``namespaces``."""


def read_key_sets(reader: Reader, cluster_name: str) -> tuple[KeySet, ...]:
    """`spec.tokens.keySets`; when absent one set `default` in Secret `<cluster>-token-keys`, for the sessions
    of the cluster's own namespace."""
    sets = tuple(
        KeySet(
            name=item.text("name") or "",
            secret_name=item.child("secretRef").text("name") or "",
            namespaces=NamespacePolicy.read(item.child("namespaces")),
            workers=bool(item.boolean("workers")),
        )
        for item in reader.items("keySets")
    )
    return sets or (KeySet(DEFAULT_KEY_SET, f"{cluster_name}-token-keys"),)


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """How pipe pairs are made; ``prune_delay`` is in seconds."""

    srtp: Srtp = "BetweenServers"
    rtx: bool = True
    prune_delay: float = DEFAULT_PRUNE_DELAY

    @classmethod
    def read(cls, reader: Reader) -> LinkPolicy:
        rtx = reader.boolean("rtx")
        prune_delay = reader.seconds("pruneDelay")
        srtp = reader.choice("srtp", ("BetweenServers", "Always", "Never"), "BetweenServers")
        return cls(
            srtp=cast(Srtp, srtp),
            rtx=True if rtx is None else rtx,
            prune_delay=DEFAULT_PRUNE_DELAY if prune_delay is None else prune_delay,
        )


ParameterValue = int | str


@dataclass(frozen=True, slots=True)
class Codec:
    """An item of mediaCodecs as written; what is absent is the codec's usual value."""

    mime_type: str
    clock_rate: int | None = None
    channels: int | None = None
    parameters: tuple[tuple[str, ParameterValue], ...] = ()

    @classmethod
    def read(cls, reader: Reader) -> Codec:
        raw = reader.child("parameters").raw
        bad = [
            key for key, value in raw.items() if isinstance(value, bool) or not isinstance(value, int | str)
        ]
        for key in bad:
            where = f"{reader.path}.parameters.{key}"
            reader.problems.append(Problem("InvalidField", where, f"{where} must be an integer or a string"))
        return cls(
            mime_type=reader.text("mimeType") or "",
            clock_rate=reader.integer("clockRate"),
            channels=reader.integer("channels"),
            parameters=tuple(sorted((key, value) for key, value in raw.items() if key not in bad)),
        )


def read_codecs(items: Iterable[Reader]) -> tuple[Codec, ...]:
    return tuple(Codec.read(item) for item in items)
