"""A commit that stopped waiting for its standby is unknown, however it was made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from shardlib import Cluster, Shard
from shardlib.errors import OutcomeUnknown
from shardlib.testing.databases import TestCluster
from shardlib.testing.plugin import OwnServers
from tests.pg.links import pool_of
from tests.pg.wire import ADD_ONE, TABLE
from tests.support.waiting import wait_for

READ = f"SELECT version FROM {TABLE} WHERE id = $1"


@pytest.fixture
async def lonely(own_servers: OwnServers) -> AsyncIterator[tuple[TestCluster, Cluster]]:
    """Give a client of a node that must wait for its standby, which is frozen."""
    databases = own_servers(nodes=1, replicas=1)
    node = databases.servers.nodes[0]
    admin = await asyncpg.connect(databases.node_admin_urls[0])
    await admin.execute(f"CREATE TABLE {TABLE} (id bigint PRIMARY KEY, version bigint NOT NULL DEFAULT 1)")
    await admin.execute(f"INSERT INTO {TABLE} VALUES (1); GRANT SELECT, UPDATE ON {TABLE} TO shardlib")
    await admin.close()
    node.primary.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{node.replica.name}'; SELECT pg_reload_conf()")
    async with databases.connect(keyspace="numbers", call_seconds=20.0) as cluster:
        await cluster.shard(1).execute(ADD_ONE, 1)
        node.replica.freeze()
        yield databases, cluster
        node.replica.thaw()


async def stop_waiting_for_the_standby(databases: TestCluster) -> None:
    """Cancel the statement that waits for its standby, as soon as there is one."""
    primary = databases.servers.nodes[0].primary
    cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    await wait_for(lambda: asyncio.to_thread(lambda: primary.psql(cancel) == "1"))


async def update(home: Shard) -> None:
    await home.execute(ADD_ONE, 1)


async def update_in_transaction(home: Shard) -> None:
    async with home.transaction() as transaction:
        await transaction.execute(ADD_ONE, 1)


async def test_a_commit_that_stopped_waiting_for_its_standby_is_unknown(lonely: tuple[TestCluster, Cluster]) -> None:
    databases, cluster = lonely
    home = cluster.shard(1)
    for number, write in enumerate((update, update_in_transaction), start=3):
        waiting = asyncio.create_task(write(home))
        await stop_waiting_for_the_standby(databases)
        with pytest.raises(OutcomeUnknown):
            await waiting
        assert await home.fetchval(READ, 1) == number  # it is there, and the next user of the link isn't told anything
    assert not pool_of(cluster, 1).busy
