"""Names: of objects, of API kinds, and of what the operator writes on objects."""

from __future__ import annotations

from typing import Literal, NamedTuple

GROUP = "mafalda.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

Kind = Literal["MediaCluster", "MediaServer", "MediaSession", "MediaRouter"]

PLURALS: dict[Kind, str] = {
    "MediaCluster": "mediaclusters",
    "MediaServer": "mediaservers",
    "MediaSession": "mediasessions",
    "MediaRouter": "mediarouters",
}

LABEL_CLUSTER = f"{GROUP}/cluster"
LABEL_REVISION = f"{GROUP}/revision"
LABEL_ROLE = f"{GROUP}/role"
LABEL_SERVER = f"{GROUP}/server"
LABEL_SESSION = f"{GROUP}/session"

ROLE_MEDIA_SERVER = "media-server"
"""Value of ``LABEL_ROLE`` on a media server's pod and on its MediaServer."""

DRAIN_FINALIZER = f"{GROUP}/drain"
"""On MediaClusters that have pods: their deletion waits until the pods are drained and gone."""

ANNOTATION_INDEX = f"{GROUP}/index"
"""Which of the session's routers this one is, counted from 0; set by the operator on those that it makes."""

ANNOTATION_GENERATION = f"{GROUP}/generation"
"""How many routers held this index before."""


class ObjectKey(NamedTuple):
    """A namespaced object of a kind that the context names."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"
