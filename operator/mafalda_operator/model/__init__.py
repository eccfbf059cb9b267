"""Frozen types: the custom resources, the servers as seen, and the snapshot that a plan is made from."""

from mafalda_operator.model.conditions import Condition, ConditionStatus, stored_conditions
from mafalda_operator.model.fields import Problem, parse_duration
from mafalda_operator.model.keys import (
    ANNOTATION_GENERATION,
    ANNOTATION_INDEX,
    API_VERSION,
    GROUP,
    LABEL_CLUSTER,
    LABEL_SERVER,
    LABEL_SESSION,
    PLURALS,
    VERSION,
    Kind,
    ObjectKey,
)
from mafalda_operator.model.policies import (
    Codec,
    KeySet,
    LabelSelector,
    LinkPolicy,
    NamespacePolicy,
    Requirement,
)
from mafalda_operator.model.resources import MediaCluster, MediaRouter, MediaServer, MediaSession
from mafalda_operator.model.snapshot import EVERYTHING, NOTHING, Inventory, Scope, Snapshot
from mafalda_operator.model.views import (
    ConnectionProblem,
    KeySecret,
    NamespaceInfo,
    Refusal,
    Reported,
    ServerView,
)

__all__ = [
    "ANNOTATION_GENERATION",
    "ANNOTATION_INDEX",
    "API_VERSION",
    "EVERYTHING",
    "GROUP",
    "LABEL_CLUSTER",
    "LABEL_SERVER",
    "LABEL_SESSION",
    "NOTHING",
    "PLURALS",
    "VERSION",
    "Codec",
    "Condition",
    "ConditionStatus",
    "ConnectionProblem",
    "Inventory",
    "KeySecret",
    "KeySet",
    "Kind",
    "LabelSelector",
    "LinkPolicy",
    "MediaCluster",
    "MediaRouter",
    "MediaServer",
    "MediaSession",
    "NamespaceInfo",
    "NamespacePolicy",
    "ObjectKey",
    "Problem",
    "Refusal",
    "Reported",
    "Requirement",
    "Scope",
    "ServerView",
    "Snapshot",
    "parse_duration",
    "stored_conditions",
]
