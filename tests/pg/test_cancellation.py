"""A request cancelled at any of its awaits leaves no connection lost, dirty, or with another's answer on its way.

Each test cancels at await 0, at await 1, and so on until the request has no more, in both ways in which a
cancellation can meet an await, and counts links and sessions after each.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from shardlib import Cluster, Shard
from shardlib.core.keys import Key
from shardlib.pg.pool import EndpointPool
from shardlib.testing.databases import TestCluster
from shardlib.transactions import Transaction
from tests.pg.conftest import SPACES, Space
from tests.pg.links import Census, census_of, is_quiet, pool_of, pools_of
from tests.support.stepping import When, cancelled_at
from tests.support.waiting import wait_for

MOST_AWAITS = 100
POOL_SIZE = 2


@dataclass(frozen=True)
class Bench:
    """A client with a small pool, one key that has a row, and the servers' own view of who is connected."""

    cluster: Cluster
    space: Space
    key: Key
    census: Census

    @property
    def home(self) -> Shard:
        return self.cluster.shard(self.key)

    @property
    def pool(self) -> EndpointPool:
        return pool_of(self.cluster, self.key)

    def sql(self, text: str) -> str:
        return text.format(table=self.space.table)

    async def version(self) -> int:
        version = await self.home.fetchval(self.sql("SELECT version FROM {table} WHERE id = $1"), self.key)
        assert isinstance(version, int)
        return version

    async def cancel_at_each_await(
        self, request: Callable[[], Awaitable[Any]], prepare: Callable[[], Awaitable[None]] | None = None
    ) -> int:
        """Return how often it was cancelled; all is counted after each."""
        return sum([await self._cancel_at_each_await(request, prepare, when) for when in When])

    async def _cancel_at_each_await(
        self, request: Callable[[], Awaitable[Any]], prepare: Callable[[], Awaitable[None]] | None, when: When
    ) -> int:
        for at in range(MOST_AWAITS):
            if prepare is not None:
                await prepare()
            if not await cancelled_at(request(), at, when):
                return at
            await wait_for(lambda: not self.cluster._desk.commits)
            await self.census.check(self.cluster)
        raise AssertionError(f"it still waits after {MOST_AWAITS} awaits")


@pytest.fixture
async def bench(stocked: TestCluster, space: Space) -> AsyncIterator[Bench]:
    async with stocked.connect(keyspace=space.keyspace, pool_size=POOL_SIZE) as cluster, census_of(stocked) as census:
        key = space.make(1)
        await cluster.shard(key).execute(f"INSERT INTO {space.table} (id) VALUES ($1)", key)
        yield Bench(cluster, space, key, census)


any_key_type = pytest.mark.parametrize("space", SPACES[1:2], ids=["users"])  # what is tested doesn't depend on it


async def test_a_read_on_an_idle_link(bench: Bench) -> None:
    query = bench.sql("SELECT id FROM {table} WHERE id = $1")
    assert await bench.cancel_at_each_await(lambda: bench.home.fetchrow(query, bench.key)) >= 2


@any_key_type
async def test_a_read_that_opens_a_link(bench: Bench) -> None:
    async def close_all() -> None:
        for link in tuple(bench.pool.idle):
            link.connection.terminate()
        await wait_for(lambda: not bench.pool.idle)

    query = bench.sql("SELECT id FROM {table} WHERE id = $1")
    assert await bench.cancel_at_each_await(lambda: bench.home.fetchrow(query, bench.key), close_all) >= 4


@any_key_type
async def test_a_read_that_waits_for_a_full_pool(bench: Bench) -> None:
    async def occupy() -> None:
        loop = asyncio.get_running_loop()
        for delay in (0.005, 0.01):
            link = await bench.pool.take(loop.time() + 10.0)
            loop.call_later(delay, bench.pool.give, link)

    query = bench.sql("SELECT id FROM {table} WHERE id = $1")
    assert await bench.cancel_at_each_await(lambda: bench.home.fetchrow(query, bench.key), occupy) >= 2


@any_key_type
async def test_waiters_behind_a_cancelled_one_are_served(bench: Bench) -> None:
    query = bench.sql("SELECT $2::int FROM {table} WHERE id = $1")

    async def crowd() -> None:
        others = [asyncio.create_task(ask(number)) for number in range(10)]
        await bench.home.fetchval(query, bench.key, -1)
        assert await asyncio.gather(*others) == list(range(10))

    async def ask(number: int) -> Any:
        return await bench.home.fetchval(query, bench.key, number)

    assert await bench.cancel_at_each_await(crowd) >= 4


async def test_a_write_happens_wholly_or_not(bench: Bench) -> None:
    query = bench.sql("UPDATE {table} SET version = version + 1 WHERE id = $1")
    awaits = await bench.cancel_at_each_await(lambda: bench.home.execute(query, bench.key))
    assert awaits >= 2
    assert 3 <= await bench.version() <= 3 + awaits


async def test_a_transaction_happens_wholly_or_not(bench: Bench) -> None:
    query = bench.sql("UPDATE {table} SET version = version + 1 WHERE id = $1")

    async def twice() -> None:
        async with bench.home.transaction() as transaction:
            await transaction.execute(query, bench.key)
            await transaction.execute(query, bench.key)

    assert await bench.cancel_at_each_await(twice) >= 8
    assert await bench.version() % 2 == 1


@any_key_type
async def test_a_request_with_an_id_happens_once_however_often_it_is_cancelled(bench: Bench) -> None:
    query = bench.sql("UPDATE {table} SET version = version + 1 WHERE id = $1 RETURNING version")

    async def body(transaction: Transaction) -> Any:
        return await transaction.fetchval(query, bench.key)

    assert await bench.cancel_at_each_await(lambda: bench.home.run(body, request_id="the one")) >= 8
    assert await bench.home.run(body, request_id="the one") == 2 == await bench.version()


@any_key_type
async def test_requests_with_ids_of_their_own(bench: Bench) -> None:
    query = bench.sql("UPDATE {table} SET version = version + 1 WHERE id = $1 RETURNING version")
    ids = itertools.count()

    async def body(transaction: Transaction) -> Any:
        return await transaction.fetchval(query, bench.key)

    cancelled = await bench.cancel_at_each_await(lambda: bench.home.run(body, request_id=str(next(ids))))
    assert cancelled >= 12
    used = next(ids)
    for number in range(used):
        await bench.home.run(body, request_id=str(number))
    assert await bench.version() == 1 + used


@any_key_type
async def test_a_savepoint(bench: Bench) -> None:
    async def nested() -> None:
        async with bench.home.transaction() as transaction, transaction.savepoint():
            await transaction.fetchval("SELECT 1")

    assert await bench.cancel_at_each_await(nested) >= 10


@any_key_type
async def test_a_connection_of_ones_own(bench: Bench) -> None:
    async def borrow() -> None:
        async with bench.home.connection() as connection:
            await connection.execute("SET work_mem = '1MB'")
            await connection.fetchval("SELECT pg_advisory_lock(1)")

    assert await bench.cancel_at_each_await(borrow) >= 4
    assert await bench.home.fetchval("SHOW work_mem") != "1MB"


@any_key_type
async def test_a_statement_that_changes_its_session(bench: Bench) -> None:
    assert await bench.cancel_at_each_await(lambda: bench.home.execute("SET work_mem = '1MB'")) >= 2
    assert await bench.home.fetchval("SHOW work_mem") != "1MB"


@any_key_type
async def test_a_read_that_must_ask_who_owns_the_bucket(bench: Bench) -> None:
    async def grow_stale() -> None:
        bench.cluster._desk.watcher.view.fresh_until = 0.0

    bench.cluster._desk.watcher._lease = -1000.0  # polls don't make it fresh again
    query = bench.sql("SELECT id FROM {table} WHERE id = $1")
    assert await bench.cancel_at_each_await(lambda: bench.home.fetchrow(query, bench.key), grow_stale) >= 4


@any_key_type
async def test_a_link_that_must_be_greeted_again(bench: Bench) -> None:
    async def raise_epoch() -> None:
        bench.pool.epoch += 1

    query = bench.sql("SELECT id FROM {table} WHERE id = $1")
    assert await bench.cancel_at_each_await(lambda: bench.home.fetchrow(query, bench.key), raise_epoch) >= 4


@any_key_type
async def test_a_token(bench: Bench) -> None:
    assert await bench.cancel_at_each_await(bench.home.token) >= 2


@any_key_type
async def test_a_read_on_a_replica(bench: Bench) -> None:
    query = bench.sql("SELECT version FROM {table} WHERE id = $1")
    token = await bench.home.token()
    reader = bench.home.replica(max_lag=None, after=token)
    assert await bench.cancel_at_each_await(lambda: reader.fetchval(query, bench.key)) >= 2


@any_key_type
@pytest.mark.parametrize("limit", [None, 3])
async def test_a_scatter(bench: Bench, limit: int | None) -> None:
    keys = [bench.space.make(number) for number in range(2, 30)]
    for key in keys:
        await bench.cluster.shard(key).execute(bench.sql("INSERT INTO {table} (id) VALUES ($1)"), key)
    query = bench.sql("SELECT id FROM {table} WHERE /*mine*/ ORDER BY note LIMIT 3")
    scatter = bench.cluster.scatter(query, order_by="id", limit=limit)
    assert await bench.cancel_at_each_await(scatter.fetch) >= 6


async def test_one_read_for_many_keys(bench: Bench) -> None:
    keys = [bench.space.make(number) for number in range(30)]
    query = bench.sql("SELECT id FROM {table} WHERE id = ANY($1)")
    assert await bench.cancel_at_each_await(lambda: bench.cluster.fetch_many(query, keys)) >= 2


@any_key_type
async def test_closing_the_cluster_in_the_middle_of_requests(stocked: TestCluster, space: Space) -> None:
    query = f"SELECT id FROM {space.table}"
    async with census_of(stocked) as census:
        async with stocked.connect(keyspace=space.keyspace, pool_size=POOL_SIZE) as cluster:
            requests = [asyncio.create_task(read(cluster, space, number, query)) for number in range(60)]
            await asyncio.wait(requests, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*requests, return_exceptions=True)
        assert all(is_quiet(pool) and not pool.idle for pool in pools_of(cluster))
        await census.check(cluster)


async def read(cluster: Cluster, space: Space, number: int, query: str) -> None:
    await cluster.shard(space.make(number)).fetch(query)
