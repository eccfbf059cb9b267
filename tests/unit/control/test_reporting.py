"""What a media server tells of its load."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mediaserver.control.contract import TenantLoad
from mediaserver.control.reporting import Reporting, TenantsView


@pytest.mark.parametrize(("pipes", "free"), [(None, 100), (0, 100), (30, 70), (101, 0)])
def test_tenants_pipes_are_taken_ports(pipes: int | None, free: int) -> None:
    pool = SimpleNamespace(
        slots=(),
        on_slot_up=SimpleNamespace(subscribe=lambda _: None),
        config=SimpleNamespace(pipe_port=20000, pipe_end_port=20099),
    )
    host = SimpleNamespace(routers={}, peer_ages=list)
    load = TenantLoad(workers=1, free=1, cpu=0.0)
    tenants = None if pipes is None else SimpleNamespace(pipes=pipes, load=lambda: load)
    reporting = Reporting(
        cast(Any, host), cast(Any, pool), cast(Any, None), tenants=cast(TenantsView | None, tenants)
    )
    assert reporting.load().free_pipe_ports == free
