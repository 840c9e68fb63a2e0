"""What was committed is never called "nothing happened", even if nobody can say afterwards who owns the bucket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from shardlib import Cluster, Transaction
from shardlib.calls import Desk
from shardlib.errors import NodeUnavailable, OutcomeUnknown, Refused, Retryable
from shardlib.testing.databases import TestCluster

INSERT = "INSERT INTO items_numbers (id) VALUES ($1)"
COUNT = "SELECT count(*) FROM items_numbers"
ALWAYS_STALE = 1e-9  # seconds of lease: each answer has to be asked about


@pytest.fixture
async def speechless(stocked: TestCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """Give a cluster whose nodes are lost whenever they are asked what they own."""

    async def lost(*_: object) -> bool:
        raise NodeUnavailable("lost when it was asked", node="node1")

    async with stocked.connect(keyspace="numbers", lease_seconds=ALWAYS_STALE) as cluster:
        await cluster.shard(1).fetchval("SELECT 1")
        with monkeypatch.context() as patch:
            patch.setattr(Desk, "_ask_owned", lost)
            yield cluster


async def test_a_statement_whose_effect_is_unknown(speechless: Cluster) -> None:
    with pytest.raises(OutcomeUnknown):
        await speechless.shard(1).executemany(INSERT, [(1,)])
    with pytest.raises(OutcomeUnknown):
        await speechless.shard(1).fetch("WITH new AS (INSERT INTO items_numbers (id) VALUES (2)) SELECT 1 WHERE false")


async def test_a_statement_that_read_may_be_tried_again(speechless: Cluster) -> None:
    with pytest.raises(Retryable):
        await speechless.shard(1).fetchval(COUNT)


async def test_a_body_without_a_request_id_runs_once(speechless: Cluster) -> None:
    runs = 0

    async def body(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.executemany(INSERT, [(runs,)])

    with pytest.raises(OutcomeUnknown):
        await speechless.shard(1).run(body)
    assert runs == 1


async def test_a_body_that_writes_by_a_function_runs_once(stocked: TestCluster, speechless: Cluster) -> None:
    home = speechless.shard(1)
    node = next(node for node in stocked.servers.nodes if node.name == speechless.where(1).node)
    node.primary.psql(
        "CREATE FUNCTION add_item() RETURNS bigint LANGUAGE sql SECURITY DEFINER"
        " AS 'INSERT INTO items_numbers (id) SELECT coalesce(max(id), 0) + 1 FROM items_numbers RETURNING id'",
        database=stocked.database,
    )
    runs = 0

    async def body(transaction: Transaction) -> None:
        nonlocal runs
        runs += 1
        await transaction.fetchval("SELECT add_item()")

    with pytest.raises(OutcomeUnknown):
        await home.run(body)
    assert runs == 1


async def test_a_body_that_only_reads_may_run_again(stocked: TestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def once_no(*_: object) -> bool:
        nonlocal asked
        asked += 1
        return asked > 1

    async def body(transaction: Transaction) -> int:
        return int(await transaction.fetchval(COUNT))

    async with stocked.connect(keyspace="numbers", lease_seconds=ALWAYS_STALE) as cluster:
        with monkeypatch.context() as patch:
            patch.setattr(Desk, "_ask_owned", once_no)
            assert await cluster.shard(1).run(body) == 0
            asked = 0
            with pytest.raises(Refused):
                async with cluster.shard(1).transaction() as transaction:
                    await body(transaction)
