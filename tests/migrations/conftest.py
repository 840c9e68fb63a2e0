"""A catalog and three nodes with nothing but the library's bookkeeping."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrations.targets import Access
from shardlib.sql import scripts
from shardlib.testing.databases import TestCluster
from tests.migrations.workbench import Bench


async def _initialise(bench: Bench, cluster: TestCluster) -> None:
    async with bench.access.session(bench.access.catalog) as connection:
        if await connection.fetchval("SELECT to_regclass('shardlib.node')") is not None:
            return
        for script in scripts("catalog_schema"):
            await connection.execute(script)
        for name, url in zip(cluster.node_names, cluster.node_admin_urls, strict=True):
            await connection.execute("INSERT INTO shardlib.node (name, url) VALUES ($1, $2)", name, url)
    for name in cluster.node_names:
        await bench.execute(name, *scripts("node"), KEYSPACES)


KEYSPACES = "INSERT INTO shardlib.keyspace VALUES ('users', 'uuid_tail', 4096, ''), ('identifiers', 'str', 4096, '')"


@pytest.fixture
async def bench(shardlib_cluster: TestCluster, tmp_path: Path) -> Bench:
    """Give a catalog and three nodes that no migration has touched."""
    made = Bench(Access.from_environment(os.environ), tmp_path)
    await _initialise(made, shardlib_cluster)
    return made
