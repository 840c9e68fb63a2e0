"""A run that is killed at any point is finished by the next one, and nothing is done twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.migrations.workbench import NODES, Bench
from tests.support.waiting import wait_for

TABLE = "CREATE TABLE person (id bigint PRIMARY KEY, name text NOT NULL);"
INDEX = "-- tx: off\nCREATE INDEX CONCURRENTLY IF NOT EXISTS person_name ON person (name);\n"
RUNNERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%migr%'"
VALID = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('person_name')"


@asynccontextmanager
async def runner(bench: Bench) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``python -m migrations apply`` in a process of its own, and kill it in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "migrations", "apply", "--directory", str(bench.directory)
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def sessions_left(bench: Bench, count: int) -> bool:
    """Return whether so many sessions like the runners' are left: the server hears late of a client's death."""
    return bool(await bench.fetchval("node1", RUNNERS) == count + 1)  # with the one that asks


async def statement_runs(bench: Bench, text: str) -> bool:
    query = (
        f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query ~ '{text}' AND pid <> pg_backend_pid()"
    )
    return bool(await bench.fetchval("node1", query))


async def test_killed_inside_a_transaction(bench: Bench) -> None:
    bench.write(
        {
            "node/0001_pre_person": TABLE,
            "node/0002_pre_slow": "INSERT INTO person VALUES (1, 'a'); SELECT pg_sleep(30);",
        }
    )
    async with runner(bench):
        await wait_for(lambda: statement_runs(bench, "pg_sleep"))
    await wait_for(lambda: sessions_left(bench, 0))
    assert await bench.levels() == {"node1": 1, "node2": 0, "node3": 0}
    bench.write({"node/0002_pre_slow": "INSERT INTO person VALUES (1, 'a');"})
    assert not (await bench.apply()).failed
    assert await bench.levels() == dict.fromkeys(NODES, 2)
    assert await bench.fetchval("node1", "SELECT count(*) FROM person") == 1


async def test_killed_while_an_index_is_built(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    await bench.apply()
    bench.write({"node/0002_pre_index": INDEX})
    async with bench.session("node1") as other, other.transaction():
        await other.execute("INSERT INTO person VALUES (1, 'a')")  # the build waits for this transaction's end
        async with runner(bench):
            await wait_for(lambda: statement_runs(bench, "CONCURRENTLY"))
            await wait_for(lambda: _has_invalid_index(bench))
        await wait_for(lambda: sessions_left(bench, 1))
    assert not (await bench.states())["node1"].ledger[-1].finished
    assert not (await bench.apply()).failed
    assert await bench.levels() == dict.fromkeys(NODES, 2)
    assert [await bench.fetchval(node, VALID) for node in NODES] == [True] * 3


async def _has_invalid_index(bench: Bench) -> bool:
    return await bench.fetchval("node1", VALID) is False


async def test_a_statement_of_several_that_fails_is_mended_and_all_are_repeated(bench: Bench) -> None:
    bench.write({"node/0001_pre_person": TABLE})
    await bench.apply()
    await bench.execute("node1", "INSERT INTO person VALUES (1, 'a'), (2, 'a')")
    unique = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS person_name ON person (name);"
    bench.write({"node/0002_pre_index": f"-- tx: off\nANALYZE person;\n{unique}"})
    assert "could not create unique index" in (await bench.apply()).failed["node1"]
    assert await bench.fetchval("node1", VALID) is False
    assert not (await bench.states())["node1"].ledger[-1].finished
    await bench.execute("node1", "DELETE FROM person WHERE id = 2")
    assert not (await bench.apply()).failed
    assert await bench.fetchval("node1", VALID) is True


async def test_a_change_of_many_rows_in_batches_commits_as_it_goes(bench: Bench) -> None:
    batches = """-- tx: off
    DO $$
    BEGIN
        LOOP
            UPDATE person SET name = 'b' WHERE id IN (SELECT id FROM person WHERE name = 'a' LIMIT 10);
            EXIT WHEN NOT FOUND;
            COMMIT;
        END LOOP;
    END $$;
    """
    bench.write({"node/0001_pre_person": TABLE + "INSERT INTO person SELECT g, 'a' FROM generate_series(1, 35) g;"})
    bench.write({"node/0002_pre_name": batches})
    assert not (await bench.apply()).failed
    assert await bench.fetchval("node2", "SELECT count(*) FROM person WHERE name = 'b'") == 35


async def test_a_build_does_not_wait_for_a_second_runner(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that waited for the lock in a statement would hold the snapshot that the index build waits for."""
    bench.write({"node/0001_pre_person": TABLE})
    await bench.apply()
    bench.write({"node/0002_pre_index": INDEX})
    monkeypatch.setattr("migrations.targets.LOCK_SECONDS", 20.0)
    async with asyncio.timeout(15):
        results = await asyncio.gather(*(bench.apply() for _ in range(3)))
    assert not any(result.failed for result in results)
    assert await bench.fetchval("node1", VALID) is True


async def test_a_runner_that_never_ends_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migrations.targets.LOCK_SECONDS", 0.1)
    bench.write({"node/0001_pre_person": TABLE})
    async with bench.session("node1") as other:
        await other.execute("SELECT pg_advisory_lock($1)", int.from_bytes(b"migrate!"))
        result = await bench.apply()
    assert "another migration" in result.failed["node1"]
