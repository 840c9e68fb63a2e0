"""Schemas change under running code: sessions that hold old plans heal by themselves, and no call fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import asyncpg

import shardlib
from shardlib.testing.databases import TestCluster
from tests.migrations.workbench import NODES, Bench
from tests.support.waiting import wait_for

TABLE = """
CREATE TABLE person (id uuid PRIMARY KEY, name text NOT NULL, visits int NOT NULL DEFAULT 0);
SELECT shardlib.attach('users', 'person', 'id');
GRANT SELECT, INSERT, UPDATE (name, visits) ON person TO shardlib;
"""
CHANGES = {
    "node/0002_pre_age": "ALTER TABLE person ADD COLUMN age int;",
    "node/0003_pre_name": "ALTER TABLE person ALTER COLUMN name TYPE varchar(90);",
    "node/0004_pre_index": "-- tx: off\nCREATE INDEX CONCURRENTLY IF NOT EXISTS person_name ON person (name);",
    "node/0005_post_age": "ALTER TABLE person DROP COLUMN age;",
}
REWRITE = "ALTER TABLE person ALTER COLUMN visits TYPE bigint"  # what the lint refuses, done by hand
BUMP = "UPDATE person SET visits = visits + 1 WHERE id = $1 RETURNING *"


class Load:
    """Callers of every kind, until told to stop; counts what they saw."""

    def __init__(self, cluster: shardlib.Cluster, keys: list[Any]) -> None:
        self.cluster = cluster
        self.keys = keys
        self.seen: Counter[str] = Counter()
        self.ended = False

    async def run(self) -> None:
        verbs = [self._read, self._write, self._run, self._transaction, self._many, self._replica, self._scatter]
        async with asyncio.TaskGroup() as tasks:
            for verb in verbs:
                tasks.create_task(self._repeat(verb))

    async def goes_on(self) -> None:
        """Wait until more calls have ended."""
        before = self.seen.total()
        await wait_for(lambda: self.seen.total() > before + 200, 30)

    async def _repeat(self, verb: Any) -> None:
        number = 0
        while not self.ended:
            number += 1
            try:
                await verb(self.keys[number % len(self.keys)])
                self.seen[verb.__name__] += 1
            except Exception as error:
                self.seen[f"{verb.__name__}: {error!r}"] += 1

    async def _read(self, key: Any) -> None:
        row = await self.cluster.shard(key, keyspace="users").fetchrow("SELECT * FROM person WHERE id = $1", key)
        assert row is not None

    async def _write(self, key: Any) -> None:
        assert await self.cluster.shard(key, keyspace="users").fetchrow(BUMP, key) is not None

    async def _run(self, key: Any) -> None:
        async def body(tx: shardlib.Transaction) -> int:
            row = await tx.fetchrow(BUMP, key)
            assert row is not None
            return int(row["visits"])

        await self.cluster.shard(key, keyspace="users").run(body)

    async def _transaction(self, key: Any) -> None:
        try:
            await self._once(key)
        except asyncpg.InvalidCachedStatementError:  # whoever opens a transaction owns its retry: once is enough
            await self._once(key)

    async def _once(self, key: Any) -> None:
        async with self.cluster.shard(key, keyspace="users").transaction() as tx:
            assert await tx.fetchrow("SELECT * FROM person WHERE id = $1 FOR UPDATE", key) is not None

    async def _many(self, _key: Any) -> None:
        query = "SELECT * FROM person WHERE id = ANY($1)"
        assert len(await self.cluster.fetch_many(query, self.keys, keyspace="users")) == len(self.keys)

    async def _replica(self, key: Any) -> None:
        near = self.cluster.shard(key, keyspace="users").replica(max_lag=None)
        await near.fetchrow("SELECT * FROM person WHERE id = $1", key)

    async def _scatter(self, _key: Any) -> None:
        query = "SELECT * FROM person WHERE /*mine*/ ORDER BY id"
        rows = await self.cluster.scatter(query, keyspace="users", order_by="id").fetch()
        assert len(rows) == len(self.keys)


async def test_no_call_fails_while_the_schema_changes(bench: Bench, shardlib_cluster: TestCluster) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    assert not (await bench.apply()).failed
    keys = [uuid4() for _ in range(30)]
    async with shardlib_cluster.connect() as cluster:
        for key in keys:
            home = cluster.shard(key, keyspace="users")
            await home.execute("INSERT INTO person (id, name) VALUES ($1, $2)", key, f"person {key}")
        load = Load(cluster, keys)
        loading = asyncio.create_task(load.run())
        for name, text in CHANGES.items():
            await load.goes_on()
            bench.write({name: text})
            assert not (await bench.apply()).failed
        for node in NODES:
            await load.goes_on()
            await bench.execute(node, REWRITE)
        await load.goes_on()
        load.ended = True
        await loading
    print(dict(load.seen))
    assert [name for name in load.seen if ":" in name] == []
    assert len(load.seen) == 7
