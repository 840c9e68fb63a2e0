"""A cluster to measure on: real servers on free ports, a table of our own, and the keys that live on one node."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

import shardlib
from shardlib.testing import TestCluster
from shardlib.testing.plugin import private_servers

ROWS = 60_000  # over all nodes
TABLE = """
    CREATE TABLE bench_item (
        id uuid PRIMARY KEY,
        name text NOT NULL,
        email text NOT NULL,
        visits bigint NOT NULL DEFAULT 0
    ) WITH (fillfactor = 50);
    GRANT SELECT, INSERT, UPDATE ON bench_item TO shardlib;
    SELECT shardlib.attach('users', 'bench_item', 'id');
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where peers find the rows that we are asked for: ``keys`` live on the node at ``url``."""

    url: str
    password: str
    postgres: str
    keys: list[UUID]
    keys_everywhere: list[UUID]
    cluster: shardlib.Cluster
    node: str

    def new_keys(self) -> Iterator[UUID]:
        """Yield keys that nobody has, on the same node."""
        while True:
            key = uuid4()
            if self.cluster.where(key, keyspace="users").node == self.node:
                yield key


@asynccontextmanager
async def stage(pool_size: int) -> AsyncIterator[Stage]:
    """Start three nodes with a replica each, fill them, and connect to them; nothing of it is left at the end."""
    with private_servers(nodes=3, replicas=1) as servers:
        os.environ.update(servers.environment)
        await create_table(servers)
        async with shardlib.connect(servers.catalog_url, pool_size=pool_size) as cluster:
            yield await fill(servers, cluster)


async def create_table(servers: TestCluster) -> None:
    """Make the table on every node."""
    for url in servers.node_admin_urls:
        connection = await asyncpg.connect(url)
        await connection.execute(TABLE)
        await connection.close()


async def fill(servers: TestCluster, cluster: shardlib.Cluster) -> Stage:
    """Put each row on its node, and settle the tables."""
    by_node: dict[str, list[UUID]] = {name: [] for name in servers.node_names}
    for _ in range(ROWS):
        key = uuid4()
        by_node[cluster.where(key, keyspace="users").node].append(key)
    version = ""
    for name, url in zip(servers.node_names, servers.node_admin_urls, strict=True):
        connection = await asyncpg.connect(url)
        rows = [(key, f"Name {key.hex[:8]}", f"{key.hex[:12]}@example.org") for key in by_node[name]]
        await connection.copy_records_to_table("bench_item", records=rows, columns=["id", "name", "email"])
        await connection.execute("VACUUM ANALYZE bench_item")
        version = await connection.fetchval("SHOW server_version")
        await connection.close()
    node = servers.node_names[0]
    password = servers.servers.secrets.password("shardlib")
    everywhere = [key for keys in zip(*by_node.values(), strict=False) for key in keys]
    return Stage(servers.node_urls[0], password, version, by_node[node], everywhere, cluster, node)
