"""The verbs of a shard, on real servers, for each key type."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

import shardlib
from shardlib.errors import AnswerMismatch, NotColocated, Rejected, UnknownName, WrongKey
from shardlib.testing.databases import TestCluster
from tests.pg.conftest import Space


async def test_each_verb_reaches_the_owner(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        for number in range(30):
            key = space.make(number)
            home = cluster.shard(key)
            insert = f"INSERT INTO {space.table} (id, note) VALUES ($1, $2)"
            assert await home.execute(insert, key, f"note {number}") == "INSERT 0 1"
            row = await home.fetchrow(f"SELECT id, note FROM {space.table} WHERE id = $1", key)
            assert row is not None
            assert (row["id"], row["note"]) == (key, f"note {number}")
            assert await home.fetchval(f"SELECT note FROM {space.table} WHERE id = $1", key) == f"note {number}"
            assert len(await home.fetch(f"SELECT note FROM {space.table} WHERE id = $1", key)) == 1
        assert await rows_on_their_owners(stocked, cluster, space) == 30


async def rows_on_their_owners(stocked: TestCluster, cluster: shardlib.Cluster, space: Space) -> int:
    """Count the rows over all nodes; fail for one on a node that doesn't own it, or if one node holds all."""
    counts = []
    for name, url in zip(stocked.node_names, stocked.node_urls, strict=True):
        connection = await asyncpg.connect(url)
        rows = await connection.fetch(f"SELECT id FROM {space.table}")
        await connection.close()
        assert {cluster.where(row["id"]).node for row in rows} <= {name}
        counts.append(len(rows))
    assert all(counts)
    return sum(counts)


async def test_executemany_is_all_or_nothing(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        key = space.make(1)
        home = cluster.shard(key)
        with pytest.raises(shardlib.UniqueViolation):
            await home.executemany(f"INSERT INTO {space.table} (id) VALUES ($1)", [(key,), (key,)])
        assert await home.fetchval(f"SELECT count(*) FROM {space.table}") == 0


async def test_many_keys_cost_one_query_per_node(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        keys = [space.make(number) for number in range(100)]
        for key in keys:
            await cluster.shard(key).execute(f"INSERT INTO {space.table} (id) VALUES ($1)", key)
        wanted = [*keys[:60], space.make(1000)]
        query = f"SELECT id, pg_backend_pid() AS pid FROM {space.table} WHERE id = ANY($1)"
        rows = await cluster.fetch_many(query, wanted)
        assert sorted(row["id"] for row in rows) == sorted(keys[:60])
        assert len({row["pid"] for row in rows}) == 3
        with pytest.raises(Rejected):
            await cluster.fetch_many(f"DELETE FROM {space.table} WHERE id = ANY($1) RETURNING id", keys)
        assert len(await cluster.fetch_many(query, keys)) == 100
        assert await cluster.fetch_many(query, []) == []


async def test_scatter_merges_in_order(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        keys = [space.make(number) for number in range(1300)]
        by_home: dict[str, list[Any]] = {}
        for key in keys:
            by_home.setdefault(cluster.where(key).node, []).append(key)
        for some in by_home.values():
            await cluster.shard(some[0]).executemany(
                f"INSERT INTO {space.table} (id) VALUES ($1)", [(key,) for key in some]
            )
        collate = ' COLLATE "C"' if space.keyspace == "names" else ""
        select = f"SELECT id FROM {space.table} WHERE /*mine*/ ORDER BY id{collate}"
        whole = [row["id"] async for row in cluster.scatter(select, order_by="id")]
        assert whole == sorted(keys)
        backwards = cluster.scatter(f"{select} DESC", order_by="id", descending=True)
        assert [row["id"] async for row in backwards] == sorted(keys, reverse=True)
        page = cluster.scatter(f"{select} LIMIT 25", order_by="id", limit=25)
        assert [row["id"] for row in await page.fetch()] == sorted(keys)[:25]
        more = cluster.scatter(select, order_by="id", limit=1200)
        assert [row["id"] for row in await more.fetch()] == sorted(keys)[:1200]
        unordered = await cluster.scatter(f"SELECT id FROM {space.table} WHERE /*mine:id*/").fetch()
        assert sorted(row["id"] for row in unordered) == sorted(keys)
        health = cluster.health()
        assert all(endpoint.busy == 0 for node in health.nodes for endpoint in node.endpoints)


async def test_scatter_keeps_rows_out_that_are_not_owned(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        key = space.make(5)
        home = cluster.where(key)
        stranger = next(name for name in stocked.node_names if name != home.node)
        await cluster.shard(key).execute(f"INSERT INTO {space.table} (id, note) VALUES ($1, 'owned')", key)
        url = stocked.node_admin_urls[stocked.node_names.index(stranger)]
        admin = await asyncpg.connect(url, password=stocked.servers.secrets.password("shardlib_admin"))
        await admin.execute(f"INSERT INTO {space.table} (id, note) VALUES ($1, 'a copy')", key)
        await admin.execute(
            "INSERT INTO shardlib.foreign_bucket VALUES ($1, $2, 'move 1', 1)", space.keyspace, home.bucket
        )
        await admin.close()
        rows = await cluster.scatter(f"SELECT note FROM {space.table} WHERE /*mine*/", limit=10).fetch()
        assert [row["note"] for row in rows] == ["owned"]


async def test_scatter_without_the_mark_is_refused(stocked: TestCluster) -> None:
    async with stocked.connect(keyspace="users") as cluster:
        with pytest.raises(NotColocated):
            cluster.scatter("SELECT id FROM items_users")
        with pytest.raises(Rejected):
            cluster.scatter("DELETE FROM items_users WHERE /*mine*/")
        with pytest.raises(Rejected):
            cluster.scatter("SELECT id FROM items_users WHERE /*mine*/", limit=0)


async def test_a_key_of_another_type_is_refused(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        for wrong in (b"1", 1.5, None, True):
            with pytest.raises(WrongKey):
                cluster.shard(wrong)  # type: ignore[arg-type]  # that is the point
        with pytest.raises(UnknownName, match="numbers"):
            cluster.shard(space.make(1), keyspace="numbbers")


async def test_with_several_keyspaces_one_must_be_named(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        with pytest.raises(UnknownName, match="say which keyspace"):
            cluster.shard(1)
        assert cluster.shard(1, keyspace="numbers").keyspace == "numbers"


async def test_run_with_a_request_id_takes_effect_once(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        key = space.make(1)
        home = cluster.shard(key)
        await home.execute(f"INSERT INTO {space.table} (id) VALUES ($1)", key)

        async def raise_version(tx: shardlib.Transaction) -> Any:
            update = f"UPDATE {space.table} SET version = version + 1 WHERE id = $1 RETURNING version"
            return {"version": await tx.fetchval(update, key)}

        answers = await asyncio.gather(*(home.run(raise_version, request_id="r1") for _ in range(8)))
        assert answers == [{"version": 2}] * 8
        assert await home.run(raise_version, request_id="r2") == {"version": 3}
        with pytest.raises(AnswerMismatch):
            await home.run(raise_version, request_id="r2", fingerprint="another body")
        assert await home.run(raise_version) == {"version": 4}


async def test_errors_of_postgres_come_as_they_are(stocked: TestCluster) -> None:
    async with stocked.connect(keyspace="numbers") as cluster:
        home = cluster.shard(1)
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await home.fetch("SELEKT 1")
        with pytest.raises(asyncpg.DataError):
            await home.fetch("SELECT $1::bigint", "text")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await home.execute("TRUNCATE items_numbers")
        assert await home.fetchval("SELECT 1") == 1


async def test_where_says_who_owns_it(stocked: TestCluster, space: Space) -> None:
    async with stocked.connect(keyspace=space.keyspace) as cluster:
        place = cluster.where(space.make(1))
        assert place.node in stocked.node_names
        assert place.url == stocked.node_urls[stocked.node_names.index(place.node)]
        assert (len(place.replicas), place.moving) == (1, False)
        assert 0 <= place.bucket < 4096
