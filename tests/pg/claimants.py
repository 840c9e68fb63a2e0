"""Claimants of unique values who may be stopped, held up or left without an answer at each of their steps."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from shardlib import Claim, Cluster, Unique
from shardlib.core.topology import Topology
from shardlib.errors import ClaimLost
from shardlib.testing.databases import TestCluster

KEYS = {1: b"the first key"}
TWO_KEYS = {**KEYS, 2: b"the second key"}
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

    def __init__(self, shard: Any, watched: Watched, prefix: str = "") -> None:
        self._shard = shard
        self._watched = watched
        self._prefix = prefix
        self.bucket = shard.bucket

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        act = getattr(self._shard, verb)
        if verb == "is_home_of":
            return act  # type: ignore[no-any-return]
        if verb == "transaction":
            return self._transaction
        return lambda query, *arguments: self._watched.step(self._prefix + _name(query), lambda: act(query, *arguments))

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        block = self._shard.transaction()
        tx = await self._watched.step("tx begin", block.__aenter__)
        try:
            yield WatchedShard(_WithBucket(tx, self.bucket), self._watched, "tx ")
        except BaseException as error:
            await block.__aexit__(type(error), error, error.__traceback__)
            raise
        try:
            await self._watched.step("tx commit", lambda: block.__aexit__(None, None, None))
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

    cluster: Cluster
    home: str
    nodes: list[Any]  # the administrator's pools
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
        answers = await asyncio.gather(*(node.fetch(query, *arguments) for node in self.nodes))
        return [row for rows in answers for row in rows]


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
    async with AsyncExitStack() as stack:
        pools = [asyncpg.create_pool(url, min_size=0, max_size=2) for url in test_cluster.node_admin_urls]
        nodes = [await stack.enter_async_context(pool) for pool in pools]
        await asyncio.gather(*(node.execute(script) for node in nodes))
        yield World(await stack.enter_async_context(test_cluster.connect()), home, nodes)
