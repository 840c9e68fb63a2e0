"""Transactions on real servers: what is rolled back, what is tried again, and what is said about what isn't known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

import shardlib
from shardlib.errors import (
    AnswerMismatch,
    DeadlineExceeded,
    NodeUnavailable,
    OutcomeUnknown,
    Refused,
    Retryable,
)
from shardlib.testing.databases import TestCluster
from shardlib.transactions import Isolation, Transaction
from tests.pg.wire import ADD_ONE, TABLE, Wire, wire_to
from tests.support.proxy import DOWN, UP
from tests.support.waiting import wait_for

READ = f"SELECT version FROM {TABLE} WHERE id = $1"
SLEEPY = f"{ADD_ONE} AND pg_sleep(10) IS NOT NULL"
FENCE = f"""
CREATE FUNCTION fence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'moved' USING ERRCODE = 'SH001'; END $$;
CREATE TRIGGER zz_fence BEFORE INSERT OR UPDATE OR DELETE ON {TABLE} FOR EACH ROW EXECUTE FUNCTION fence();
"""


@pytest.fixture
async def wire(stocked: TestCluster) -> AsyncIterator[Wire]:
    async with wire_to(stocked) as wire:
        yield wire


async def add_one(transaction: Transaction, key: int) -> None:
    assert await transaction.execute(ADD_ONE, key) == "UPDATE 1"


# -- what is rolled back


async def test_an_exception_rolls_back_and_passes_through(wire: Wire) -> None:
    with pytest.raises(ZeroDivisionError):
        async with wire.home.transaction() as transaction:
            await add_one(transaction, wire.key)
            raise ZeroDivisionError
    assert await wire.version() == 1
    assert len(wire.pool.idle) == 1


async def test_an_error_of_postgres_rolls_back_and_is_asyncpgs(wire: Wire) -> None:
    with pytest.raises(shardlib.UniqueViolation):
        async with wire.home.transaction() as transaction:
            await add_one(transaction, wire.key)
            await transaction.execute(f"INSERT INTO {TABLE} (id) VALUES ($1)", wire.key)
    assert await wire.version() == 1


async def test_a_swallowed_error_never_passes_for_a_commit(wire: Wire) -> None:
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        async with wire.home.transaction() as transaction:
            await add_one(transaction, wire.key)
            with pytest.raises(shardlib.UniqueViolation):
                await transaction.execute(f"INSERT INTO {TABLE} (id) VALUES ($1)", wire.key)
    assert await wire.version() == 1
    assert await wire.home.fetchval(READ, wire.key) == 1


async def test_a_savepoint_takes_back_its_own_part_only(wire: Wire) -> None:
    async with wire.home.transaction() as transaction:
        await add_one(transaction, wire.key)
        with pytest.raises(shardlib.UniqueViolation):
            async with transaction.savepoint():
                await add_one(transaction, wire.key)
                await transaction.execute(f"INSERT INTO {TABLE} (id) VALUES ($1)", wire.key)
        async with transaction.savepoint():
            await add_one(transaction, wire.key)
    assert await wire.version() == 3


async def test_isolation_is_what_was_asked_for(wire: Wire) -> None:
    for isolation in Isolation:
        async with wire.home.transaction(isolation=isolation) as transaction:
            level = await transaction.fetchval("SHOW transaction_isolation")
            assert level.replace(" ", "_") == isolation.value


async def test_a_snapshot_stays_as_it_was_in_repeatable_read(wire: Wire) -> None:
    async with wire.home.transaction(isolation=Isolation.REPEATABLE_READ) as transaction:
        assert await transaction.fetchval(READ, wire.key) == 1
        await wire.direct.execute(ADD_ONE, wire.key)
        assert await transaction.fetchval(READ, wire.key) == 1


async def test_copied_records_and_batches_belong_to_the_transaction(wire: Wire) -> None:
    others = [(wire.key + 1_000_000 + number,) for number in range(1200)]
    with pytest.raises(ZeroDivisionError):
        async with wire.home.transaction() as transaction:
            assert await transaction.copy_records_to_table(TABLE, records=others, columns=["id"]) == "COPY 1200"
            batches = [len(batch) async for batch in transaction.batches(f"SELECT id FROM {TABLE}", rows=500)]
            assert batches == [500, 500, 201]
            raise ZeroDivisionError
    assert await wire.direct.fetchval(f"SELECT count(*) FROM {TABLE}") == 1


# -- the fence


async def test_the_fence_refuses_in_a_transaction(wire: Wire) -> None:
    await wire.direct.execute(FENCE)
    with pytest.raises(Refused) as caught:
        async with wire.home.transaction() as transaction:
            await add_one(transaction, wire.key)
    assert isinstance(caught.value.__cause__, asyncpg.PostgresError)
    assert await wire.version() == 1
    assert len(wire.pool.idle) == 1


async def test_what_the_fence_refuses_goes_through_when_it_is_open_again(wire: Wire) -> None:
    await wire.direct.execute(FENCE)
    observed = asyncio.Event()
    wire.cluster._desk.refused = lambda place, loan: observed.set()  # type: ignore[method-assign]

    async def body(transaction: Transaction) -> None:
        await add_one(transaction, wire.key)

    held = asyncio.create_task(wire.home.run(body))
    await observed.wait()
    await wire.direct.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER zz_fence")
    await held
    assert await wire.version() == 2


async def test_a_write_that_the_fence_keeps_refusing_ends_as_retryable(wire: Wire) -> None:
    await wire.direct.execute(FENCE)
    with pytest.raises(Retryable):
        async with shardlib.deadline(0.3):
            await wire.home.execute(ADD_ONE, wire.key)
    assert await wire.version() == 1


# -- trying again


async def test_run_tries_again_after_a_serialisation_failure(stocked: TestCluster) -> None:
    async with wire_to(stocked, pool_size=10) as wire:
        tries = 0

        async def body() -> None:
            nonlocal tries
            while True:
                tries += 1
                try:
                    async with wire.home.transaction(isolation=Isolation.SERIALIZABLE) as transaction:
                        version = await transaction.fetchval(READ, wire.key)
                        await transaction.execute(
                            f"UPDATE {TABLE} SET version = $2 WHERE id = $1", wire.key, version + 1
                        )
                except asyncpg.SerializationError:
                    continue
                return

        await asyncio.gather(*(body() for _ in range(5)))
        assert await wire.version() == 6
        assert tries > 5


async def test_run_resolves_deadlocks_by_itself(stocked: TestCluster) -> None:
    async with wire_to(stocked, pool_size=10) as wire:
        await wire.direct.execute(f"INSERT INTO {TABLE} (id) VALUES (-1), (-2)")
        tries = 0
        both_began = asyncio.Barrier(2)

        async def both(first: int, second: int) -> None:
            async def body(transaction: Transaction) -> None:
                nonlocal tries
                tries += 1
                await transaction.execute(ADD_ONE, first)
                if tries <= 2:
                    await both_began.wait()
                await transaction.execute(ADD_ONE, second)

            await wire.home.run(body)

        await asyncio.gather(both(-1, -2), both(-2, -1))
        assert tries == 3
        rows = await wire.direct.fetch(f"SELECT version FROM {TABLE} WHERE id < 0")
        assert [row["version"] for row in rows] == [3, 3]


async def test_run_tries_again_when_the_link_is_lost_before_commit(wire: Wire) -> None:
    tries = 0

    async def body(transaction: Transaction) -> None:
        nonlocal tries
        tries += 1
        await add_one(transaction, wire.key)
        if tries == 1:
            wire.proxy.cut_all()
        await transaction.fetchval("SELECT 1")

    await wire.home.run(body)
    assert (tries, await wire.version()) == (2, 2)


async def test_run_heals_statements_that_a_migration_made_invalid(wire: Wire) -> None:
    query = f"SELECT * FROM {TABLE} WHERE id = $1"

    async def body(transaction: Transaction) -> Any:
        await add_one(transaction, wire.key)
        return await transaction.fetchrow(query, wire.key)

    await wire.home.run(body)
    await wire.direct.execute(f"ALTER TABLE {TABLE} ADD COLUMN more text DEFAULT 'more'")
    row = await wire.home.run(body)
    assert row["more"] == "more"
    assert await wire.version() == 3


# -- request ids


async def test_a_request_id_for_something_else_is_refused(wire: Wire) -> None:
    async def body(transaction: Transaction) -> int:
        await add_one(transaction, wire.key)
        return 7

    assert await wire.home.run(body, request_id="r", fingerprint="a") == 7
    assert await wire.home.run(body, request_id="r", fingerprint="a") == 7
    with pytest.raises(AnswerMismatch):
        await wire.home.run(body, request_id="r", fingerprint="b")
    assert await wire.version() == 2


async def test_a_twin_waits_for_the_one_in_flight_and_gets_its_answer(wire: Wire) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow(transaction: Transaction) -> str:
        await add_one(transaction, wire.key)
        inside.set()
        await go_on.wait()
        return "of the first"

    async def twin(transaction: Transaction) -> str:
        raise AssertionError("the twin's body must not run")

    first = asyncio.create_task(wire.home.run(slow, request_id="r"))
    await inside.wait()
    second = asyncio.create_task(wire.home.run(twin, request_id="r"))
    blocked = "SELECT count(*) = 1 FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
    await wait_for(lambda: wire.direct.fetchval(blocked))
    go_on.set()
    assert await first == await second == "of the first"
    assert await wire.version() == 2


async def test_a_twin_takes_over_when_the_first_fails(wire: Wire) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def failing(transaction: Transaction) -> str:
        await add_one(transaction, wire.key)
        inside.set()
        await go_on.wait()
        raise ZeroDivisionError

    async def twin(transaction: Transaction) -> str:
        await add_one(transaction, wire.key)
        return "of the second"

    first = asyncio.create_task(wire.home.run(failing, request_id="r"))
    await inside.wait()
    second = asyncio.create_task(wire.home.run(twin, request_id="r"))
    go_on.set()
    with pytest.raises(ZeroDivisionError):
        await first
    assert await second == "of the second"
    assert await wire.version() == 2


# -- what is said about what isn't known


async def test_a_deadline_that_cuts_a_read_says_that_nothing_happened(wire: Wire) -> None:
    with pytest.raises(DeadlineExceeded):
        async with shardlib.deadline(0.1):
            await wire.home.fetchval("SELECT pg_sleep(10)")


@pytest.mark.parametrize("inner_seconds", [None, 60.0], ids=["alone", "around another"])
async def test_a_deadline_that_cuts_a_write_says_that_it_is_unknown(wire: Wire, inner_seconds: float | None) -> None:
    await wire.warm(ADD_ONE)
    wire.proxy.stall(UP)
    with pytest.raises(OutcomeUnknown):
        async with shardlib.deadline(0.15):
            if inner_seconds is None:
                await wire.home.execute(ADD_ONE, wire.key)
            else:
                async with shardlib.deadline(inner_seconds):
                    await wire.home.execute(ADD_ONE, wire.key)


async def test_the_earlier_of_two_deadlines_counts(wire: Wire) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DeadlineExceeded):
        async with shardlib.deadline(60.0):
            async with shardlib.deadline(0.1):
                await wire.home.fetchval("SELECT pg_sleep(10)")
    with pytest.raises(DeadlineExceeded):
        async with shardlib.deadline(0.1):
            async with shardlib.deadline(60.0):
                await wire.home.fetchval("SELECT pg_sleep(10)")
    assert loop.time() - began < 5.0


async def test_a_call_ends_by_itself_without_a_deadline(stocked: TestCluster) -> None:
    async with wire_to(stocked, call_seconds=0.2) as wire:
        with pytest.raises(DeadlineExceeded):
            await wire.home.fetchval("SELECT pg_sleep(10)")
        with pytest.raises(OutcomeUnknown):
            await wire.home.execute(f"{ADD_ONE} AND pg_sleep(0.6) IS NOT NULL", wire.key)


async def test_a_deadline_inside_a_transaction_rolls_back(wire: Wire) -> None:
    with pytest.raises(Retryable):
        async with shardlib.deadline(0.15):
            async with wire.home.transaction() as transaction:
                await add_one(transaction, wire.key)
                await transaction.fetchval("SELECT pg_sleep(10)")
    assert await wire.version() == 1


async def test_a_commit_past_its_deadline_ends_by_itself(wire: Wire) -> None:
    with pytest.raises(OutcomeUnknown):
        async with shardlib.deadline(0.5):
            async with wire.home.transaction() as transaction:
                await add_one(transaction, wire.key)
                wire.proxy.stall(DOWN)
    assert await wire.version() == 2
    wire.proxy.go_on()
    await wait_for(lambda: not wire.cluster._desk.commits)
    await wait_for(lambda: not wire.pool.busy)
    assert await wire.home.fetchval(READ, wire.key) == 2


async def test_closing_the_cluster_lets_a_commit_end(stocked: TestCluster) -> None:
    async with wire_to(stocked) as wire:
        with pytest.raises(OutcomeUnknown):
            async with shardlib.deadline(0.3):
                async with wire.home.transaction() as transaction:
                    await add_one(transaction, wire.key)
                    wire.proxy.stall(UP)
        asyncio.get_running_loop().call_later(0.1, wire.proxy.go_on)
        await wire.cluster.close()
        assert await wire.version() == 2


async def test_a_select_that_writes_leaves_a_lost_commit_unknown(wire: Wire) -> None:
    await wire.direct.execute(
        "CREATE FUNCTION add_one(key bigint) RETURNS void SECURITY DEFINER LANGUAGE sql"
        f" AS $$ UPDATE {TABLE} SET version = version + 1 WHERE id = key $$"
    )

    async def body(transaction: Transaction) -> None:
        await transaction.fetchval("SELECT add_one($1)", wire.key)
        wire.proxy.cut(DOWN, b"COMMIT")

    with pytest.raises(OutcomeUnknown):
        await wire.home.run(body)
    assert await wire.version() == 2


async def test_a_session_ended_while_the_body_thinks_is_known_to_be_rolled_back(wire: Wire) -> None:
    with pytest.raises(NodeUnavailable):
        async with wire.home.transaction() as transaction:
            await add_one(transaction, wire.key)
            [link] = wire.pool.busy
            await wire.direct.execute("SELECT pg_terminate_backend($1)", link.connection.get_server_pid())
            await wait_for(link.connection.is_closed)
    assert await wire.version() == 1
    assert await wire.home.fetchval(READ, wire.key) == 1
