"""All databases get all migrations, in order; after a failure or a death a second run finishes what is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from migrations import run
from migrations.files import Phase, Refused
from migrations.fleet import Step
from tests.migrations.workbench import NODES, Bench
from tests.support.waiting import wait_for

TABLE = "CREATE TABLE person (id bigint PRIMARY KEY, name text NOT NULL);"


async def test_the_catalog_comes_first_then_one_node_then_the_others(bench: Bench) -> None:
    bench.write(
        {
            "catalog/0001_pre_note": "CREATE TABLE note (a int);",
            "node/0001_pre_person": TABLE,
            "node/0002_post_x": "SELECT 1;",
        }
    )
    steps: list[Step] = []
    result = await bench.apply(canary="node2", report=steps.append)
    assert not result.failed
    order = [(step.database, step.migration) for step in steps]
    assert order[:3] == [("catalog", "0001_pre_note"), ("node2", "0001_pre_person"), ("node2", "0002_post_x")]
    assert Counter(name for name, _ in order[3:]) == {"node1": 2, "node3": 2}
    assert await bench.levels() == dict.fromkeys(NODES, 2)
    assert (await bench.apply()).applied == []


async def test_nothing_goes_beyond_a_canary_that_fails(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE, "node/0002_pre_bad": "ALTER TABLE person ADD COLUMN age nonsense;"})
    result = await bench.apply()
    assert list(result.failed) == ["node1"]
    assert "nonsense" in result.failed["node1"]
    assert "0002_pre_bad" in result.failed["node1"]
    assert await bench.levels() == {"node1": 1, "node2": 0, "node3": 0}
    bench.write({"node/0002_pre_bad": "ALTER TABLE person ADD COLUMN age int;"})
    assert not (await bench.apply()).failed
    assert await bench.levels() == dict.fromkeys(NODES, 2)


async def test_a_failure_on_one_node_stops_what_has_not_begun(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    await bench.execute("node2", "CREATE TABLE person (id int)")
    result = await bench.apply(parallel=1)
    assert list(result.failed) == ["node2"]
    assert await bench.levels() == {"node1": 1, "node2": 0, "node3": 0}
    await bench.execute("node2", "DROP TABLE person")
    assert {step.database for step in (await bench.apply()).applied} == {"node2", "node3"}


async def test_a_failed_migration_leaves_nothing_of_itself(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE + "SELECT 1/0;"})
    assert "division by zero" in (await bench.apply()).failed["node1"]
    assert await bench.fetchval("node1", "SELECT to_regclass('person')") is None


async def test_an_edited_file_stops_everything_before_it_begins(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    await bench.apply()
    bench.write({"node/0001_pre_person": TABLE + " -- harmless", "node/0002_pre_more": "SELECT 1;"})
    with pytest.raises(Refused, match=r"nothing was changed; node1: 0001_pre_person was changed after it was applied"):
        await bench.apply()
    assert await bench.levels() == dict.fromkeys(NODES, 1)


async def test_a_node_out_of_reach_stops_everything_before_it_begins(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    nowhere = "postgresql://127.0.0.1:1/app"
    await bench.execute("catalog", f"UPDATE shardlib.node SET admin_url = '{nowhere}' WHERE name = 'node3'")
    with pytest.raises(Refused, match="nothing was changed; node3: can't reach node3"):
        await bench.apply()
    assert "can't reach" in str((await bench.states())["node3"].problem)
    assert await bench.fetchval("node1", "SELECT to_regclass('person')") is None


async def test_a_canary_that_does_not_exist_is_refused(bench: Bench) -> None:
    with pytest.raises(Refused, match="no node node9; there are: node1, node2, node3"):
        await bench.apply(canary="node9")


async def test_pre_and_post_go_around_the_deployment_and_a_new_node_catches_up(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    await bench.apply()
    await bench.execute("node3", "DROP SCHEMA migrations CASCADE", "DROP TABLE person")  # as good as a new node
    bench.write(
        {
            "node/0002_pre_age": "ALTER TABLE person ADD COLUMN age int;",
            "node/0003_post_name": "ALTER TABLE person DROP name;",
        }
    )
    pre = await bench.apply(phase=Phase.PRE)
    assert pre.waiting == {"0003_post_name"}
    assert await bench.levels() == dict.fromkeys(NODES, 2)
    await bench.apply(phase=Phase.POST)
    assert await bench.levels() == dict.fromkeys(NODES, 3)


async def test_two_runners_at_once_apply_each_migration_once(bench: Bench) -> None:
    bench.write(
        {
            "node/0001_pre_person": TABLE,
            "node/0002_pre_slow": "SELECT pg_sleep(0.2);",
            "node/0003_pre_row": "INSERT INTO person VALUES (1, 'a');",
        }
    )
    results = await asyncio.gather(bench.apply(), bench.apply())
    assert not any(result.failed for result in results)
    applied = Counter((step.database, step.migration) for result in results for step in result.applied)
    assert set(applied.values()) == {1}
    assert len(applied) == 9


def waiters(bench: Bench, node: str, count: int) -> Callable[[], Awaitable[bool]]:
    """Return the condition that so many sessions wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    async def holds() -> bool:
        return bool(await bench.fetchval(node, query) == count)

    return holds


async def test_a_lock_that_is_not_had_is_tried_again(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    await bench.apply()
    bench.write({"node/0002_pre_age": "-- lock_timeout: 100ms\nALTER TABLE person ADD COLUMN age int;"})
    async with bench.session("node1") as other:
        reading = other.transaction()
        await reading.start()
        await other.execute("SELECT * FROM person")
        applying = asyncio.create_task(bench.apply())
        await wait_for(waiters(bench, "node1", 1))
        await wait_for(waiters(bench, "node1", 0))  # the first try gave up: whoever queued behind it goes on
        await reading.rollback()
        result = await applying
    assert not result.failed
    assert {step.database: step.tries > 1 for step in result.applied} == {"node1": True, "node2": False, "node3": False}


async def test_a_lock_that_is_never_had_ends_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(run, "MAX_TRIES", 4)
    bench.write({"node/0001_pre_person": TABLE})
    await bench.apply()
    bench.write({"node/0002_pre_age": "-- lock_timeout: 10ms\nALTER TABLE person ADD COLUMN age int;"})
    async with bench.session("node1") as other, other.transaction():
        await other.execute("SELECT * FROM person")
        result = await bench.apply()
    assert "lock timeout" in result.failed["node1"]
    assert await bench.levels() == dict.fromkeys(NODES, 1)


async def test_a_statement_that_takes_too_long_is_ended(bench: Bench) -> None:
    bench.write({"node/0001_pre_long": "-- statement_timeout: 50ms\nSELECT pg_sleep(60);"})
    assert "statement timeout" in (await bench.apply()).failed["node1"]


async def test_our_own_migrations_apply_and_keep_the_application_in_its_bounds(bench: Bench) -> None:
    repository = Bench(bench.access, Path(run.__file__).parent)
    assert not (await repository.apply()).failed
    async with repository.session("node1") as admin:
        grants = await admin.fetchrow(
            "SELECT (SELECT bool_and(has_table_privilege('shardlib', 'users', verb))"
            "          FROM unnest('{SELECT,INSERT,DELETE}'::text[]) AS verb) AS enough,"
            " has_table_privilege('shardlib', 'users', 'TRUNCATE, TRIGGER, REFERENCES') AS too_much,"
            " has_column_privilege('shardlib', 'users', 'id', 'UPDATE') AS key, "
            " has_column_privilege('shardlib', 'users', 'email', 'UPDATE') AS email"
        )
        attached = await admin.fetch("SELECT keyspace, table_name, key_column FROM shardlib.attached_table ORDER BY 1")
    assert dict(grants) == {"enough": True, "too_much": False, "key": False, "email": True}
    assert [tuple(row) for row in attached] == [
        ("identifiers", "shardlib.identifier", "value"),
        ("users", "public.users", "id"),
    ]
