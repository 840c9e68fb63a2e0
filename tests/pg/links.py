"""What a client's pools and the servers' lists of sessions must agree on when all is quiet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from shardlib import Cluster
from shardlib.pg import monitor
from shardlib.pg.nodes import PgNode
from shardlib.pg.pool import EndpointPool
from shardlib.testing.databases import TestCluster
from tests.support.waiting import wait_for

SESSIONS = """
SELECT pid, state FROM pg_stat_activity
 WHERE datname = current_database() AND backend_type = 'client backend' AND application_name = 'shardlib'
"""


def pools_of(cluster: Cluster) -> list[EndpointPool]:
    """Return the pools of all endpoints."""
    nodes: Mapping[str, Any] = cluster._desk.watcher.view.nodes
    return [pool for node in nodes.values() if isinstance(node, PgNode) for pool in node.pools]


def pool_of(cluster: Cluster, key: Any) -> EndpointPool:
    """Return the pool of the primary that owns a key."""
    node = cluster._desk.watcher.view.nodes[cluster.where(key).node]
    assert isinstance(node.primary, EndpointPool)
    return node.primary


async def stop_looking(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the monitors rest for long after their next look, and wait until all have had it."""
    monkeypatch.setattr(monitor, "INTERVAL_SECONDS", 60.0)
    nodes: Mapping[str, Any] = cluster._desk.watcher.view.nodes
    looked = [one.looked for node in nodes.values() for one in node.monitors]
    for event in looked:
        event.clear()
    await wait_for(lambda: all(event.is_set() for event in looked))


def is_quiet(pool: EndpointPool) -> bool:
    """Tell whether nobody uses, waits for, opens or resets a link."""
    return not (pool.busy or pool.waiting or pool._opening or pool._tasks)


@dataclass(frozen=True)
class Census:
    """Asks the servers who is connected: by port, a connection of the administrator."""

    servers: Mapping[int, asyncpg.Connection]

    async def check(self, cluster: Cluster) -> None:
        """Fail unless the pools are at rest, each link answers for itself, and no server holds a session more."""
        pools = pools_of(cluster)
        await wait_for(lambda: all(map(is_quiet, pools)))
        for number, pool in enumerate(pools):
            assert pool.view.outstanding == 0
            assert len(pool.idle) <= pool._limits.size
            for position, link in enumerate(pool.idle):
                mark = f"{number}/{position}"
                row = await link.connection.fetchrow("SELECT $1::text, pg_current_xact_id_if_assigned()", mark)
                assert tuple(row) == (mark, None)
            await self._check_server(pool)

    async def _check_server(self, pool: EndpointPool) -> None:
        server = self.servers[int(pool.name.rpartition(":")[2])]
        known = {link.connection.get_server_pid() for link in pool.idle}

        async def agree() -> bool:
            sessions = await server.fetch(SESSIONS)
            return {row["pid"] for row in sessions} == known and {row["state"] for row in sessions} <= {"idle"}

        await wait_for(agree)


@asynccontextmanager
async def census_of(databases: TestCluster) -> AsyncIterator[Census]:
    """Connect to each primary and replica as administrator."""
    admins = [node.primary.url(databases.database, "shardlib_admin") for node in databases.servers.nodes]
    admins += [replica.url(databases.database, "shardlib_admin") for replica in databases.servers.replicas]
    async with AsyncExitStack() as stack:
        servers = {}
        for url in admins:
            connection = await asyncpg.connect(url)
            stack.push_async_callback(connection.close)
            servers[urlsplit(url).port or 0] = connection
        yield Census(servers)
