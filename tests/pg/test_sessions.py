"""Sessions are shared: what one user does to a session never reaches the next, and a plain statement costs one trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

import shardlib
from shardlib.errors import CatalogUnavailable, DeadlineExceeded, NodeUnavailable, OutcomeUnknown, Overloaded, Retryable
from shardlib.testing.databases import TestCluster
from shardlib.testing.plugin import OwnServers
from tests.pg.links import census_of, is_quiet
from tests.pg.wire import ADD_ONE, TABLE, Wire, wire_to
from tests.support.proxy import DOWN, UP, Direction
from tests.support.waiting import wait_for

READ = f"SELECT version FROM {TABLE} WHERE id = $1"


@pytest.fixture
async def wire(stocked: TestCluster) -> AsyncIterator[Wire]:
    """Give a client with a single session, so that the next user gets the very one of the user before."""
    async with wire_to(stocked, pool_size=1) as wire:
        yield wire


# -- what a plain statement costs


async def stop_looking(wire: Wire) -> None:
    """End the monitor of the node behind the proxy, so that only requests are counted."""
    node: Any = wire.cluster._desk.watcher.view.nodes[wire.cluster.where(wire.key).node]
    before = sent(wire)
    for monitor in node.monitors:
        await monitor.close()
    await wait_for(lambda: sent(wire) > before)  # it said good-bye


def sent(wire: Wire, direction: Direction = UP) -> int:
    return wire.proxy.lanes[direction].pieces


@pytest.mark.parametrize("query", [READ, ADD_ONE, f"{ADD_ONE} RETURNING version"], ids=["read", "write", "returning"])
async def test_a_plain_statement_is_one_message_each_way(wire: Wire, query: str) -> None:
    await wire.home.fetch(query, wire.key)
    await stop_looking(wire)
    up, down = sent(wire, UP), sent(wire, DOWN)
    for _ in range(10):
        await wire.home.fetch(query, wire.key)
    assert (sent(wire, UP) - up, sent(wire, DOWN) - down) == (10, 10)


async def test_a_transaction_costs_two_messages_more_than_its_statements(wire: Wire) -> None:
    await wire.home.execute(ADD_ONE, wire.key)
    await stop_looking(wire)
    before = sent(wire)
    async with wire.home.transaction() as transaction:
        await transaction.execute(ADD_ONE, wire.key)
        await transaction.execute(ADD_ONE, wire.key)
    assert sent(wire) - before == 4


# -- what must not leak to the next user

TRACES = {
    "SET work_mem = '1MB'": "SELECT current_setting('work_mem') = '1MB'",
    "SELECT set_config('work_mem', '1MB', false)": "SELECT current_setting('work_mem') = '1MB'",
    "SET ROLE shardlib_reader": "SELECT current_user = 'shardlib_reader'",
    "LISTEN something": "SELECT count(*) > 0 FROM pg_listening_channels()",
    "SELECT pg_advisory_lock(1)": "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory'",
    "CREATE TEMP TABLE leftover (id int)": "SELECT to_regclass('leftover') IS NOT NULL",
    "CREATE TEMPORARY SEQUENCE leftover": "SELECT to_regclass('leftover') IS NOT NULL",
    "BEGIN": "SELECT false",
    f"BEGIN; UPDATE {TABLE} SET version = 100": f"SELECT max(version) = 100 FROM {TABLE}",
    "PREPARE mine AS SELECT 1": "SELECT count(*) > 0 FROM pg_prepared_statements WHERE from_sql",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT": "SELECT count(*) > 0 FROM pg_cursors WHERE is_holdable",
    "SET search_path = pg_catalog": "SELECT current_setting('search_path') = 'pg_catalog'",
    "/* one /* two */ still */ SET work_mem = '1MB'": "SELECT current_setting('work_mem') = '1MB'",
    "/* /* */ select */ SET work_mem = '1MB'": "SELECT current_setting('work_mem') = '1MB'",
}


@pytest.fixture
async def reader_role(wire: Wire) -> AsyncIterator[None]:
    """Make a role that the application may take."""
    server = wire.databases.servers.nodes[0].primary
    server.psql("CREATE ROLE shardlib_reader; GRANT shardlib_reader TO shardlib")
    yield
    server.psql("DROP ROLE shardlib_reader")


@pytest.mark.usefixtures("reader_role")
async def test_nothing_that_a_verb_does_to_its_session_leaks(wire: Wire) -> None:
    pid = await wire.home.fetchval("SELECT pg_backend_pid()")
    for statement, question in TRACES.items():
        await wire.home.execute(statement)
        assert not await wire.home.fetchval(question), statement
        assert not wire.pool.idle[0].connection.is_in_transaction()
    assert await wire.home.fetchval(READ, wire.key) == 1
    assert await wire.home.fetchval("SELECT pg_backend_pid()") == pid


@pytest.mark.usefixtures("reader_role")
async def test_nothing_that_a_failing_statement_does_to_its_session_leaks(wire: Wire) -> None:
    for statement, question in TRACES.items():
        if statement.startswith(("PREPARE", "/*", "BEGIN;")):
            continue
        with pytest.raises(asyncpg.PostgresError):
            if statement.startswith("SELECT"):
                await wire.home.execute(f"{statement}, 1 / (random() * 0)::int")
            else:
                await wire.home.execute(f"{statement}; COMMIT; SELECT 1 / 0")
        assert not await wire.home.fetchval(question), statement
    with pytest.raises(asyncpg.DivisionByZeroError):
        await wire.home.execute("BEGIN; SELECT 1 / 0")
    assert await wire.home.fetchval(READ, wire.key) == 1


@pytest.mark.usefixtures("reader_role")
async def test_nothing_that_is_done_to_a_lent_connection_leaks(wire: Wire) -> None:
    for statement, question in TRACES.items():
        async with wire.home.connection() as connection:
            await connection.execute(statement)
        assert not await wire.home.fetchval(question), statement


async def test_a_transactions_settings_leave_with_it(wire: Wire) -> None:
    async with wire.home.transaction() as transaction:
        await transaction.execute("SET work_mem = '1MB'")
        await transaction.fetchval("SELECT pg_advisory_lock(1)")
    assert await wire.home.fetchval("SHOW work_mem") != "1MB"
    assert await wire.home.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0


async def test_forgetting_prepared_statements_doesnt_spoil_the_session(wire: Wire) -> None:
    for statement in ("DEALLOCATE ALL", "DISCARD ALL", "DISCARD PLANS"):
        assert await wire.home.fetchval(READ, wire.key) == 1
        await wire.home.execute(statement)
        assert await wire.home.fetchval(READ, wire.key) == 1
    assert wire.pool.counters.opened == 1


async def test_notices_are_still_heard_after_a_reset(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardlib.pg.link._SYNC_WAIT", "exec_stmt_raise")  # where a RAISE comes from
    await wire.home.execute("SET work_mem = '1MB'")
    await wait_for(lambda: wire.pool.idle)
    [link] = wire.pool.idle
    await link.connection.execute("DO $$ BEGIN RAISE WARNING 'in any language'; END $$")
    assert link.sync_wait_cancelled


async def test_a_connection_that_its_borrower_closed_is_nobodys_failure(wire: Wire) -> None:
    for _ in range(10):
        async with wire.home.connection() as connection:
            await connection.close()
    assert wire.pool.breaker.lets_through
    assert await wire.home.fetchval(READ, wire.key) == 1


async def test_a_reset_session_counts_towards_the_size_of_the_pool(wire: Wire) -> None:
    async def set_often() -> None:
        for _ in range(5):
            await wire.home.execute("SET work_mem = '1MB'")

    await asyncio.gather(*(set_often() for _ in range(5)))
    await wait_for(lambda: is_quiet(wire.pool))
    assert len(wire.pool.idle) == 1
    assert wire.pool.counters.opened == 1


# -- sessions that are lost


async def test_idle_sessions_that_were_ended_are_replaced_unseen(stocked: TestCluster) -> None:
    async with stocked.connect(keyspace="numbers", pool_size=5) as cluster, census_of(stocked) as census:
        ended = 0
        for _ in range(5):
            await asyncio.gather(*(cluster.shard(key).fetchval("SELECT 1") for key in range(60)))
            for server in census.servers.values():
                ended += await server.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'shardlib'"
                )
            await asyncio.gather(*(cluster.shard(key).fetchval("SELECT 1") for key in range(60)))
        assert ended >= 25
        await census.check(cluster)


async def test_a_restarted_server_is_used_again(own_servers: OwnServers) -> None:
    databases = own_servers(nodes=1, replicas=0)
    server = databases.servers.nodes[0].primary
    async with databases.connect(keyspace="numbers", call_seconds=20.0, pool_size=5) as cluster:
        home = cluster.shard(1)
        await asyncio.gather(*(home.fetchval("SELECT 1") for _ in range(20)))
        await asyncio.to_thread(server.kill)
        with pytest.raises(NodeUnavailable):
            for _ in range(100):
                await home.fetchval("SELECT 1")
        await asyncio.to_thread(server.start)

        async def serves() -> bool:
            try:
                return bool(await home.fetchval("SELECT 1") == 1)
            except NodeUnavailable:
                return False

        await wait_for(serves)
        assert await asyncio.gather(*(home.fetchval("SELECT 1") for _ in range(20))) == [1] * 20


async def test_a_select_that_writes_is_never_run_twice(wire: Wire) -> None:
    await wire.direct.execute(
        "CREATE FUNCTION add_one(key bigint) RETURNS bigint SECURITY DEFINER LANGUAGE sql"
        f" AS $$ UPDATE {TABLE} SET version = version + 1 WHERE id = key RETURNING version $$"
    )
    await wire.home.fetchval("SELECT add_one($1)", wire.key)
    await stop_looking(wire)
    wire.proxy.cut(DOWN)
    with pytest.raises(OutcomeUnknown):
        await wire.home.fetchval("SELECT add_one($1)", wire.key)
    assert await wire.version() == 3


async def test_a_select_that_only_reads_is_sent_again(wire: Wire) -> None:
    await wire.home.fetchval(READ, wire.key)
    for direction in (UP, DOWN):
        wire.proxy.cut(direction)
        assert await wire.home.fetchval(READ, wire.key) == 1
        assert wire.proxy.was_cut.is_set()


async def test_a_session_cut_off_in_the_middle_doesnt_stay_on_the_server(wire: Wire) -> None:
    with pytest.raises(DeadlineExceeded):
        async with shardlib.deadline(0.1):
            await wire.home.fetchval("SELECT pg_sleep(60)")
    sleeping = "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()"
    await wait_for(lambda: wire.direct.fetchval(sleeping), 5.0)


# -- migrations under load


async def test_plans_heal_after_a_table_was_altered_under_load(stocked: TestCluster) -> None:
    async with wire_to(stocked, pool_size=4) as wire:
        stop = asyncio.Event()
        served = 0

        async def load() -> None:
            nonlocal served
            while not stop.is_set():
                assert await wire.home.fetchrow(f"SELECT * FROM {TABLE} WHERE id = $1", wire.key)
                await wire.home.fetchrow(f"{ADD_ONE} RETURNING *", wire.key)
                served += 1

        def reached(count: int) -> bool:
            return served >= count

        users = [asyncio.create_task(load()) for _ in range(8)]
        for number in range(5):
            await wire.direct.execute(f"ALTER TABLE {TABLE} ADD COLUMN more_{number} text")
            await wait_for(partial(reached, served + 20))
            await wire.direct.execute(f"ALTER TABLE {TABLE} DROP COLUMN more_{number}")
        stop.set()
        await asyncio.gather(*users)
        assert await wire.version() == 1 + served


# -- limits


async def test_a_full_queue_sends_newcomers_away_and_serves_the_rest_in_order(stocked: TestCluster) -> None:
    async with wire_to(stocked, pool_size=1, max_waiting=5) as wire:
        link = await wire.pool.take(float("inf"))
        served: list[int] = []

        async def ask(number: int) -> None:
            await wire.home.fetchval("SELECT 1")
            served.append(number)

        waiting = [asyncio.create_task(ask(number)) for number in range(5)]
        await wait_for(lambda: wire.pool.waiting == 5)
        with pytest.raises(Overloaded):
            await ask(5)
        wire.pool.give(link)
        await asyncio.gather(*waiting)
        assert served == [0, 1, 2, 3, 4]


async def test_a_server_without_free_connections_still_serves_with_those_it_gave(wire: Wire) -> None:
    await wire.home.fetchval("SELECT 1")
    user = urlsplit(wire.databases.node_urls[0]).username
    server = wire.databases.servers.nodes[0].primary
    server.psql(f"ALTER ROLE {user} CONNECTION LIMIT 2")
    try:
        async with wire.databases.connect(keyspace="numbers", pool_size=5, call_seconds=2.0) as other:
            answers = await asyncio.gather(
                *(wire.home.fetchval("SELECT 1") for _ in range(10)),
                *(other.shard(wire.key).fetchval("SELECT 1") for _ in range(10)),
                return_exceptions=True,
            )
            assert answers[:10] == [1] * 10
            assert all(answer == 1 or isinstance(answer, Retryable) for answer in answers)
    finally:
        server.psql(f"ALTER ROLE {user} CONNECTION LIMIT -1")


async def test_a_wrong_password_is_named_without_being_told(
    stocked: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SHARDLIB_PASSWORD_FILE")
    monkeypatch.setenv("SHARDLIB_PASSWORD", "a wrong secret")
    with pytest.raises(CatalogUnavailable) as caught:
        async with stocked.connect():
            raise AssertionError("nobody gets in with a wrong password")
    assert "password" in str(caught.value)
    assert "a wrong secret" not in repr(caught.value) + str(caught.value)
