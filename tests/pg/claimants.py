"""Claimants of unique values who may be stopped, held up or left without an answer at each of their steps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from shardlib import Claim, Cluster, Unique
from shardlib.core.topology import Topology
from shardlib.errors import ClaimLost
from shardlib.testing.databases import TestCluster

KEYS = {1: b"first key, of 32 bytes or so......"}
HELD = {"email": "SELECT email FROM holder WHERE id = $1"}
HOMES = {"users": "uuid", "numbers": "bigint", "names": "text"}  # keyspace of the owners -> type of their key
ATTEMPTS = 50

Act = Callable[[], Awaitable[Any]]
Step = Callable[[str, Act], Coroutine[Any, Any, Any]]


class Crashed(BaseException):
    """The process is gone: nothing of it runs any more, handlers included."""


async def steady(name: str, act: Act) -> Any:
    """Do a step, and nothing else."""
    return await act()


@dataclass
class Watched:
    """A cluster whose every statement goes through ``step``."""

    cluster: Cluster
    step: Step = steady

    @property
    def topology(self) -> Topology:
        return self.cluster.topology

    def shard(self, key: Any, *, keyspace: str | None = None) -> WatchedShard:
        return WatchedShard(self.cluster.shard(key, keyspace=keyspace), self)

    def scatter(self, *arguments: Any, **options: Any) -> Any:
        return self.cluster.scatter(*arguments, **options)


class WatchedShard:
    """A handle whose verbs go through the step of its cluster."""

    def __init__(self, shard: Any, watched: Watched) -> None:
        self._shard = shard
        self._watched = watched
        self.bucket = shard.bucket

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        act = getattr(self._shard, verb)
        if verb == "transaction":
            return self._transaction
        return lambda query, *arguments: self._watched.step(_name(query), lambda: act(query, *arguments))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        block = self._shard.transaction()
        tx = await self._watched.step("begin", block.__aenter__)
        try:
            yield WatchedShard(_WithBucket(tx, self.bucket), self._watched)
        except BaseException as error:
            await block.__aexit__(type(error), error, error.__traceback__)
            raise
        try:
            await self._watched.step("commit", lambda: block.__aexit__(None, None, None))
        except Crashed as crash:
            if not getattr(crash, "done", False):
                await block.__aexit__(Crashed, crash, None)  # its connection is lost with it: the server rolls back
            raise


@dataclass
class _WithBucket:
    tx: Any
    bucket: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tx, name)


def _name(query: str) -> str:
    return " ".join(query.split()[:3])


@dataclass
class World:
    """Owners of one keyspace and their unique e-mails."""

    test_cluster: TestCluster
    cluster: Cluster
    home: str
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def new_owner(self) -> Any:
        """Return an owner that nobody else is."""
        kinds: dict[str, Callable[[], int | UUID | str]] = {
            "users": uuid4,
            "numbers": lambda: next(self.numbers) * 7919,
            "names": lambda: f"owner {next(self.numbers)} ü",
        }
        return kinds[self.home]()

    def claimant(self, step: Step = steady, **options: Any) -> Claimant:
        """Return somebody who claims, with a step of his own."""
        watched: Any = Watched(self.cluster, step)
        settings: dict[str, Any] = {"held": HELD, "keys": KEYS, "current": 1, "home": self.home, **options}
        return Claimant(watched, Unique(watched, **settings), self.home)

    async def holders(self, email: str) -> list[Any]:
        """Return all owners whose rows carry the value, on whatever node."""
        return [row["id"] for row in await self.everywhere("SELECT id FROM holder WHERE email = $1", email)]

    async def everywhere(self, query: str, *arguments: Any) -> list[Any]:
        """Run a statement on every node, as the administrator."""
        rows: list[Any] = []
        for node in range(len(self.test_cluster.node_admin_urls)):
            async with self.admin(node) as connection:
                rows += await connection.fetch(query, *arguments)
        return rows

    @asynccontextmanager
    async def admin(self, node: int = 0) -> AsyncIterator[Any]:
        """Open an administrator's session on a node."""
        connection = await asyncpg.connect(self.test_cluster.node_admin_urls[node])
        try:
            yield connection
        finally:
            await connection.close()


@dataclass
class Claimant:
    """Somebody who makes an e-mail his own, step by step."""

    watched: Any
    unique: Unique
    home: str

    async def make_own(self, owner: Any, email: str, *, request_id: str | None = None) -> Any:
        """Do all three steps, again if a contender was faster; return the owner. Raises Taken."""
        for _ in range(ATTEMPTS):
            claim = await self.unique.claim("email", email, owner, request_id=request_id)
            try:
                await self.write(claim, email)
            except ClaimLost:
                continue
            await self.unique.confirm(claim)
            return claim.owner
        raise AssertionError("too many contenders")

    async def write(self, claim: Claim, email: str | None) -> None:
        """Decide and let the owner's row carry the value, in one transaction."""
        async with self.watched.shard(claim.owner, keyspace=self.home).transaction() as tx:
            await self.unique.decide(tx, claim)
            await tx.execute(
                "INSERT INTO holder (id, email) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET email = $2",
                claim.owner,
                email,
            )

    async def change(self, owner: Any, old: str, new: str) -> None:
        """Make ``new`` the owner's own and free ``old``."""
        before = [entry.token for entry in await self.unique.entries("email", old)]
        await self.make_own(owner, new)
        for token in before:
            await self.unique.release("email", old, token)

    async def delete(self, owner: Any) -> None:
        """Delete the owner without freeing anything."""
        home = self.watched.shard(owner, keyspace=self.home)
        await home.execute("DELETE FROM holder WHERE id = $1", owner)


@asynccontextmanager
async def world(test_cluster: TestCluster, home: str) -> AsyncIterator[World]:
    """Make a table of owners on each node and connect."""
    script = (
        f"CREATE TABLE holder (id {HOMES[home]} PRIMARY KEY, email text);"
        "GRANT SELECT, INSERT, DELETE, UPDATE ON holder TO shardlib;"
        f"SELECT shardlib.attach('{home}', 'holder', 'id');"
        "SELECT shardlib.attach('identifiers', 'shardlib.identifier', 'value');"
    )
    async with asyncio.TaskGroup() as tasks:
        for url in test_cluster.node_admin_urls:
            tasks.create_task(_run(url, script))
    async with test_cluster.connect() as cluster:
        yield World(test_cluster, cluster, home)


async def _run(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(script)
    await connection.close()
