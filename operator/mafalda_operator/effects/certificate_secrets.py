"""One Secret with a certificate: as it was read, what it is to hold, how it is written, what is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mafalda_operator.effects import issuing
from mafalda_operator.effects.api import SECRETS, KubeApi, Object
from mafalda_operator.model import API_VERSION, LABEL_CLUSTER, MediaCluster, ObjectKey, TlsSecret
from mafalda_operator.planning.certificates import MISSING, LeafView
from mediaserver.wire.certificates import CERTIFICATE, Material
from mediaserver.wire.errors import MembershipError
from mediaserver.wire.tls import check_role

TLS_TYPE = "kubernetes.io/tls"
_MANAGED = {"app.kubernetes.io/managed-by": "mafalda-operator"}


@dataclass(frozen=True)
class Held:
    """A Secret as it was read; None: there is none."""

    obj: Object | None

    @property
    def promoted(self) -> str:
        """When the CA in it took over, RFC 3339; empty: it was the first."""
        return str(self._metadata("annotations").get(issuing.PROMOTED, ""))

    @property
    def cluster(self) -> str | None:
        """For which MediaCluster the operator made it."""
        return self._metadata("labels").get(LABEL_CLUSTER)

    def _metadata(self, field: str) -> Mapping[str, str]:
        return ((self.obj or {}).get("metadata") or {}).get(field) or {}


def hold(_: ObjectKey, obj: Object | None) -> Held:
    return Held(obj)


@dataclass(frozen=True)
class Wanted:
    """A certificate that is to be in a Secret; ``cluster`` None: the gateways'."""

    secret: ObjectKey
    names: frozenset[str]
    cluster: MediaCluster | None
    made: bool
    """By this operator."""

    @property
    def given(self) -> bool:
        return self.cluster is not None and self.cluster.given_tls_secret is not None

    def is_taken(self, held: Held) -> bool:
        """Whether a Secret of that name is somebody else's."""
        return self.cluster is not None and held.obj is not None and held.cluster != self.cluster.key.name

    def read(self, held: Held, now: float) -> tuple[LeafView, Material | None]:
        """What the Secret's certificate is; the second is None when there is none that can be used."""
        if held.obj is None:
            return MISSING, None
        view, material = issuing.read_leaf(issuing.decoded(held.obj), now)
        if material is None or self.made:
            return view, material
        try:
            check_role(material, "media-server", CERTIFICATE)
        except MembershipError as error:
            view = replace(view, problem=str(error))
        return view, material

    def state(self, view: LeafView | None, held: Held | None, failure: str | None) -> TlsSecret:
        """What a MediaCluster tells of it; ``failure``: why it could not be written."""
        if failure is not None:
            return TlsSecret(self.secret, self.given, "Failed", failure)
        if view is None or held is None:
            return TlsSecret(self.secret, self.given, "Pending")
        if not self.made:
            return self._found(view)
        if self.is_taken(held):
            return TlsSecret(self.secret, self.given, "Taken")
        usable = view.exists and not view.problem
        return TlsSecret(self.secret, self.given, "Good" if usable else "Pending", not_after=view.not_after)

    def _found(self, view: LeafView) -> TlsSecret:
        """Of one that somebody else has to make."""
        names = ", ".join(sorted(self.names))
        if not view.exists:
            return TlsSecret(self.secret, self.given, "Missing", names)
        if view.names and not self.names <= view.names:
            detail = f"its certificate is not for {names}: have it made with that DNS name (SAN)"
            return TlsSecret(self.secret, self.given, "Invalid", detail)
        if view.problem:
            return TlsSecret(self.secret, self.given, "Invalid", view.problem)
        return TlsSecret(self.secret, self.given, "Good", not_after=view.not_after)


async def write(
    api: KubeApi,
    secret: ObjectKey,
    held: Held,
    content: issuing.Content,
    *,
    promoted: str = "",
    owner: MediaCluster | None = None,
) -> Object:
    """Make the Secret, or change its data if it is still as it was read. Raises KubeError."""
    data: dict[str, Any] = dict(issuing.encoded(content))
    annotations = {issuing.PROMOTED: promoted} if promoted else {}
    if held.obj is not None:
        data |= {name: None for name in held.obj.get("data") or {} if name not in content}
        version = held.obj["metadata"]["resourceVersion"]
        metadata = {"resourceVersion": version, "annotations": annotations}
        return await api.patch(SECRETS, *secret, {"metadata": metadata, "data": data})
    metadata = {
        "name": secret.name,
        "namespace": secret.namespace,
        "labels": _MANAGED | ({LABEL_CLUSTER: owner.key.name} if owner is not None else {}),
        "annotations": annotations,
        "ownerReferences": [_owner(owner)] if owner is not None else [],
    }
    return await api.create(SECRETS, secret.namespace, {"metadata": metadata, "type": TLS_TYPE, "data": data})


def _owner(cluster: MediaCluster) -> Object:
    return {
        "apiVersion": API_VERSION,
        "kind": "MediaCluster",
        "name": cluster.key.name,
        "uid": cluster.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
