"""A cluster to measure on: real servers on free ports, and the keys that live on one node."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import asyncpg

import shardlib
from shardlib.testing import TestCluster
from shardlib.testing.plugin import private_servers

LAST_CORE = max(os.sched_getaffinity(0))
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

    cluster: shardlib.Cluster
    node: str
    url: str
    keys: list[UUID]
    keys_everywhere: list[UUID]

    def new_keys(self) -> Iterator[UUID]:
        """Yield keys that nobody has, on the same node."""
        return new_keys(self.cluster, self.node)


def new_keys(cluster: shardlib.Cluster, node: str) -> Iterator[UUID]:
    """Yield new keys that live on a node."""
    while True:
        key = uuid4()
        if cluster.where(key, keyspace="users").node == node:
            yield key


@contextmanager
def servers() -> Iterator[TestCluster]:
    """Start three nodes, and enter them; nothing of them is left at the end.

    They get the last core and we the others; replicas, which would be on machines of their own, would only take from
    that core. Where the scheduler is free to choose, a backend sticks to our core or to
    another one for minutes, and a round trip takes twice the time on one as on the other.
    """
    with ExitStack() as stack:
        with beside():
            cluster = stack.enter_context(private_servers(nodes=3, replicas=0))
        os.environ.update(cluster.environment)
        cores = sorted(os.sched_getaffinity(0))
        stack.callback(os.sched_setaffinity, 0, cores)
        os.sched_setaffinity(0, cores[:-1] or cores)
        yield cluster


@contextmanager
def beside() -> Iterator[None]:
    """Let what is started meanwhile run on the last core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LAST_CORE})
    yield
    os.sched_setaffinity(0, cores)


async def migrate() -> None:
    """Apply the service's migrations."""
    command = (sys.executable, "-m", "migrations", "apply")
    done = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    if await done.wait():
        raise RuntimeError("the migrations failed")


async def version(cluster: TestCluster) -> str:
    """Return Postgres's version."""
    connection = await asyncpg.connect(cluster.node_admin_urls[0])
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


@asynccontextmanager
async def stage(on: TestCluster, pool_size: int) -> AsyncIterator[Stage]:
    """Make a table of rows on every node, and connect."""
    async with shardlib.connect(on.catalog_url, pool_size=pool_size) as cluster:
        by_node: dict[str, list[UUID]] = {name: [] for name in on.node_names}
        for _ in range(ROWS):
            key = uuid4()
            by_node[cluster.where(key, keyspace="users").node].append(key)
        for name, url in zip(on.node_names, on.node_admin_urls, strict=True):
            await fill(url, by_node[name])
        everywhere = [key for keys in zip(*by_node.values(), strict=False) for key in keys]
        first = on.node_names[0]
        yield Stage(cluster, first, on.node_urls[0], by_node[first], everywhere)


async def fill(url: str, keys: list[UUID]) -> None:
    """Make the table on one node, with its rows, settled."""
    connection = await asyncpg.connect(url)
    await connection.execute(TABLE)
    rows = [(key, f"Name {key.hex[:8]}", f"{key.hex[:12]}@example.org") for key in keys]
    await connection.copy_records_to_table("bench_item", records=rows, columns=["id", "name", "email"])
    await connection.execute("VACUUM ANALYZE bench_item")
    await connection.close()
