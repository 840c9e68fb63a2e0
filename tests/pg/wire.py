"""A client whose first node is reached through a wire that can be cut, stalled and slowed down."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg

from shardlib import Cluster, Shard, admin
from shardlib.pg.pool import EndpointPool
from shardlib.testing.databases import TestCluster
from tests.pg.links import pool_of
from tests.support.proxy import FaultProxy
from tests.support.waiting import wait_for

KEYSPACE = "numbers"
TABLE = f"items_{KEYSPACE}"
ADD_ONE = f"UPDATE {TABLE} SET version = version + 1 WHERE id = $1"


@dataclass
class Wire:
    """The client, the proxy on its way to one node, a key whose row is there, and a way in that avoids the proxy."""

    databases: TestCluster
    cluster: Cluster
    proxy: FaultProxy
    key: int
    direct: asyncpg.Connection

    @property
    def home(self) -> Shard:
        return self.cluster.shard(self.key)

    @property
    def pool(self) -> EndpointPool:
        return pool_of(self.cluster, self.key)

    async def version(self) -> int:
        """Read the row's version, after whatever transaction still holds the row has ended."""
        version = await self.direct.fetchval(f"SELECT version FROM {TABLE} WHERE id = $1 FOR UPDATE", self.key)
        assert isinstance(version, int)
        return version

    async def warm(self, query: str, *args: Any) -> None:
        """Wait until the node serves, and have the link that will be used next prepare the statement."""
        await wait_for(lambda: not self.pool.broken)
        link = await self.pool.take(float("inf"))
        if not link.connection.is_closed():
            await link.connection._get_statement(query, None, named=True)
        self.pool.give(link)


def keys_on(cluster: Cluster, node: str) -> list[int]:
    """Return some keys that a node owns."""
    return list(itertools.islice((key for key in itertools.count() if cluster.where(key).node == node), 5))


@asynccontextmanager
async def wire_to(databases: TestCluster, **options: Any) -> AsyncIterator[Wire]:
    """Put a proxy between the client and its first node's primary; its replicas are left out."""
    name = databases.node_names[0]
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(databases.servers.nodes[0].primary.port))
        changes = {"url": proxy.url(databases.node_urls[0]), "replicas": ()}
        await admin.set_node(databases.admin_url, name, changes)
        direct = await asyncpg.connect(databases.node_admin_urls[0])
        stack.push_async_callback(direct.close)
        options.setdefault("pool_size", 2)
        cluster = await stack.enter_async_context(databases.connect(keyspace=KEYSPACE, **options))
        stack.callback(proxy.go_on)
        key = keys_on(cluster, name)[0]
        await direct.execute(f"INSERT INTO {TABLE} (id) VALUES ($1)", key)
        yield Wire(databases, cluster, proxy, key, direct)
