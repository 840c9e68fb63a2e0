"""Whose answer may be handed out: the read rule, clause by clause, with the statements that it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import shardlib
from shardlib.cluster import Cluster
from shardlib.errors import OutcomeUnknown, Refused
from shardlib.observe import Rerouted
from tests.pg.stage import INSERT, KEYSPACE, RAISE, READ, Heard, Stage, epoch_is, gone_stale, keys_of
from tests.support.proxy import FaultProxy
from tests.support.waiting import wait_for

LEASE = 0.3
WRITING_FUNCTION = f"""
CREATE FUNCTION raise_it(bigint) RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ {RAISE} RETURNING version $$;
"""
LONG = 60.0  # polls come every twenty seconds: what happens sooner was asked for
IN_RECOVERY = "SELECT pg_is_in_recovery() FROM items_numbers WHERE id = $1"


@asynccontextmanager
async def routed(stage: Stage, lease_seconds: float, **options: Any) -> AsyncIterator[tuple[Cluster, FaultProxy]]:
    """Connect through a proxy before the catalog."""
    async with FaultProxy(stage.databases.servers.catalog.port) as proxy:
        url = proxy.url(stage.databases.catalog_url)
        async with shardlib.connect(url, keyspace=KEYSPACE, lease_seconds=lease_seconds, **options) as cluster:
            yield cluster, proxy


async def row_on(cluster: Cluster, node: str) -> tuple[int, int]:
    """Make a row on a node by way of the library; return its key and bucket."""
    key = keys_of(cluster, node)[0]
    await cluster.shard(key).execute(INSERT, key)
    return key, cluster.where(key).bucket


def kinds(statements: list[str]) -> list[str]:
    """Name statements: greet, owned, or as they begin."""
    names = {"floor_epoch": "greet", "shardlib.foreign_bucket": "owned"}
    return [next((name for mark, name in names.items() if mark in text), text.split()[0]) for text in statements]


async def test_a_fresh_answer_at_rest_costs_one_statement(stage: Stage) -> None:
    async with routed(stage, LONG) as (cluster, _):
        key, _bucket = await row_on(cluster, "node1")
        home = cluster.shard(key)
        with stage.statements("node1") as asked:
            assert await home.fetchval(READ, key) == 1
            assert await home.execute(RAISE, key) == "UPDATE 1"
            assert await home.execute(RAISE, key + 4096) == "UPDATE 0"
            assert await home.fetchval(READ, key) == 2
        assert kinds(asked) == ["SELECT", "UPDATE", "UPDATE", "SELECT"]


async def test_an_answer_on_a_stale_snapshot_costs_two_statements_more(stage: Stage) -> None:
    async with routed(stage, LEASE) as (cluster, proxy):
        key, _bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        with stage.statements("node1") as asked:
            assert await cluster.shard(key).fetchval(READ, key) == 1
        assert kinds(asked) == ["SELECT", "owned"]
        proxy.go_on()
        await wait_for(lambda: cluster.health().snapshot_age_seconds < LEASE / 2)
        with stage.statements("node1") as asked:
            assert await cluster.shard(key).fetchval(READ, key) == 1
        assert kinds(asked) == ["SELECT"]


@pytest.mark.parametrize("mark", ["foreign", "gained later"])
async def test_a_node_that_says_no_has_the_read_sent_to_the_new_owner(stage: Stage, mark: str) -> None:
    heard = Heard()
    async with routed(stage, LEASE, observer=heard) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        proxy.stall()
        await stage.put("node2", key, 7)
        epoch = await stage.give(bucket, "node2")
        if mark == "foreign":
            await stage.disown("node1", bucket)
        else:
            await stage.gained("node1", bucket, epoch)
        await gone_stale(cluster, LEASE)
        read = asyncio.ensure_future(cluster.shard(key).fetchval(READ, key))
        await wait_for(lambda: heard.of(Rerouted))
        assert not read.done()
        proxy.go_on()
        assert await read == 7


async def test_a_gain_before_the_snapshot_is_ownership(stage: Stage) -> None:
    async with routed(stage, LEASE) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        await stage.gained("node1", bucket, cluster.topology.epoch)
        proxy.stall()
        await gone_stale(cluster, LEASE)
        assert await cluster.shard(key).fetchval(READ, key) == 1


async def test_a_moving_bucket_is_asked_for_and_no_other(stage: Stage) -> None:
    async with routed(stage, LONG) as (cluster, _):
        key, bucket = await row_on(cluster, "node1")
        neighbour = next(other for other in keys_of(cluster, "node1", 9) if cluster.where(other).bucket != bucket)
        await epoch_is(cluster, await stage.flag(bucket))
        await cluster.shard(key).fetchval(READ, key)  # greets
        with stage.statements("node1") as asked:
            assert await cluster.shard(key).fetchval(READ, key) == 1
            assert await cluster.shard(neighbour).fetchval(READ, neighbour) is None
        assert kinds(asked) == ["SELECT", "owned", "SELECT"]


async def test_an_answer_that_was_sent_for_before_the_flag_is_asked_about_after_it(stage: Stage) -> None:
    """What counts is the snapshot when the answer arrives: this one left while its bucket was at rest."""
    slow = "SELECT version FROM items_numbers, pg_sleep($2) WHERE id = $1"
    async with routed(stage, LEASE) as (cluster, _):
        key, bucket = await row_on(cluster, "node1")
        with stage.statements("node1") as asked:
            read = asyncio.ensure_future(cluster.shard(key).fetchval(slow, key, 2 * LEASE))
            await wait_for(lambda: busy(cluster))
            await epoch_is(cluster, await stage.flag(bucket))
            assert await read == 1
        assert "owned" in kinds(asked)


def busy(cluster: Cluster) -> int:
    return sum(endpoint.busy for node in cluster.health().nodes for endpoint in node.endpoints)


async def test_a_write_that_touched_no_row_is_asked_about(stage: Stage) -> None:
    async with routed(stage, LEASE) as (cluster, proxy):
        key, _bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        home = cluster.shard(key)
        with stage.statements("node1") as asked:
            assert await home.execute(RAISE, key + 4096) == "UPDATE 0"
            assert await home.fetchval(f"{RAISE} RETURNING version", key + 4096) is None
        assert kinds(asked) == ["UPDATE", "owned", "UPDATE", "owned"]
        with stage.statements("node1") as asked:
            assert await home.execute(RAISE, key) == "UPDATE 1"
            assert await home.fetchval(f"{RAISE} RETURNING version", key) == 3
        assert kinds(asked) == ["UPDATE", "UPDATE"]


async def test_a_write_that_touched_no_row_is_sent_to_the_new_owner(stage: Stage) -> None:
    async with routed(stage, LEASE) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        proxy.stall()
        await stage.disown("node1", bucket)
        async with stage.admin("node1") as node:
            await node.execute("DELETE FROM items_numbers")
        await stage.put("node2", key, 7)
        await stage.give(bucket, "node2")
        await gone_stale(cluster, LEASE)
        write = asyncio.ensure_future(cluster.shard(key).execute(RAISE, key))
        proxy.go_on()
        assert await write == "UPDATE 1"
        assert await stage.read("node2", key) == 8


@pytest.mark.parametrize(
    "verb, write",
    [
        ("fetch", RAISE),
        ("fetchrow", RAISE),
        ("fetchval", RAISE),
        ("execute", f"WITH raised AS ({RAISE} RETURNING 1) SELECT 1 WHERE false"),
        ("fetch", f"WITH raised AS ({RAISE} RETURNING 1) SELECT 1 WHERE false"),
    ],
)
async def test_a_write_that_may_have_touched_a_row_is_not_sent_again(stage: Stage, verb: str, write: str) -> None:
    async with routed(stage, LEASE, call_seconds=1.0) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        await stage.disown("node1", bucket)  # as if it had left after the write: there is no fence
        with pytest.raises(OutcomeUnknown):
            await getattr(cluster.shard(key), verb)(write, key)
        assert await stage.read("node1", key) == 2


@pytest.mark.parametrize("value", ["0", "NULL", "''"])
async def test_a_row_whose_value_is_nothing_was_touched(stage: Stage, value: str) -> None:
    async with routed(stage, LEASE, call_seconds=1.0) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        await stage.disown("node1", bucket)
        answer = await cluster.shard(key).fetchval(f"{RAISE} RETURNING {value}", key)
        assert not answer
        assert await stage.read("node1", key) == 2


async def test_a_read_that_writes_is_sent_again_read_only(stage: Stage) -> None:
    async with stage.admin("node2") as node:
        await node.execute(WRITING_FUNCTION)
    async with stage.admin("node1") as node:
        await node.execute(WRITING_FUNCTION)
    async with routed(stage, LEASE) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        await stage.disown("node1", bucket)
        await stage.put("node2", key, 2)
        await stage.give(bucket, "node2")
        read = asyncio.ensure_future(cluster.shard(key).fetchval("SELECT raise_it($1)", key))
        proxy.go_on()
        with pytest.raises(OutcomeUnknown):
            await read
        assert (await stage.read("node1", key), await stage.read("node2", key)) == (2, 2)


async def test_a_read_only_transaction_on_an_abandoned_copy_ends_in_retryable(stage: Stage) -> None:
    async with routed(stage, LEASE) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        with pytest.raises(Refused):
            await read_while_it_leaves(stage, cluster, key)
        await stage.put("node2", key, 7)
        await stage.give(bucket, "node2")
        again = asyncio.ensure_future(cluster.shard(key).run(lambda tx: tx.fetchval(READ, key)))
        proxy.go_on()
        assert await again == 7


async def read_while_it_leaves(stage: Stage, cluster: Cluster, key: int) -> None:
    async with cluster.shard(key).transaction() as transaction:
        assert await transaction.fetchval(READ, key) == 1
        await stage.disown("node1", cluster.where(key).bucket)


async def test_a_read_only_transaction_on_its_own_bucket_costs_one_statement_more(stage: Stage) -> None:
    async with routed(stage, LEASE) as (cluster, proxy):
        key, _bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        with stage.statements("node1") as asked:
            async with cluster.shard(key).transaction() as transaction:
                assert await transaction.fetchval(READ, key) == 1
            async with cluster.shard(key).transaction() as transaction:
                await transaction.execute(RAISE, key)
        assert kinds(asked) == ["BEGIN", "SELECT", "SELECT", "COMMIT;", "owned", "BEGIN", "UPDATE", "COMMIT;"]


async def test_a_write_that_was_rolled_back_to_a_savepoint_proves_nothing(stage: Stage) -> None:
    """Rolling back to a savepoint releases its locks, and with them what held the fence off.

    Postgres doesn't tell that nothing of the transaction is left, so the outcome counts as unknown.
    """
    async with routed(stage, LEASE) as (cluster, proxy):
        key, bucket = await row_on(cluster, "node1")
        proxy.stall()
        await gone_stale(cluster, LEASE)
        await stage.disown("node1", bucket)
        with pytest.raises(OutcomeUnknown):
            await rolled_back_write_then_read(cluster, key)


async def rolled_back_write_then_read(cluster: Cluster, key: int) -> None:
    async with cluster.shard(key).transaction() as transaction:
        with suppress(KeyError):
            async with transaction.savepoint():
                await transaction.execute(RAISE, key)
                raise KeyError
        await transaction.fetchval(READ, key)


async def test_an_idle_link_greets_once_after_a_newer_epoch(stage: Stage) -> None:
    async with routed(stage, LONG) as (cluster, _):
        key, _bucket = await row_on(cluster, "node1")
        stranger = cluster.where(keys_of(cluster, "node1", 9)[-1]).bucket
        await epoch_is(cluster, await stage.give(stranger, "node2"))
        with stage.statements("node1") as asked:
            assert await cluster.shard(key).fetchval(READ, key) == 1
            assert await cluster.shard(key).fetchval(READ, key) == 1
        assert kinds(asked) == ["greet", "SELECT", "SELECT"]


async def test_a_floor_above_the_snapshot_reroutes(stage: Stage) -> None:
    heard = Heard()
    async with routed(stage, LONG, observer=heard) as (cluster, _):
        key, bucket = await row_on(cluster, "node1")
        stranger = cluster.where(keys_of(cluster, "node1", 9)[-1]).bucket
        epoch = await stage.give(stranger, "node2")
        await stage.raise_floor("node1", epoch + 1)
        await epoch_is(cluster, epoch)
        read = asyncio.ensure_future(cluster.shard(key).fetchval(READ, key))
        await wait_for(lambda: [event for event in heard.of(Rerouted) if "floor" in event.reason])
        assert not read.done()
        await stage.put("node2", key, 7)
        await stage.give(bucket, "node2", notify=False)
        assert await read == 7


async def test_a_process_started_from_its_file_meets_the_floor(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    async with routed(stage, LONG, snapshot_file=file) as (cluster, _):
        key, bucket = await row_on(cluster, "node1")
    await stage.put("node2", key, 7)
    await stage.raise_floor("node1", await stage.give(bucket, "node2"))
    heard = Heard()
    async with FaultProxy(stage.databases.servers.catalog.port) as proxy:
        proxy.stall()
        url = proxy.url(stage.databases.catalog_url)
        async with shardlib.connect(url, keyspace=KEYSPACE, snapshot_file=file, observer=heard) as cluster:
            read = asyncio.ensure_future(cluster.shard(key).fetchval(READ, key))
            await wait_for(lambda: [event for event in heard.of(Rerouted) if "floor" in event.reason])
            assert not read.done()
            proxy.go_on()
            assert await read == 7


async def test_a_process_started_from_its_file_asks_the_node(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "snapshot.json"
    async with routed(stage, LONG, snapshot_file=file) as (cluster, _):
        key, _bucket = await row_on(cluster, "node1")
    async with FaultProxy(stage.databases.servers.catalog.port) as proxy:
        proxy.stall()
        url = proxy.url(stage.databases.catalog_url)
        with stage.statements("node1") as asked:
            async with shardlib.connect(url, keyspace=KEYSPACE, snapshot_file=file) as cluster:
                assert await cluster.shard(key).fetchval(READ, key) == 1
                assert await cluster.shard(key).execute(RAISE, key) == "UPDATE 1"
        assert kinds(asked) == ["greet", "SELECT", "owned", "UPDATE"]


# -- replicas


async def answered_by_replica(cluster: Cluster, key: int) -> bool:
    """Read with any lag; tell whether a replica answered."""
    return bool(await cluster.shard(key).replica(max_lag=None).fetchval(IN_RECOVERY, key))


async def test_a_replica_serves_with_a_fresh_snapshot_only(stage: Stage) -> None:
    async with routed(stage, LEASE) as (cluster, proxy):
        key, _bucket = await row_on(cluster, "node1")
        stage.servers("node1").replica.wait_replayed()
        await wait_for(lambda: answered_by_replica(cluster, key))
        proxy.stall()
        await gone_stale(cluster, LEASE)
        assert not await answered_by_replica(cluster, key)
        proxy.go_on()
        await wait_for(lambda: answered_by_replica(cluster, key))


async def test_an_answer_of_a_replica_that_comes_too_late_is_thrown_away(stage: Stage) -> None:
    slow = "SELECT pg_is_in_recovery(), pg_sleep($2) FROM items_numbers WHERE id = $1"
    async with routed(stage, LEASE) as (cluster, proxy):
        key, _bucket = await row_on(cluster, "node1")
        stage.servers("node1").replica.wait_replayed()
        await wait_for(lambda: answered_by_replica(cluster, key))
        await wait_for(lambda: cluster.health().snapshot_age_seconds < LEASE / 4)
        proxy.stall()
        assert await cluster.shard(key).replica(max_lag=None).fetchval(slow, key, 2 * LEASE) is False


async def test_a_moving_bucket_is_read_on_its_primary(stage: Stage) -> None:
    async with routed(stage, LONG) as (cluster, _):
        key, bucket = await row_on(cluster, "node1")
        stage.servers("node1").replica.wait_replayed()
        await epoch_is(cluster, await stage.flag(bucket))
        assert not await answered_by_replica(cluster, key)
        await epoch_is(cluster, await stage.flag(bucket, None))
        await wait_for(lambda: answered_by_replica(cluster, key))


async def test_a_replica_serves_a_bucket_from_its_since_on(stage: Stage) -> None:
    replica = stage.servers("node1").replica
    async with routed(stage, LONG) as (cluster, _):
        key, bucket = await row_on(cluster, "node1")
        replica.pause_replay()
        async with stage.admin("node1") as node:
            await node.execute("INSERT INTO items_numbers (id) SELECT 4096 * n FROM generate_series(1, 50) n")
            since = await node.fetchval("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
        await epoch_is(cluster, await stage.give(bucket, "node1", lsn=since))
        assert not await answered_by_replica(cluster, key)
        replica.resume_replay()
        await wait_for(lambda: answered_by_replica(cluster, key))
