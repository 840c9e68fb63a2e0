"""Transactions on the home of one key, and bodies that may be run again.

DESIGN. COMMIT is never cancelled: it runs in a task of its own, and past the deadline the caller is told "unknown"
while it ends by itself. (A cancelled COMMIT that waits for its standby is answered with success.) Everything before
COMMIT may be cut off at any point: the connection is terminated and the server rolls back, so nothing happened.

A body with a request id inserts that id first, in its own transaction and in the key's bucket. A retry waits there
for a twin in flight, and gets the stored answer of one that was committed: the only judge that survives a failover or
a move.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from shardlib.calls import Desk, Loan, Place, give_back, passes, pause
from shardlib.core.statements import Effect, Kind, effect_of, kind_of
from shardlib.deadlines import deadline_or, note_write_cut_off
from shardlib.errors import AnswerMismatch, NodeUnavailable, OutcomeUnknown, Refused, Rejected
from shardlib.observe import OutcomeLost
from shardlib.ports import Outcome, Record
from shardlib.sql import load

T = TypeVar("T")
_SQL = load("requests")
_NEVER = float("inf")
_COMMIT_SECONDS = 60.0  # after which the connection is given up; the caller was told "unknown" long before


class Isolation(enum.Enum):
    """The isolation levels of Postgres."""

    READ_COMMITTED = "read_committed"
    REPEATABLE_READ = "repeatable_read"
    SERIALIZABLE = "serializable"


class Transaction:
    """One connection to the home of one key; you own the retry. Made by ``Shard.transaction()``.

    Leaving the block commits, leaving it by an exception rolls back. Raises OutcomeUnknown when no answer to COMMIT
    came, NodeUnavailable when the connection was lost before it was sent.
    """

    def __init__(self, desk: Desk, place: Place, isolation: Isolation) -> None:
        self._desk = desk
        self._place = place
        self._isolation = isolation
        self._loan: Loan
        self._began: Any
        self._wrote = False  # a row: that holds the fence off until COMMIT
        self._ran = False  # a statement: even a SELECT may have called a function that writes
        self._failed = False  # a statement: COMMIT would be answered with success, and roll back

    async def __aenter__(self) -> Transaction:
        until = deadline_or(self._desk.call_seconds)
        attempt = 0
        while True:
            self._loan = await self._desk.borrow(self._place, until)
            self._began = self._loan.link.connection.transaction(isolation=self._isolation.value)
            try:
                await self._began.start()
            except BaseException as error:
                self._loan.pool.lost(self._loan.link)
                if not isinstance(error, Exception):
                    raise
            else:
                self._rest()
                return self
            attempt += 1
            await pause(attempt, until)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self._roll_back(error)
            return
        if self._failed:
            await self._check_alive()
        changed = self._ran  # for all that is known
        if not self._wrote and not self._loan.fresh(self._place):
            changed = await self._has_changed_anything()
        until = deadline_or(self._desk.call_seconds)
        commit = asyncio.get_running_loop().create_task(self._commit(), name="commit")
        self._desk.commits.add(commit)
        commit.add_done_callback(self._commit_ended)
        try:
            async with asyncio.timeout(max(0.0, until - monotonic())):
                await asyncio.shield(commit)
        except TimeoutError as late:
            raise self._unknown("no answer to COMMIT in time") from late
        except asyncio.CancelledError:
            note_write_cut_off()
            raise
        if not self._wrote and not self._loan.fresh(self._place):
            await self._still_owned(until, changed=changed)

    def is_home_of(self, keyspace: str, bucket: int) -> bool:
        """Return whether this is a transaction on the home of that bucket."""
        return self._place.keyspace == keyspace and bucket in self._place.buckets

    async def fetch(self, query: str, *args: Any) -> list[Record]:
        """Run a statement and return its rows."""
        return await self._run("fetch", query, args)  # type: ignore[no-any-return]

    async def fetchrow(self, query: str, *args: Any) -> Record | None:
        """Run a statement and return its first row, None if there is none."""
        return await self._run("fetchrow", query, args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run a statement and return the first column of its first row, None if there is none."""
        row = await self._run("fetchrow", query, args)
        return None if row is None else row[0]

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement and return its command tag, such as ``UPDATE 1``."""
        return await self._run("execute", query, args)  # type: ignore[no-any-return]

    async def executemany(self, query: str, args: Iterable[Iterable[Any]]) -> None:
        """Run a statement once per set of arguments, all or nothing."""
        await self._run("executemany", query, (args,))

    async def copy_records_to_table(
        self, table: str, *, records: Iterable[Any], columns: Iterable[str], schema: str | None = None
    ) -> str:
        """Copy records in by binary COPY; return the command tag."""
        copy = self._loan.link.connection.copy_records_to_table
        tag: str = await self._guard(copy(table, records=records, columns=list(columns), schema_name=schema))
        self._wrote = self._wrote or effect_of("execute", "COPY", tag) is Effect.TOUCHED
        return tag

    async def batches(self, query: str, *args: Any, rows: int = 500) -> AsyncIterator[list[Record]]:
        """Run a read and yield its rows in lists of at most ``rows``, through a cursor: memory stays bounded."""
        connection = self._loan.link.connection
        try:
            cursor = await self._guard(connection.cursor(query, *args))
        except Exception as error:
            if self._desk.outcome_of(error) is Outcome.UNPLANNED:
                await connection.reload_schema_state()  # a cursor doesn't forget a plan that a migration made invalid
            raise
        while batch := await self._guard(cursor.fetch(rows)):
            yield batch

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Return a block that rolls back to its beginning when left by an exception."""
        wrote = self._wrote
        connection = self._loan.link.connection
        block = connection.transaction()
        await self._guard(block.start())
        try:
            yield
        except BaseException:
            self._wrote = wrote  # rolling back releases the locks that held the fence off
            if not connection.is_closed():
                await self._guard(block.rollback())
            raise
        await self._guard(block.commit())

    async def _run(self, verb: str, query: str, args: tuple[Any, ...]) -> Any:
        kind = kind_of(query)
        if kind is Kind.SESSION:
            self._loan.link.dirty = True
        answer = await self._guard(getattr(self._loan.link.connection, verb)(query, *args))
        if kind is not Kind.READ and effect_of(verb, query, answer) is Effect.TOUCHED:
            self._wrote = True
        return answer

    async def _guard(self, statement: Awaitable[Any]) -> Any:
        """Await a statement under the deadline; a lost connection means that nothing happened."""
        loan = self._loan
        self._ran = True
        loan.pool.watch(loan.link, deadline_or(self._desk.call_seconds))
        try:
            answer = await statement
        except BaseException as error:
            self._failed = True
            if not isinstance(error, Exception):
                raise
            outcome = self._desk.outcome_of(error)
            if outcome is Outcome.REFUSED:
                self._desk.refused(self._place, loan)
                raise Refused(f"{loan.node.name} doesn't own bucket {self._place.buckets[0]} any more") from error
            if outcome in (Outcome.LOST, Outcome.UNSENT):
                raise NodeUnavailable(f"{loan.node.name} was lost before COMMIT", node=loan.node.name) from error
            raise
        finally:
            self._rest()
        return answer

    def _rest(self) -> None:
        """Between statements nobody is waited for; the server's idle_in_transaction_session_timeout applies."""
        self._loan.link.deadline = _NEVER

    async def _check_alive(self) -> None:
        """Raise Postgres's own error if one that the body has swallowed had aborted the transaction."""
        try:
            await self._guard(self._loan.link.connection.execute("SELECT 1"))
        except BaseException as error:
            await self._roll_back(error)
            raise

    async def _has_changed_anything(self) -> bool:
        """Ask Postgres whether this transaction has an id: whatever its statements called, a change gives it one."""
        try:
            return bool(await self._guard(self._loan.link.connection.fetchval(_SQL["has_changed_anything"])))
        except BaseException as error:
            await self._roll_back(error)
            raise

    async def _roll_back(self, error: BaseException) -> None:
        loan = self._loan
        if not isinstance(error, Exception | GeneratorExit) or loan.link.overdue or loan.link.connection.is_closed():
            loan.pool.drop(loan.link)
            return
        loan.pool.watch(loan.link, deadline_or(self._desk.call_seconds))
        try:
            await self._began.rollback()
        except BaseException as another:
            loan.pool.drop(loan.link)
            if not isinstance(another, Exception):
                raise
        else:
            loan.pool.give(loan.link)

    async def _commit(self) -> None:
        loan = self._loan
        loan.pool.watch(loan.link, monotonic() + _COMMIT_SECONDS)
        try:
            await self._began.commit()
        except Exception as error:
            outcome = self._desk.outcome_of(error)
            if outcome is Outcome.LOST:
                loan.pool.lost(loan.link)
                raise self._unknown("the connection was lost at COMMIT") from error
            if outcome is Outcome.UNSENT or loan.link.connection.is_closed():
                loan.pool.drop(loan.link)
                raise NodeUnavailable(f"{loan.node.name} was lost before COMMIT", node=loan.node.name) from error
            loan.pool.give(loan.link)
            raise
        give_back(loan)

    def _unknown(self, why: str) -> Exception:
        name = self._loan.node.name
        if not self._ran:
            return NodeUnavailable(f"{name}: {why}; the transaction had changed nothing", node=name)
        self._desk.observer.observe(OutcomeLost(self._place.keyspace, self._place.buckets[0], name))
        return OutcomeUnknown(f"{name}: {why}")

    def _commit_ended(self, commit: asyncio.Task[None]) -> None:
        self._desk.commits.discard(commit)
        if not commit.cancelled():
            commit.exception()  # whoever waited has it; nobody else is to be warned

    async def _still_owned(self, until: float, *, changed: bool) -> None:
        if not await self._desk.owned_after(self._place, self._loan, until, wrote=changed):
            raise Refused(f"bucket {self._place.buckets[0]} moved while it was read; read it again")


async def run_again(
    begin: Callable[[], Transaction], body: Callable[[Transaction], Awaitable[T]], until: float, desk: Desk
) -> T:
    """Run ``body`` in a transaction, again while it fails for reasons that pass."""
    attempt = 0
    while True:
        try:
            async with begin() as transaction:
                return await body(transaction)
        except Exception as error:
            if not passes(error, desk) or monotonic() >= until:
                raise
            failure = error
        attempt += 1
        await pause_or_raise(attempt, until, failure)


async def run_once(
    begin: Callable[[], Transaction],
    body: Callable[[Transaction], Awaitable[T]],
    until: float,
    desk: Desk,
    entry: tuple[str, int, str, str],
) -> T:
    """Run ``body`` at most once under a request id, however often it must be tried; return its stored answer.

    ``entry`` is (keyspace, bucket, id, fingerprint).
    """
    attempt = 0
    while True:
        try:
            async with begin() as transaction:
                answer = await _enter(transaction, body, entry)
            return msgspec.msgpack.decode(answer)  # type: ignore[no-any-return]
        except Exception as error:
            if not (passes(error, desk) or isinstance(error, OutcomeUnknown)) or monotonic() >= until:
                raise
            failure = error
        attempt += 1
        await pause_or_raise(attempt, until, failure)


async def _enter(
    transaction: Transaction, body: Callable[[Transaction], Awaitable[Any]], entry: tuple[str, int, str, str]
) -> bytes:
    keyspace, bucket, request_id, fingerprint = entry
    if not await transaction.fetchval(_SQL["enter"], keyspace, bucket, request_id, fingerprint):
        stored = await transaction.fetchrow(_SQL["answer"], keyspace, bucket, request_id)
        if stored is None:
            raise Rejected("the request's row is invisible: run it in READ COMMITTED")
        if stored["fingerprint"] != fingerprint:
            raise AnswerMismatch(f"request id {request_id} was used for something else")
        await transaction.execute(_SQL["again"], keyspace, bucket, request_id)
        return bytes(stored["answer"])
    answer = msgspec.msgpack.encode(await body(transaction))
    await transaction.execute(_SQL["leave"], keyspace, bucket, request_id, answer)
    return answer


async def pause_or_raise(attempt: int, until: float, failure: Exception) -> None:
    """Wait before the next attempt; raise the last failure if that would be too late."""
    try:
        await pause(attempt, until)
    except TimeoutError:
        raise failure from None
