"""Pure planning: what the sessions and servers that changed need, from one snapshot."""

from mafalda_operator.planning.actions import (
    Action,
    BindRouter,
    CreateRouter,
    CreateTokenKeys,
    DeleteRouter,
    EventNote,
    Owner,
    Plan,
    StatusUpdate,
)
from mafalda_operator.planning.book import DesiredBook, ServerChange
from mafalda_operator.planning.guard import Withheld, check_apply
from mafalda_operator.planning.memory import Memory
from mafalda_operator.planning.names import router_name
from mafalda_operator.planning.plan import plan

__all__ = [
    "Action",
    "BindRouter",
    "CreateRouter",
    "CreateTokenKeys",
    "DeleteRouter",
    "DesiredBook",
    "EventNote",
    "Memory",
    "Owner",
    "Plan",
    "ServerChange",
    "StatusUpdate",
    "Withheld",
    "check_apply",
    "plan",
    "router_name",
]
