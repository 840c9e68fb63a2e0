"""The pytest plugin in a project of somebody else: nothing but ``shardlib[testing]`` is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib.testing import places, processes

INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
PROJECT = """
import asyncio, os, subprocess, sys
import asyncpg, pytest, shardlib

TABLE = "CREATE TABLE mine (id int); GRANT ALL ON mine TO shardlib"

@pytest.mark.parametrize("turn", [1, 2])
async def test_each_test_has_databases_of_its_own(shardlib_cluster, turn):
    for url in shardlib_cluster.node_admin_urls:
        admin = await asyncpg.connect(url)
        await admin.execute(TABLE)  # fails if the other turn's is still there
        await admin.close()
    async with shardlib_cluster.connect(keyspace="numbers") as cluster:
        for key in range(20):
            await cluster.shard(key).execute("INSERT INTO mine VALUES ($1)", key)
        places = {cluster.where(key).node for key in range(20)}
    assert places == set(shardlib_cluster.node_names)

async def test_replicas_know_the_databases(shardlib_cluster):
    for (url,) in shardlib_cluster.replica_urls:
        replica = await asyncpg.connect(url)
        assert await replica.fetchval("SELECT pg_is_in_recovery()")
        await replica.close()

def test_plain_tests_and_programs_can_use_it(shardlib_cluster):
    program = "import asyncio, shardlib\\nasync def main():\\n"
    program += " async with shardlib.connect() as c: print(len(c.topology.nodes))\\nasyncio.run(main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "3\\n", done.stderr

def test_the_environment_is_as_it_was():
    assert "SHARDLIB_CATALOG_URL" not in os.environ

async def test_own_servers_may_be_killed(own_servers):
    cluster = own_servers(nodes=1, replicas=0)
    cluster.servers.nodes[0].primary.kill()
    with pytest.raises(OSError):
        await asyncpg.connect(cluster.node_urls[0])
    cluster.servers.nodes[0].primary.start()
    await (await asyncpg.connect(cluster.node_urls[0])).close()
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a place for the other session's servers."""
    with places.place() as made:
        yield made


def test_the_fixtures_work_elsewhere_and_leave_nothing(
    pytester: pytest.Pytester, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDLIB_TEST_DIR", str(directory))
    pytester.makeini(INI)
    pytester.makepyfile(test_elsewhere=PROJECT)
    pytester.runpytest_subprocess().assert_outcomes(passed=6)
    assert [path.name for path in directory.iterdir()] == ["owner"]
    assert processes.working_below(directory) == []


def test_a_session_without_the_fixtures_starts_nothing(
    pytester: pytest.Pytester, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDLIB_TEST_DIR", str(directory))
    pytester.makepyfile("def test_nothing(): pass")
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    assert [path.name for path in directory.iterdir()] == ["owner"]
