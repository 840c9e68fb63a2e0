"""Many rows at once, routed by bucket: one transaction per node and batch, COPY in and out.

DESIGN. What goes to one node travels together and stands or falls together, so an error names its batch. When the
database refuses a row (a constraint, a value that doesn't fit) the batch is halved until the row stands alone: n rows
cost about 2n more for each bad one, and nothing while there are none. A batch that meets a fence or a lost node is
grouped by the newer snapshot and sent again, as a single statement would be; one whose COMMIT got no answer isn't, and
says so. Nothing here reads further ahead than a few batches per node: a slow node slows its source down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Generic, TypeVar

from shardlib.calls import Desk, Place, passes
from shardlib.cluster import Cluster
from shardlib.core.keys import HASHES, hash_named
from shardlib.core.lanes import hash_texts
from shardlib.core.mine import fill, is_marked, moved_since, needs_column
from shardlib.deadlines import deadline_or
from shardlib.errors import NotColocated, OutcomeUnknown, Refused
from shardlib.groups import all_of, all_or_none
from shardlib.ports import Node
from shardlib.transactions import Isolation, Transaction, pause_or_raise

Item = TypeVar("Item")
T = TypeVar("T")
Row = Sequence[Any]
Body = Callable[[Transaction, Sequence[Item]], Awaitable[T]]
Entries = Sequence[tuple[int, Item]]  # with their buckets

BATCH_ROWS = 2000  # per node: large enough that its commit is cheap, small enough to be sent twice
BATCHES_WAITING = 2  # per node, beside the one under way
CHUNKS_WAITING = 4  # per node, of a COPY out
SILENCE_SECONDS = 30.0  # of a node in the middle of a COPY out, after which it is given up
_ABOUT_DATA = ("22", "23")  # SQLSTATE classes: data exception, integrity constraint violation


@dataclass(frozen=True, slots=True)
class Part(Generic[Item, T]):
    """What became of the items that shared a transaction.

    ``error`` is None and ``result`` what the body returned; or the database refused this one item; or it is
    OutcomeUnknown: no answer to COMMIT came, the items may or may not be there.
    """

    items: Sequence[Item]
    result: T | None = None
    error: Exception | None = None


class Bulk:
    """Rows of one keyspace in large numbers."""

    def __init__(self, cluster: Cluster, *, keyspace: str | None = None) -> None:
        space = cluster.topology.keyspace(keyspace)
        self.keyspace = space.name
        self._desk: Desk = cluster._desk
        self._hash = hash_named(space.hash)
        self._mask = space.mask

    def bucket(self, key: object) -> int:
        """Return the bucket of a key; WrongKey for one of another type."""
        return self._hash.bucket(key, self._mask)

    def buckets(self, keys: Sequence[object]) -> list[int]:
        """Return the buckets of many keys, in their order."""
        texts = [key for key in keys if type(key) is str and key.isascii() and "\0" not in key]
        if self._hash is HASHES["str"] and len(texts) == len(keys):
            return [value & self._mask for value in hash_texts(texts)]
        return [self.bucket(key) for key in keys]

    async def each_node(
        self, items: Iterable[Item], bucket: Callable[[Item], int], body: Body[Item, T]
    ) -> list[Part[Item, T]]:
        """Run ``body`` once per node, with that node's items, in one transaction; on all nodes at the same time.

        It is run again after what passes (a fence, a lost connection, a deadlock) until the deadline, so it must have
        no effect but the transaction's. Errors that no Part holds are raised; other nodes may have committed by then.
        """
        return await self._settle([(bucket(item), item) for item in items], body, deadline_or(self._desk.call_seconds))

    async def copy_in(
        self,
        table: str,
        columns: Sequence[str],
        rows: AsyncIterable[Row],
        *,
        key: str,
        refused: Callable[[Row, Exception], None],
    ) -> int:
        """Copy rows into a table by binary COPY, each to the home of its ``key`` column; return how many are in.

        Rows that the database refuses go to ``refused`` with their error. Raises OutcomeUnknown when no answer to a
        batch's COMMIT came. Whatever is raised, batches that were committed before stay.
        """
        schema, _, name = table.rpartition(".")
        position = list(columns).index(key)

        async def copy(tx: Transaction, batch: Sequence[Row]) -> None:
            await tx.copy_records_to_table(name, records=batch, columns=columns, schema=schema or None)

        async def send(batch: list[Row]) -> int:
            parts = await self.each_node(batch, lambda row: self.bucket(row[position]), copy)
            return _count(parts, refused)

        return await _Lanes(send).run(rows, lambda row: self._owner(self.bucket(row[position])))

    async def copy_out(self, query: str, *, key_column: str = "") -> AsyncGenerator[bytes, None]:
        """Yield what ``COPY (query) TO STDOUT`` gives on every node: whole rows in text format, in no order.

        The query carries ``/*mine*/`` as a condition, as in ``Cluster.scatter``. All rows come once, or it ends in
        Refused because buckets moved meanwhile; each node's are of one snapshot.
        """
        view = self._desk.watcher.view
        if not is_marked(query) or (needs_column(query) and not key_column):
            raise NotColocated("a COPY from all nodes needs /*mine:column*/ as a condition on its rows")
        filled = fill(query, view.topology.keyspaces[self.keyspace], key_column, view.epoch)
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_WAITING)
        groups = self._by_node([(bucket, None) for bucket in range(self._mask + 1)])
        homes = [[bucket for bucket, _none in group] for group in groups]
        work = [self._copy_node(filled, buckets, view.epoch, chunks) for buckets in homes]
        copying = asyncio.ensure_future(_then(all_or_none(work), chunks))
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            await copying
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)

    # -- batches

    async def _settle(self, entries: Entries[Item], body: Body[Item, T], until: float) -> list[Part[Item, T]]:
        parts: list[Part[Item, T]] = []
        left = entries
        attempt = 0
        while left:
            groups = self._by_node(left)
            answers = await all_of([self._part(group, body, until) for group in groups])
            left, failure = [], None
            for group, answer in zip(groups, answers, strict=True):
                if isinstance(answer, Exception):
                    left, failure = [*left, *group], answer
                else:
                    parts += answer
            if failure is not None:
                attempt += 1
                await pause_or_raise(attempt, until, failure)
        return parts

    async def _part(self, group: Entries[Item], body: Body[Item, T], until: float) -> list[Part[Item, T]] | Exception:
        """Return what became of a group, or the error after which it may be sent again."""
        items = [item for _bucket, item in group]
        try:
            async with self._transaction([bucket for bucket, _item in group]) as tx:
                result = await body(tx, items)
        except OutcomeUnknown as error:
            return [Part(items, error=error)]
        except Exception as error:
            if passes(error, self._desk):
                return error
            if not _is_about_data(error):
                raise
            if len(group) == 1:
                return [Part(items, error=error)]
            middle = len(group) // 2
            first = await self._settle(group[:middle], body, until)
            return first + await self._settle(group[middle:], body, until)
        return [Part(items, result)]

    def _transaction(self, buckets: Iterable[int], isolation: Isolation = Isolation.READ_COMMITTED) -> _NodeTransaction:
        return _NodeTransaction(self._desk, Place(self.keyspace, sorted(set(buckets))), isolation)

    def _owner(self, bucket: int) -> str:
        return self._desk.watcher.view.spaces[self.keyspace].owners[bucket].name

    def _by_node(self, entries: Entries[Item]) -> list[list[tuple[int, Item]]]:
        owners = self._desk.watcher.view.spaces[self.keyspace].owners
        groups: dict[Node, list[tuple[int, Item]]] = {}
        for entry in entries:
            groups.setdefault(owners[entry[0]], []).append(entry)
        return list(groups.values())

    async def _copy_node(self, query: str, buckets: list[int], epoch: int, chunks: asyncio.Queue[bytes | None]) -> None:
        async with self._transaction(buckets, Isolation.REPEATABLE_READ) as tx:
            await tx.copy_out(query, chunks)
        present = self._desk.watcher.view.spaces[self.keyspace].keyspace
        if moved_since(present, buckets, epoch):  # and came back, perhaps: then its rows were taken for a stranger's
            raise Refused("buckets moved during the COPY; start it again")


class _NodeTransaction(Transaction):
    """A transaction on the home of many buckets; Refused when they aren't on one node any more."""

    async def __aenter__(self) -> _NodeTransaction:
        await super().__aenter__()
        owners = self._loan.view.spaces[self._place.keyspace].owners
        if all(owners[bucket] is self._loan.node for bucket in self._place.buckets):
            return self
        error = Refused(f"not all of these buckets are on {self._loan.node.name} any more")
        await self._roll_back(error)
        raise error

    async def copy_out(self, query: str, chunks: asyncio.Queue[bytes | None]) -> None:
        """Put what the COPY gives into the queue; the node is given up when it falls silent, not when it takes long."""
        loan = self._loan

        async def sink(chunk: bytes) -> None:
            self._rest()  # while the queue is full, nobody waits for the node
            await chunks.put(chunk)
            loan.pool.watch(loan.link, monotonic() + SILENCE_SECONDS)

        loan.pool.watch(loan.link, monotonic() + SILENCE_SECONDS)
        try:
            await loan.link.connection.copy_from_query(query, output=sink)
        finally:
            self._rest()


class _Lanes:
    """One queue and one worker per node, so that rows for one node wait for that node only."""

    def __init__(self, send: Callable[[list[Row]], Awaitable[int]]) -> None:
        self._send = send
        self._queues: dict[str, asyncio.Queue[list[Row] | None]] = {}
        self._filling: dict[str, list[Row]] = {}
        self._rows = 0

    async def run(self, rows: AsyncIterable[Row], lane: Callable[[Row], str]) -> int:
        """Send all rows in batches; return how many were taken."""
        async with asyncio.TaskGroup() as workers:
            async for row in rows:
                await self._add(lane(row), row, workers)
            for name, batch in self._filling.items():
                await self._queues[name].put(batch)
                await self._queues[name].put(None)
        return self._rows

    async def _add(self, name: str, row: Row, workers: asyncio.TaskGroup) -> None:
        if name not in self._queues:
            self._queues[name] = asyncio.Queue(BATCHES_WAITING)
            self._filling[name] = []
            workers.create_task(self._work(self._queues[name]), name=f"copy to {name}")
        self._filling[name].append(row)
        if len(self._filling[name]) >= BATCH_ROWS:
            await self._queues[name].put(self._filling[name])
            self._filling[name] = []

    async def _work(self, queue: asyncio.Queue[list[Row] | None]) -> None:
        while (batch := await queue.get()) is not None:
            taken = await self._send(batch)
            self._rows += taken  # in a statement of its own: the other lanes add to it meanwhile


def _count(parts: Sequence[Part[Row, None]], refused: Callable[[Row, Exception], None]) -> int:
    for part in parts:
        if isinstance(part.error, OutcomeUnknown):
            raise part.error
        if part.error is not None:
            refused(part.items[0], part.error)
    return sum(len(part.items) for part in parts if part.error is None)


def _is_about_data(error: Exception) -> bool:
    state = getattr(error, "sqlstate", None) or ""
    return state.startswith(_ABOUT_DATA) or isinstance(error, ValueError | TypeError)  # the latter: it can't be encoded


async def _then(work: Awaitable[object], chunks: asyncio.Queue[bytes | None]) -> None:
    """Do the work, then wake the reader, whatever came of it; when cancelled, there is no reader any more."""
    failure: Exception | None = None
    try:
        await work
    except Exception as error:
        failure = error
    await chunks.put(None)
    if failure is not None:
        raise failure
