"""The catalog in Postgres: see ports.Catalog for what its verbs promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from shardlib.core.topology import Keyspace, Node, Since, Topology
from shardlib.errors import CatalogUnavailable, FormatMismatch, Rejected
from shardlib.pg.errors import refused_to_connect
from shardlib.pg.link import open_connection
from shardlib.ports import StaleEpoch
from shardlib.sql import load

FORMATS = frozenset({1})
CHANNEL = "shardlib_topology"
ANSWER_SECONDS = 2.0
_SQL = load("catalog")


class PgCatalog:
    """A connection to the catalog, opened when needed and again after it was lost."""

    def __init__(self, url: str, password: str | None, application_name: str) -> None:
        self._url = url
        self._password = password
        self._application_name = application_name
        self._connection: Any = None
        self._notice = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def version(self) -> tuple[int, int]:
        """Return (incarnation, epoch)."""
        async with self._session() as connection:
            return await _version(connection)

    async def read(self) -> Topology:
        """Return a consistent snapshot."""
        async with self._session() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection)

    async def wait_for_notice(self, seconds: float) -> None:
        """Return when a change was announced, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._notice.wait()
        except TimeoutError:
            return
        finally:
            self._notice.clear()

    async def create_keyspace(self, epoch: int, keyspace: Keyspace) -> int:
        """Add a keyspace if the epoch is still that."""
        async with self._change(epoch) as connection:
            try:
                await connection.execute(_SQL["put_keyspace"], keyspace.name, keyspace.hash, keyspace.buckets)
            except asyncpg.UniqueViolationError as error:
                raise Rejected(f"there is a keyspace {keyspace.name} already") from error
            except asyncpg.CheckViolationError as error:
                raise Rejected(f"{keyspace.name!r} with {keyspace.buckets} buckets can't be a keyspace") from error
            try:
                await connection.execute(_SQL["put_owners"], keyspace.name, list(keyspace.owners))
            except asyncpg.ForeignKeyViolationError as error:
                raise Rejected(f"keyspace {keyspace.name} has buckets on unknown nodes") from error
        return epoch + 1

    async def put_node(self, epoch: int, node: Node) -> int:
        """Add a node or replace its entry, if the epoch is still that."""
        facts = (node.name, node.url, node.admin_url, node.replication_url, list(node.replicas))
        place = (node.weight, node.region, node.zone)
        async with self._change(epoch) as connection:
            try:
                await connection.execute(_SQL["put_node"], *facts, *place)
            except asyncpg.CheckViolationError as error:
                raise Rejected(f"{node.name!r} of weight {node.weight} can't be a node") from error
        return epoch + 1

    async def remove_node(self, epoch: int, name: str) -> int:
        """Forget a node that owns nothing, if the epoch is still that."""
        async with self._change(epoch) as connection:
            try:
                removed = await connection.fetchval(_SQL["remove_node"], name)
            except asyncpg.ForeignKeyViolationError as error:
                raise Rejected(f"{name} still owns buckets: drain it first") from error
            if removed is None:
                raise Rejected(f"there is no node {name}")
        return epoch + 1

    async def close(self) -> None:
        """End its connection."""
        self._hang_up()

    @asynccontextmanager
    async def _change(self, epoch: int) -> AsyncIterator[Any]:
        async with self._session() as connection, connection.transaction():
            if await connection.fetchval(_SQL["raise_epoch"], epoch) is None:
                raise StaleEpoch(epoch)
            yield connection
            await connection.execute(_SQL["announce"], str(epoch + 1))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Any]:
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._connect()
                    yield self._connection
            except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                self._hang_up()
                raise CatalogUnavailable(f"the catalog doesn't answer: {refused_to_connect(error)}") from error
            except BaseException:
                self._hang_up()  # cancelled or refused in the middle: a fresh connection has no doubts
                raise

    async def _connect(self) -> Any:
        name = f"{self._application_name} catalog"
        connection = await open_connection(self._url, self._password, name, ANSWER_SECONDS)
        await connection.add_listener(CHANNEL, lambda *_: self._notice.set())
        connection.add_termination_listener(lambda _connection: self._notice.set())
        return connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


async def _version(connection: Any) -> tuple[int, int]:
    row = await connection.fetchrow(_SQL["position"])
    if row is None or row["format"] not in FORMATS:
        found = "none" if row is None else row["format"]
        raise FormatMismatch(f"the catalog has format {found}, this version reads {sorted(FORMATS)}")
    return row["incarnation"], row["epoch"]


async def _read(connection: Any) -> Topology:
    incarnation, epoch = await _version(connection)
    entries = [Node(**{**row, "replicas": tuple(row["replicas"])}) for row in await connection.fetch(_SQL["nodes"])]
    nodes = {entry.name: entry for entry in entries}
    marks = await connection.fetch(_SQL["marked_buckets"])
    keyspaces = {}
    for row in await connection.fetch(_SQL["keyspaces"]):
        name = row["name"]
        since = {
            mark["bucket"]: Since(mark["since_epoch"], mark["node"], mark["since_timeline"], mark["since_lsn"])
            for mark in marks
            if mark["keyspace"] == name and mark["since_epoch"] is not None
        }
        moving = {mark["bucket"]: mark["move"] for mark in marks if mark["keyspace"] == name and mark["move"]}
        shared = {owner: owner for owner in nodes}  # one string object per node, not one per bucket
        owners = tuple(shared[owner] for owner in row["owners"])
        keyspaces[name] = Keyspace(name, row["hash"], owners, since, moving)
    return Topology(incarnation, epoch, nodes, keyspaces).check()
