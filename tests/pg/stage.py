"""What tests of routing do behind the library's back: change the catalog, touch nodes, count statements."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from shardlib.cluster import Cluster
from shardlib.errors import ShardlibError
from shardlib.observe import Event
from shardlib.testing.cluster import NodeServers
from shardlib.testing.databases import TestCluster
from tests.support.proxy import FaultProxy
from tests.support.waiting import wait_for

KEYSPACE = "numbers"
READ = "SELECT version FROM items_numbers WHERE id = $1"
INSERT = "INSERT INTO items_numbers (id) VALUES ($1)"
RAISE = "UPDATE items_numbers SET version = version + 1 WHERE id = $1"
TABLE = f"""
CREATE TABLE items_numbers (id bigint PRIMARY KEY, note text NOT NULL DEFAULT '', version bigint NOT NULL DEFAULT 1);
SELECT shardlib.attach('{KEYSPACE}', 'items_numbers', 'id');
GRANT SELECT, INSERT, DELETE, UPDATE (note, version) ON items_numbers TO shardlib;
"""
_EXECUTED = re.compile(r"(?:statement|execute [^:]*): (.*)")


@dataclass
class Heard:
    """An observer that keeps every event."""

    events: list[Event] = field(default_factory=list)

    def observe(self, event: Event, /) -> None:
        """Keep it."""
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        """Return the events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


class Stage:
    """A test's databases, seen as their administrator."""

    def __init__(self, databases: TestCluster) -> None:
        """Take databases with the table of ``numbers``."""
        self.databases = databases

    @asynccontextmanager
    async def admin(self, node: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Open the catalog as its administrator, or a node's primary."""
        cluster = self.databases
        url = cluster.admin_url if node is None else cluster.node_admin_urls[cluster.node_names.index(node)]
        connection = await asyncpg.connect(url, password=cluster.servers.secrets.password("shardlib_admin"))
        try:
            yield connection
        finally:
            await connection.close()

    async def prepare(self) -> None:
        """Make the table on each node."""
        for name in self.databases.node_names:
            async with self.admin(name) as node:
                await node.execute(TABLE)

    def servers(self, node: str) -> NodeServers:
        """Return a node's servers."""
        return self.databases.servers.nodes[self.databases.node_names.index(node)]

    def other_than(self, *nodes: str) -> str:
        """Return some other node."""
        return next(name for name in self.databases.node_names if name not in nodes)

    # -- the catalog

    async def publish(self, *statements: str, notify: bool = True) -> int:
        """Change the catalog, raise its epoch, announce it; return the new epoch. ``:epoch`` stands for that."""
        async with self.admin() as catalog, catalog.transaction():
            epoch: int = await catalog.fetchval("UPDATE shardlib.catalog SET epoch = epoch + 1 RETURNING epoch")
            for statement in statements:
                await catalog.execute(statement.replace(":epoch", str(epoch)))
            if notify:
                await catalog.execute("NOTIFY shardlib_topology")
        return epoch

    async def flag(self, bucket: int, move: str | None = "move 1") -> int:
        """Publish that a bucket moves (None: rests)."""
        flag = "NULL" if move is None else f"'{move}'"
        return await self.publish(f"UPDATE shardlib.bucket SET move = {flag} {_this(bucket)}")

    async def give(self, bucket: int, node: str, lsn: int = 0, *, notify: bool = True) -> int:
        """Publish another owner of a bucket."""
        since = f"since_epoch = :epoch, since_timeline = 1, since_lsn = {lsn}"
        return await self.publish(
            f"UPDATE shardlib.bucket SET node = '{node}', move = NULL, {since} {_this(bucket)}", notify=notify
        )

    async def lead_through(self, proxy: FaultProxy, node: str) -> None:
        """Publish a proxy as the address of a node's primary, and no replicas."""
        url = proxy.url(self.databases.node_urls[self.databases.node_names.index(node)])
        await self.publish(f"UPDATE shardlib.node SET url = '{url}', replicas = '{{}}' WHERE name = '{node}'")

    # -- a node's own bookkeeping

    async def disown(self, node: str, bucket: int) -> None:
        """Put a bucket on the node's foreign list."""
        async with self.admin(node) as connection:
            insert = "INSERT INTO shardlib.foreign_bucket VALUES ($1, $2, 'move 1', 1)"
            await connection.execute(insert, KEYSPACE, bucket)

    async def gained(self, node: str, bucket: int, epoch: int) -> None:
        """Note since when the node owns a bucket."""
        async with self.admin(node) as connection:
            await connection.execute("INSERT INTO shardlib.gained_bucket VALUES ($1, $2, $3)", KEYSPACE, bucket, epoch)

    async def raise_floor(self, node: str, epoch: int) -> None:
        """Let the node talk to later snapshots only."""
        async with self.admin(node) as connection:
            await connection.execute("UPDATE shardlib.node SET floor_epoch = $1", epoch)

    async def put(self, node: str, key: int, version: int) -> None:
        """Write a row on a node, whoever owns it."""
        async with self.admin(node) as connection:
            await connection.execute(
                "INSERT INTO items_numbers (id, version) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET version = $2",
                key,
                version,
            )

    async def read(self, node: str, key: int) -> int | None:
        """Read a row on a node, whoever owns it."""
        async with self.admin(node) as connection:
            return await connection.fetchval(READ, key)  # type: ignore[no-any-return]

    # -- what servers were asked

    def log_statements(self) -> None:
        """Have each node log what is executed, in sessions that are opened from now on."""
        for server in self.databases.servers.servers:
            if server.follows is None:
                server.psql(f"ALTER DATABASE \"{self.databases.database}\" SET log_statement = 'all'")

    @contextmanager
    def statements(self, node: str) -> Iterator[list[str]]:
        """Collect what the library's links execute on a node's primary; complete when the block is left."""
        log = self.servers(node).primary.log
        found: list[str] = []
        start = log.stat().st_size
        yield found
        found += executed(log, start, self.databases.database)


def executed(log: Path, start: int, database: str) -> list[str]:
    """Return the statements that the pools' links (not the monitors') executed, in order."""
    with log.open(encoding="utf-8") as file:
        file.seek(start)
        entries = file.read().replace("\n\t", " ").splitlines()
    messages = [entry.partition(f" shardlib@{database} shardlib LOG:  ")[2] for entry in entries]
    return [match[1].strip() for match in map(_EXECUTED.match, messages) if match]


def _this(bucket: int) -> str:
    return f"WHERE keyspace = '{KEYSPACE}' AND bucket = {bucket}"


def keys_of(cluster: Cluster, node: str, count: int = 1) -> list[int]:
    """Return keys that live on a node."""
    found = (key for key in range(1_000_000) if cluster.where(key, keyspace=KEYSPACE).node == node)
    return [next(found) for _ in range(count)]


async def epoch_is(cluster: Cluster, epoch: int) -> None:
    """Wait until the cluster routes by that epoch."""
    await wait_for(lambda: cluster.topology.epoch == epoch)


def is_fresh(cluster: Cluster, lease_seconds: float) -> bool:
    """Tell whether the catalog confirmed the snapshot within the lease."""
    return cluster.health().snapshot_age_seconds < lease_seconds


async def gone_stale(cluster: Cluster, lease_seconds: float) -> None:
    """Wait until the snapshot is older than the lease."""
    await wait_for(lambda: not is_fresh(cluster, lease_seconds))


async def ends_well(call: Any) -> bool:
    """Await a call; False when it failed as the library's errors say."""
    try:
        await call
    except (ShardlibError, asyncpg.PostgresError):
        return False
    return True


async def turns(count: int) -> None:
    """Let the event loop run so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)
