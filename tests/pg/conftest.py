"""Databases with a table per key type, for tests that mean any key."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from shardlib.core.keys import Key
from shardlib.testing.databases import Databases, TestCluster
from shardlib.testing.initial import run_apart
from shardlib.testing.plugin import enter
from tests.pg.stage import Stage

TABLES = {"numbers": "bigint", "users": "uuid", "names": "text"}
_MAKE = """
CREATE TABLE items_{keyspace} (id {type} PRIMARY KEY, note text NOT NULL DEFAULT '', version bigint NOT NULL DEFAULT 1);
SELECT shardlib.attach('{keyspace}', 'items_{keyspace}', 'id');
GRANT SELECT, INSERT, DELETE, UPDATE (note, version) ON items_{keyspace} TO shardlib;
"""


@dataclass(frozen=True)
class Space:
    """A keyspace of one key type, with its table and a source of new keys."""

    keyspace: str
    make: Callable[[int], Key]

    @property
    def table(self) -> str:
        """The table that is attached to it."""
        return f"items_{self.keyspace}"


def _uuid(number: int) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, str(number))


SPACES = (
    Space("numbers", lambda number: number * 7919 - 3_000_000),
    Space("users", _uuid),
    Space("names", lambda number: f"näme {number} 🐘"),
)


async def _make_tables(admin_urls: tuple[str, ...], password: str) -> None:
    for url in admin_urls:
        connection = await asyncpg.connect(url, password=password)
        for keyspace, key_type in TABLES.items():
            await connection.execute(_MAKE.format(keyspace=keyspace, type=key_type))
        await connection.close()


@pytest.fixture(scope="session")
def stocked_template(shardlib_databases: Databases) -> str:
    """Hold a template whose nodes have a table per key type."""

    def prepare(cluster: TestCluster) -> None:
        password = cluster.servers.secrets.password("shardlib_admin")
        run_apart(_make_tables(cluster.node_admin_urls, password))

    return shardlib_databases.derive("items", prepare)


@pytest.fixture
def stocked(
    shardlib_databases: Databases, stocked_template: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestCluster]:
    """Give fresh databases with a table per key type."""
    cluster = shardlib_databases.create(stocked_template)
    enter(cluster, monkeypatch)
    yield cluster
    shardlib_databases.drop(cluster)


@pytest.fixture
def stage(stocked: TestCluster) -> Stage:
    """Give fresh databases to a test that changes them behind the library's back; statements are logged."""
    stage = Stage(stocked)
    stage.log_statements()
    return stage


@pytest.fixture(params=SPACES, ids=lambda space: space.keyspace)
def space(request: pytest.FixtureRequest) -> Any:
    """Each key type in turn."""
    return request.param
