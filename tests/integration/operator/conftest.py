from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integration.operator.api_proxy import ApiProxy
from integration.operator.world import World
from mafalda_operator.cli.local.cluster import LocalCluster


@pytest.fixture
async def world(embedded_cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[World]:
    async with World(embedded_cluster.kubeconfig, tmp_path) as world:
        yield world


@pytest.fixture
async def proxy(embedded_cluster: LocalCluster) -> AsyncIterator[ApiProxy]:
    async with ApiProxy(embedded_cluster.kubeconfig) as proxy:
        yield proxy
