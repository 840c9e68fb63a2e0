"""One read on every node, merged: explicit, bounded, and honest about nodes that didn't answer.

DESIGN. With a limit each node's rows come in one answer (the statement has the same LIMIT); without one they come
through a cursor, a batch at a time, so memory is bounded by nodes x batch whatever the size of the result. Each node is
asked at its end whether its answer stands, by the same rule as a read of one key; if it doesn't, an answer that was
gathered whole is fetched again, and one that has been handed out in part ends in Refused.
"""

from __future__ import annotations

import asyncio
import enum
import heapq
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from shardlib.calls import Call, Desk, Place
from shardlib.core.mine import fill, is_marked, moved_since, needs_column
from shardlib.core.statements import Kind, kind_of
from shardlib.deadlines import current_deadline, deadline_or
from shardlib.errors import (
    DeadlineExceeded,
    NodeUnavailable,
    NotColocated,
    Overloaded,
    Refused,
    Rejected,
    Retryable,
)
from shardlib.ports import Outcome, Record
from shardlib.sql import load
from shardlib.transactions import Isolation, Transaction
from shardlib.watch import View

_SQL = load("owned")
BATCH_ROWS = 500  # per node and round trip without a limit
WHOLE_ROWS = 1000  # a limit up to which a node's rows are fetched in one answer
MAX_STALE_PLANS = 10  # sessions in a row whose plan a migration made invalid, which each finds out once
MAX_FAN_OUT = 64  # nodes that are asked at the same time


_NO_ANSWER = (NodeUnavailable, Overloaded, DeadlineExceeded)  # of one node


class Partial(enum.Enum):
    """What a fan-out does about a node that can't be reached, has too many waiting for it, or is out of time."""

    FAIL = "fail"  # raise
    SKIP = "skip"  # go on without it; ``Scatter.missing`` says which


@dataclass(frozen=True, slots=True)
class FanOut:
    """What is asked of every node, and how the answers are put together."""

    query: str
    args: tuple[Any, ...] = ()
    order_by: tuple[str, ...] = ()
    descending: bool = False
    limit: int | None = None
    partial: Partial = Partial.FAIL

    def check(self) -> None:
        """Raise Rejected or NotColocated for what can't be asked."""
        if kind_of(self.query) is not Kind.READ:
            raise Rejected("only a read can be scattered")
        if not is_marked(self.query):
            raise NotColocated("a statement for all nodes needs /*mine*/ as a condition on its rows")
        if self.limit is not None and self.limit < 1:
            raise Rejected(f"limit {self.limit} is below 1")


class Scatter:
    """The merged rows of a read on every node. Made by ``Cluster.scatter``; iterate over it once."""

    def __init__(self, desk: Desk, keyspace: str, fan_out: FanOut) -> None:
        fan_out.check()
        self.missing: tuple[str, ...] = ()
        self._desk = desk
        self._keyspace = keyspace
        self._query = fan_out.query
        self._args = fan_out.args
        self._order_by = fan_out.order_by
        self._descending = fan_out.descending
        self._limit = fan_out.limit
        self._partial = fan_out.partial
        self._epoch = 0  # by which the nodes are asked
        self._slots = asyncio.Semaphore(MAX_FAN_OUT)

    async def __aiter__(self) -> AsyncIterator[Record]:
        view = self._desk.watcher.view
        self._epoch = view.epoch
        query = await self._filled(view)
        buckets: dict[str, list[int]] = {}
        for bucket, node in enumerate(view.spaces[self._keyspace].owners):
            buckets.setdefault(node.name, []).append(bucket)
        whole = self._limit is not None and self._limit <= WHOLE_ROWS
        read = self._whole if whole else self._batches
        sources = [_Source(read(query, name, owned)) for name, owned in buckets.items()]
        given = 0
        try:
            async for row in _merged(sources, self._order_by, self._descending):
                yield row
                given += 1
                if given == self._limit:
                    return
        finally:
            await asyncio.gather(*(source.close() for source in sources))

    async def fetch(self) -> list[Record]:
        """Return all rows at once."""
        return [row async for row in self]

    async def _filled(self, view: View) -> str:
        column = ""
        if needs_column(self._query):
            column = await self._key_column(view)
        return fill(self._query, view.topology.keyspaces[self._keyspace], column, view.epoch)

    async def _key_column(self, view: View) -> str:
        place = Place(self._keyspace, (0,))
        until = deadline_or(self._desk.call_seconds)
        rows = await Call(self._desk, place, "fetch", _SQL["key_columns"], (self._keyspace,), until).run()
        if len(rows) != 1:
            raise NotColocated("the keyspace's tables have several key columns or none: say /*mine:column*/")
        return str(rows[0]["key_column"])

    async def _whole(self, query: str, node: str, buckets: list[int]) -> AsyncGenerator[list[Record], None]:
        until = deadline_or(self._desk.call_seconds)
        place = Place(self._keyspace, buckets, node)
        try:
            async with self._slots:
                rows = await Call(self._desk, place, "fetch", query, self._args, until).run()
        except _NO_ANSWER as error:
            self._skip(node, error)
            return
        self._check_still(node, buckets)
        yield rows

    async def _batches(self, query: str, node: str, buckets: list[int]) -> AsyncGenerator[list[Record], None]:
        for stale in range(MAX_STALE_PLANS + 1):
            begun = False
            try:
                async for rows in self._through_cursor(query, Place(self._keyspace, buckets, node)):
                    begun = True
                    yield rows
                self._check_still(node, buckets)
                return
            except Retryable as error:
                if begun:
                    raise Refused(f"{node} changed or was lost during the fan-out; start it again") from error
                if not isinstance(error, _NO_ANSWER):
                    raise
                self._skip(node, error)
                return
            except Exception as error:
                if begun or stale == MAX_STALE_PLANS or self._desk.outcome_of(error) is not Outcome.UNPLANNED:
                    raise

    async def _through_cursor(self, query: str, place: Place) -> AsyncGenerator[list[Record], None]:
        # Not REPEATABLE READ: its snapshot is older than the wait for a migration that rewrites the table, which is
        # empty to it. The cursor has a snapshot of its own.
        async with Transaction(self._desk, place, Isolation.READ_COMMITTED) as transaction:
            async for rows in transaction.batches(query, *self._args, rows=BATCH_ROWS):
                yield rows

    def _check_still(self, node: str, buckets: list[int]) -> None:
        """Raise Refused if a bucket may have left the node and come back: the statement took it for a stranger's."""
        view = self._desk.watcher.view
        if view.epoch != self._epoch and moved_since(view.spaces[self._keyspace].keyspace, buckets, self._epoch):
            raise Refused(f"buckets of {node} moved during the fan-out; start it again")

    def _skip(self, node: str, error: Retryable) -> None:
        """Go on without the node; raise if that isn't wanted, or the time that is up is the caller's own."""
        caller = current_deadline()
        if self._partial is Partial.FAIL or (caller is not None and caller.at <= monotonic()):
            raise error
        self.missing = (*self.missing, node)


class _Source:
    """The rows of one node, read one batch ahead."""

    def __init__(self, batches: AsyncGenerator[list[Record], None]) -> None:
        self._batches = batches
        self._rows: deque[Record] = deque()
        self._next: asyncio.Task[list[Record] | None] | None = self._read()

    async def pop(self) -> Record | None:
        """Take the next row, None at the end."""
        while not self._rows and self._next is not None:
            batch = await self._next
            self._next = None if batch is None else self._read()
            self._rows.extend(batch or ())
        return self._rows.popleft() if self._rows else None

    async def close(self) -> None:
        """Stop reading."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._batches.aclose()

    def _read(self) -> asyncio.Task[list[Record] | None]:
        return asyncio.get_running_loop().create_task(_next(self._batches))


async def _next(batches: AsyncGenerator[list[Record], None]) -> list[Record] | None:
    return await anext(batches, None)


async def _merged(sources: Sequence[_Source], order_by: Sequence[str], descending: bool) -> AsyncIterator[Record]:
    if not order_by:
        for source in sources:
            while (row := await source.pop()) is not None:
                yield row
        return
    heads: list[tuple[Any, int, Record]] = []
    rank = _Descending if descending else _Ascending
    for index, source in enumerate(sources):
        if (row := await source.pop()) is not None:
            heads.append((rank(row, order_by), index, row))
    heapq.heapify(heads)
    while heads:
        _, index, row = heads[0]
        yield row
        following = await sources[index].pop()
        if following is None:
            heapq.heappop(heads)
        else:
            heapq.heapreplace(heads, (rank(following, order_by), index, following))


class _Ascending:
    """The order of Postgres: NULLs last. Text must be ordered by ``COLLATE "C"``, as Python compares it."""

    __slots__ = ("key",)

    def __init__(self, row: Record, columns: Sequence[str]) -> None:
        self.key = tuple((row[column] is None, row[column]) for column in columns)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Ascending) and self.key == other.key

    def __lt__(self, other: _Ascending) -> bool:
        return self.key < other.key

    __hash__ = None  # type: ignore[assignment]  # it is compared, never looked up


class _Descending(_Ascending):
    """The other way round, NULLs first."""

    __slots__ = ()

    def __lt__(self, other: _Ascending) -> bool:
        return other.key < self.key
