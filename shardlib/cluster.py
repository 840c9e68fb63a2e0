"""The only request path: key -> bucket -> node -> link -> answer.

DESIGN. A ``Shard`` is a value: making one does no I/O. Its verbs take the short way as long as nothing is unusual: an
idle link of the owner's primary, the statement, and a look at the clock when the answer arrives. Anything else is the
business of ``calls`` (see there for the rules). A request routes on one view from first to last.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from shardlib.calls import Call, Desk, Loan, Place, give_back
from shardlib.core.keys import Key, hash_named
from shardlib.core.statements import Kind, kind_of
from shardlib.core.tokens import Token
from shardlib.core.topology import Topology
from shardlib.deadlines import current_deadline, deadline_or
from shardlib.manykeys import fetch_many
from shardlib.ports import Nodes, Record
from shardlib.positions import Positions
from shardlib.replicas import Reading
from shardlib.scatter import FanOut, Partial, Scatter
from shardlib.stats import ClusterHealth, health_of
from shardlib.transactions import Isolation, Transaction, run_again, run_once
from shardlib.watch import now

T = TypeVar("T")
_SESSION = Kind.SESSION


@dataclass(frozen=True, slots=True)
class Location:
    """Where a key lives, as of one snapshot."""

    keyspace: str
    key: Key
    bucket: int
    node: str
    url: str
    replicas: tuple[str, ...]
    moving: bool
    epoch: int


class Cluster:
    """All nodes, seen through one catalog. Made by ``shardlib.connect``."""

    def __init__(self, desk: Desk, nodes: Nodes, keyspace: str | None) -> None:
        self._desk = desk
        self._nodes = nodes
        self._default = keyspace
        self._hashes: dict[str | None, tuple[Callable[[object, int], int], int, str]] = {}
        self._positions = Positions(desk)

    @property
    def topology(self) -> Topology:
        """The present snapshot; it is replaced, never changed."""
        return self._desk.watcher.view.topology

    def shard(self, key: Key, *, keyspace: str | None = None) -> Shard:
        """Return the handle to wherever ``key`` lives. Does no I/O.

        Raises WrongKey for a key of another type than the keyspace's, UnknownName for an unknown keyspace, and
        when there are several and none was named.
        """
        try:
            bucket_of, mask, name = self._hashes[keyspace]
        except KeyError:
            bucket_of, mask, name = self._learn(keyspace)
        return Shard(self._desk, self._positions, name, key, bucket_of(key, mask))

    def where(self, key: Key, *, keyspace: str | None = None) -> Location:
        """Return where ``key`` lives as of the present snapshot."""
        home = self.shard(key, keyspace=keyspace)
        space = self.topology.keyspaces[home.keyspace]
        node = self.topology.nodes[space.owners[home.bucket]]
        moving = home.bucket in space.moving
        return Location(
            home.keyspace, key, home.bucket, node.name, node.url, node.replicas, moving, self.topology.epoch
        )

    async def fetch_many(
        self, query: str, keys: Iterable[Key], *args: Any, keyspace: str | None = None
    ) -> list[Record]:
        """Run a read once per node that owns any of ``keys``, with that node's keys as the array $1.

        ``args`` are $2 and so on. Rows come in no order. Raises Rejected for a statement that isn't a read.
        """
        by_bucket: dict[int, list[Key]] = {}
        bucket_of, mask, name = self._hashes.get(keyspace) or self._learn(keyspace)
        for key in keys:
            by_bucket.setdefault(bucket_of(key, mask), []).append(key)
        return await fetch_many(self._desk, name, by_bucket, query, args)

    def scatter(
        self,
        query: str,
        *args: Any,
        keyspace: str | None = None,
        order_by: str | Sequence[str] = (),
        descending: bool = False,
        limit: int | None = None,
        partial: Partial = Partial.FAIL,
    ) -> Scatter:
        """Run a read on every node and merge its rows: ``async for row in cluster.scatter(...)``.

        The statement must carry ``/*mine*/`` (or ``/*mine:column*/``) as a condition: it keeps out rows that lie on a
        node without being owned there. Each node's rows must already be ordered by ``order_by``; ``limit`` ends the
        merge, and belongs into the statement as well. Raises NotColocated without the mark.
        """
        _, _, name = self._hashes.get(keyspace) or self._learn(keyspace)
        columns = (order_by,) if isinstance(order_by, str) else tuple(order_by)
        return Scatter(self._desk, name, FanOut(query, args, columns, descending, limit, partial))

    def health(self) -> ClusterHealth:
        """Return what is known of every node. Does no I/O."""
        return health_of(self._desk.watcher)

    async def close(self) -> None:
        """Stop watching, let commits that are under way end, close all sessions."""
        await self._desk.watcher.close()
        if self._desk.commits:
            await asyncio.wait(self._desk.commits, timeout=self._desk.call_seconds)
        await self._nodes.close()

    def _learn(self, keyspace: str | None) -> tuple[Callable[[object, int], int], int, str]:
        space = self.topology.keyspace(self._default if keyspace is None else keyspace)
        known = (hash_named(space.hash).bucket, space.mask, space.name)
        self._hashes[keyspace] = known
        return known


class Shard:
    """The home of one key; asyncpg's verbs, on the primary of whichever node owns its bucket.

    A value: it does no I/O until a verb is awaited, and may be kept. Each verb ends within the deadline in force
    (``shardlib.deadline``, else ``connect(call_seconds=)``) with an answer or with an error that says what happened;
    see ``shardlib.errors``. What Postgres says about the statement comes as asyncpg's exception.
    """

    __slots__ = ("_desk", "_positions", "bucket", "key", "keyspace")

    def __init__(self, desk: Desk, positions: Positions, keyspace: str, key: Key, bucket: int) -> None:
        self._desk = desk
        self._positions = positions
        self.keyspace = keyspace
        self.key = key
        self.bucket = bucket

    def __repr__(self) -> str:
        return f"<shard of {self.key!r}: bucket {self.bucket} of {self.keyspace}>"

    def fetch(self, query: str, *args: Any) -> Awaitable[list[Record]]:
        """Run a statement and return its rows."""
        return self._call("fetch", query, args)

    def fetchrow(self, query: str, *args: Any) -> Awaitable[Record | None]:
        """Run a statement and return its first row, None if there is none."""
        return self._call("fetchrow", query, args)

    def fetchval(self, query: str, *args: Any) -> Awaitable[Any]:
        """Run a statement and return the first column of its first row, None if there is none."""
        return self._call("fetchval", query, args) if kind_of(query) is Kind.READ else self._first(query, args)

    def execute(self, query: str, *args: Any) -> Awaitable[str]:
        """Run a statement and return its command tag, such as ``UPDATE 1``."""
        return self._call("execute", query, args)

    def executemany(self, query: str, args: Iterable[Iterable[Any]]) -> Awaitable[None]:
        """Run a statement once per set of arguments, all or nothing."""
        return self._call("executemany", query, (args,))

    def transaction(self, *, isolation: Isolation = Isolation.READ_COMMITTED) -> Transaction:
        """Return a block that is one transaction: ``async with home.transaction() as tx``. You own the retry."""
        return Transaction(self._desk, self._place, isolation)

    async def run(
        self,
        body: Callable[[Transaction], Awaitable[T]],
        *,
        request_id: str | UUID | None = None,
        fingerprint: str = "",
    ) -> T:
        """Run ``body(transaction)`` and commit, again while it fails for reasons that pass, until the deadline.

        With a ``request_id`` the body takes effect at most once, whoever retries it and however often: the answer
        (MessagePack's types) is kept with it and handed out again. ``fingerprint`` tells uses of one id apart: another
        one raises AnswerMismatch. Without an id a lost COMMIT raises OutcomeUnknown.
        """
        until = deadline_or(self._desk.call_seconds)
        if request_id is None:
            return await run_again(self.transaction, body, until, self._desk)
        entry = (self.keyspace, self.bucket, str(request_id), fingerprint)
        return await run_once(self.transaction, body, until, self._desk, entry)

    def replica(self, *, max_lag: float | None = 1.0, after: Token | str | None = None) -> Reader:
        """Return a reader of replicas at most ``max_lag`` seconds behind (None: any), and no older than ``after``."""
        token = Token.parse(after) if isinstance(after, str) else after
        return Reader(self, max_lag, token)

    async def token(self) -> Token:
        """Return a token of all writes to this key that were acknowledged before. One query serves all who ask."""
        return await self._positions.token(self._place)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        """Lend asyncpg's own connection to the home, fully reset afterwards, for what the verbs can't do.

        It isn't re-routed, retried or bounded by a deadline; the fence still holds.
        """
        loan = await self._desk.borrow(self._place, deadline_or(self._desk.call_seconds))
        loan.link.deadline = float("inf")
        loan.link.dirty = True
        try:
            yield loan.link.connection
        except BaseException as error:
            if isinstance(error, Exception) and not loan.link.connection.is_closed():
                loan.pool.give(loan.link)
            else:
                loan.pool.drop(loan.link)
            raise
        give_back(loan)

    @property
    def _place(self) -> Place:
        return Place(self.keyspace, (self.bucket,))

    async def _first(self, query: str, args: tuple[Any, ...]) -> Any:
        """Do as fetchval, but know a NULL from no row: one says that a row was touched."""
        row = await self._call("fetchrow", query, args)
        return None if row is None else row[0]

    async def _call(self, verb: str, query: str, args: tuple[Any, ...]) -> Any:
        """The short way; what isn't plain sailing goes to ``Call``."""
        desk = self._desk
        space = desk.watcher.view.spaces[self.keyspace]
        view = space.view
        node = space.owners[self.bucket]
        pool = node.primary
        limit = current_deadline()
        until = monotonic() + desk.call_seconds if limit is None else limit.at
        idle = pool.idle
        if not idle:
            return await Call(desk, self._place, verb, query, args, until).run()
        link = idle.pop()
        pool.lend(link, until)
        if link.greeted != pool.epoch or link.floor > view.epoch or view.confirmed_at < node.not_before:
            pool.give(link)
            return await Call(desk, self._place, verb, query, args, until).run()
        try:
            answer = await getattr(link.connection, verb)(query, *args)
        except BaseException as error:
            call = Call(desk, self._place, verb, query, args, until)
            await call.settle(Loan(view, node, pool, link), error)
            return await call.run()
        if kind_of(query) is _SESSION:
            link.dirty = True
        if link.sync_wait_cancelled:
            give_back(Loan(view, node, pool, link))
        else:
            pool.give(link)
        if now() < view.fresh_until and not (space.moving and self.bucket in space.moving):
            return answer
        call = Call(desk, self._place, verb, query, args, until)
        return answer if await call.stands(Loan(view, node, pool, link), answer) else await call.run()


class Reader:
    """Reads one key's home on a replica that is new enough, on the primary when none is. Made by ``Shard.replica``."""

    __slots__ = ("_max_lag", "_shard", "_token")

    def __init__(self, shard: Shard, max_lag: float | None, token: Token | None) -> None:
        self._shard = shard
        self._max_lag = max_lag
        self._token = token

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        """Run a read and return its rows."""
        return await self._read("fetch", query, args)  # type: ignore[no-any-return]

    async def fetchrow(self, query: str, *args: Any) -> Record | None:
        """Run a read and return its first row, None if there is none."""
        return await self._read("fetchrow", query, args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run a read and return the first column of its first row, None if there is none."""
        return await self._read("fetchval", query, args)

    async def _read(self, verb: str, query: str, args: tuple[Any, ...]) -> Any:
        shard = self._shard
        until = deadline_or(shard._desk.call_seconds)
        reading = Reading(shard._desk, shard._place, self._max_lag, self._token, until)
        answered, answer = await reading.on_a_replica(verb, query, args, random.random)
        if answered:
            return answer
        call = Call(shard._desk, shard._place, verb, query, args, until)
        answer = await call.run()
        await reading.check_not_lost(*call.answered_by)
        return answer
