"""One statement, from route to answer, when it isn't plain sailing.

DESIGN. ``Shard`` has the short way: an idle link, an answer, a fresh snapshot. Whatever is not that comes here: a link
must be waited for, the node says no, the answer can't be trusted, the connection is lost. The rules are those of
docs/explanation/reads-and-writes.md; in short:

* an answer of the primary stands if its snapshot was fresh *when it arrived* and showed the bucket at rest, or if the
  node says afterwards that it still owns the bucket; a write that touched a row needs no asking, for the fence would
  have refused it;
* what was refused, or never sent, is routed again until the deadline;
* a read without an answer is sent again, in a READ ONLY transaction, in case it calls a function that writes;
* a write without an answer is unknown, and is never sent again here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from shardlib.core.backoff import Backoff
from shardlib.core.statements import Effect, Kind, effect_of, kind_of
from shardlib.deadlines import note_write_cut_off
from shardlib.errors import (
    DeadlineExceeded,
    NodeUnavailable,
    OutcomeUnknown,
    Refused,
    Retryable,
)
from shardlib.observe import Observer, OutcomeLost, Rerouted
from shardlib.ports import Link, Node, Nodes, Outcome, Pool
from shardlib.sql import load
from shardlib.watch import View, Watcher, now

_SQL = load("owned")
_BETWEEN_ATTEMPTS = Backoff(base=0.02, cap=0.5)


@dataclass(frozen=True, slots=True)
class Place:
    """Which buckets a statement is about; all on one node when it was made.

    ``node`` pins it there, for a statement about all that the node owns.
    """

    keyspace: str
    buckets: Sequence[int]
    node: str = ""


class Parted(Refused):
    """The buckets of one statement are on several nodes now, or on another than the one it is meant for."""


@dataclass(slots=True)
class Loan:
    """A link of a node's primary, lent to a statement that was routed by ``view``."""

    view: View
    node: Node
    pool: Pool
    link: Link

    def fresh(self, place: Place) -> bool:
        """Return whether an answer that arrives now stands by itself."""
        moving = self.view.spaces[place.keyspace].moving
        return now() < self.view.fresh_until and not (moving and any(bucket in moving for bucket in place.buckets))


class Desk:
    """What every call needs: the snapshot, the nodes' verdict on errors, the observer, the default patience."""

    def __init__(self, watcher: Watcher, nodes: Nodes, observer: Observer, call_seconds: float) -> None:
        self.watcher = watcher
        self.outcome_of = nodes.outcome_of
        self.observer = observer
        self.call_seconds = call_seconds
        self.commits: set[asyncio.Task[None]] = set()  # under way although nobody may wait for them any more

    async def borrow(self, place: Place, until: float) -> Loan:
        """Return a link of the owner's primary that may be talked to with the present snapshot."""
        attempt = 0
        while True:
            view = self.watcher.view
            node = _home(view, place)
            if view.confirmed_at < node.not_before:
                await self.watcher.confirmed_after(node.not_before, until)
                continue
            pool = await node.primary_pool(until)
            try:
                link = await pool.take(until)
            except NodeUnavailable:
                if node.primary is pool and self.watcher.view is view:
                    raise
                continue  # the node has another primary, or address, than when this one was waited for
            if not await self._greeted(pool, link):
                attempt += 1
                await pause(attempt, until)
            elif link.in_recovery:
                pool.give(link)
                pool.demoted()
                attempt += 1
                await pause(attempt, until)
            elif link.floor > view.epoch:
                pool.give(link)
                self._rerouted(place, node, f"its floor {link.floor} is above epoch {view.epoch}")
                await self.watcher.newer_than(view, until)
            else:
                return Loan(view, node, pool, link)

    async def owned(self, place: Place, loan: Loan, until: float) -> bool:
        """Ask the node, in a statement of its own, whether it owns the buckets and did so at the snapshot's epoch."""
        attempt = 0
        while (answer := await self._ask_owned(place, loan, until)) is None:
            attempt += 1
            await pause(attempt, until)
        if not answer:
            self._rerouted(place, loan.node, "it says that it doesn't own it")
        return answer

    async def _ask_owned(self, place: Place, loan: Loan, until: float) -> bool | None:
        """Ask once; None when the connection was lost. A server that is a standby by now owns nothing."""
        link = await loan.pool.take(until)
        if not await self._greeted(loan.pool, link):
            return None
        if link.in_recovery:
            loan.pool.give(link)
            return False
        try:
            answer = await link.connection.fetchval(*_question(place), loan.view.epoch)
        except BaseException as error:
            overdue = link.overdue
            loan.pool.lost(link)
            outcome = self.outcome_of(error) if isinstance(error, Exception) else Outcome.ANSWERED
            if outcome in (Outcome.LOST, Outcome.UNSENT) and not overdue:
                return None
            if outcome is Outcome.LOST:
                raise NodeUnavailable(f"{loan.node.name} didn't say whether it owns it", node=loan.node.name) from error
            raise
        loan.pool.give(link)
        return bool(answer)

    async def owned_after(self, place: Place, loan: Loan, until: float, *, wrote: bool) -> bool:
        """Ask for ownership after a statement or COMMIT; if it ``wrote``, not to know means an unknown outcome."""
        try:
            owned = await self.owned(place, loan, until)
        except BaseException as error:
            if wrote:
                note_write_cut_off()
                if isinstance(error, Exception):
                    why = "wrote, and didn't say whether it still owned the bucket"
                    raise OutcomeUnknown(f"{loan.node.name} {why}") from error
            raise
        if wrote and not owned:
            raise OutcomeUnknown(f"a write was sent to {loan.node.name}, which doesn't own its bucket any more")
        return owned

    def refused(self, place: Place, loan: Loan) -> None:
        """Note that the fence refused a write."""
        self._rerouted(place, loan.node, "its fence refused a write")

    async def _greeted(self, pool: Pool, link: Link) -> bool:
        if link.greeted == pool.epoch:
            return True
        try:
            await pool.greet(link)
        except BaseException as error:
            pool.lost(link)
            outcome = self.outcome_of(error) if isinstance(error, Exception) else Outcome.ANSWERED
            if outcome in (Outcome.LOST, Outcome.UNSENT):
                return False
            raise
        return True

    def _rerouted(self, place: Place, node: Node, reason: str) -> None:
        self.watcher.hurry()
        self.observer.observe(Rerouted(place.keyspace, place.buckets[0], node.name, reason))


def _home(view: View, place: Place) -> Node:
    """Return the node that owns all buckets of the place; Parted if there is none, or it isn't the one meant."""
    owners = view.spaces[place.keyspace].owners
    node = owners[place.buckets[0]]
    one_home = len(place.buckets) == 1 or all(owners[bucket] is node for bucket in place.buckets)
    if not one_home or place.node not in ("", node.name):
        raise Parted(f"buckets of {place.keyspace} moved before the statement for them was sent")
    return node


def _question(place: Place) -> tuple[str, str, int | str]:
    """Return the statement that asks for ownership, and its first arguments."""
    if len(place.buckets) == 1:
        return _SQL["owned"], place.keyspace, place.buckets[0]
    return _SQL["all_owned"], place.keyspace, ",".join(map(str, place.buckets))  # an int[] has asyncpg ask what it is


async def pause(attempt: int, until: float) -> None:
    """Wait before the next attempt, with full jitter; DeadlineExceeded if that would be too late."""
    delay = _BETWEEN_ATTEMPTS.delay_before(until, attempt, monotonic(), random.random())
    if delay is None:
        raise DeadlineExceeded("time was up before it could be tried again")
    await asyncio.sleep(delay)


class Call:
    """A statement on its way; ``verb`` is the name of a method of asyncpg's connection."""

    __slots__ = ("_again", "_args", "_desk", "_kind", "_place", "_query", "_until", "_verb", "answered_by")

    def __init__(self, desk: Desk, place: Place, verb: str, query: str, args: tuple[Any, ...], until: float) -> None:
        self._desk = desk
        self._place = place
        self._verb = verb
        self._query = query
        self._args = args
        self._until = until
        self._kind = kind_of(query)
        self._again = False  # a read that was sent before
        self.answered_by = ("", 0)  # the node's name and timeline

    def beware(self) -> Call:
        """Take it that it was sent before, by another call."""
        self._again = True
        return self

    async def run(self) -> Any:
        """Send it until there is an answer that stands, or the deadline."""
        attempt = 0
        while True:
            loan = await self._desk.borrow(self._place, self._until)
            try:
                answer = await self._send(loan)
            except BaseException as error:
                await self.settle(loan, error)
            else:
                self._return(loan)
                if await self.stands(loan, answer):
                    self.answered_by = (loan.node.name, loan.link.timeline)
                    return answer
            attempt += 1
            await pause(attempt, self._until)

    async def settle(self, loan: Loan, error: BaseException) -> None:
        """Clear up after ``error``; return if the statement may be sent again, raise what the caller must know."""
        if not isinstance(error, Exception):
            loan.pool.drop(loan.link)
            if self._kind is not Kind.READ:
                note_write_cut_off()
            raise error
        outcome = self._desk.outcome_of(error)
        if outcome is Outcome.LOST:
            self._lost(loan, error)
            return
        if outcome is Outcome.UNSENT:
            loan.pool.drop(loan.link)
            return
        loan.link.dirty = loan.link.dirty or self._kind is Kind.SESSION
        loan.pool.give(loan.link)
        if outcome is Outcome.REFUSED:
            self._desk.refused(self._place, loan)
            await self._newer(loan, error)
        elif outcome is Outcome.READ_ONLY:
            self._read_only(loan, error)
        elif outcome is not Outcome.UNPLANNED:
            raise error

    async def stands(self, loan: Loan, answer: object) -> bool:
        """Return whether the answer may be handed out; if not, a newer snapshot is there to route by.

        What may have touched a row is never sent again.
        """
        effect = Effect.NOTHING if self._kind is Kind.READ else effect_of(self._verb, self._query, answer)
        if effect is Effect.TOUCHED or loan.fresh(self._place):
            return True
        if await self._desk.owned_after(self._place, loan, self._until, wrote=effect is Effect.UNKNOWN):
            return True
        self._again = self._kind is Kind.READ  # the next one must not write, should it call a function that does
        await self._newer(loan, None)
        return False

    async def _send(self, loan: Loan) -> Any:
        connection = loan.link.connection
        if not self._again:
            return await getattr(connection, self._verb)(self._query, *self._args)
        async with connection.transaction(readonly=True):
            return await getattr(connection, self._verb)(self._query, *self._args)

    def _return(self, loan: Loan) -> None:
        if self._kind is Kind.SESSION:
            loan.link.dirty = True
        give_back(loan)

    def _lost(self, loan: Loan, error: Exception) -> None:
        overdue = loan.link.overdue
        loan.pool.lost(loan.link)
        name = loan.node.name
        if self._kind is not Kind.READ:
            self._desk.observer.observe(OutcomeLost(self._place.keyspace, self._place.buckets[0], name))
            raise OutcomeUnknown(f"a write was sent to {name} and no answer came") from error
        if overdue:
            raise DeadlineExceeded(f"{name} didn't answer in time") from error
        self._again = True

    def _read_only(self, loan: Loan, error: Exception) -> None:
        if self._again:
            raise OutcomeUnknown(f"a SELECT that writes was sent to {loan.node.name} and no answer came") from error
        loan.pool.demoted()

    async def _newer(self, loan: Loan, error: Exception | None) -> None:
        try:
            await self._desk.watcher.newer_than(loan.view, self._until)
        except DeadlineExceeded as late:
            raise Refused(f"{loan.node.name} doesn't own bucket {self._place.buckets[0]} any more") from error or late


def give_back(loan: Loan) -> None:
    """Give a link back after its statement; OutcomeUnknown if Postgres warned that the standby doesn't have it."""
    cancelled = loan.link.sync_wait_cancelled
    loan.link.sync_wait_cancelled = False
    loan.pool.give(loan.link)
    if cancelled:
        raise OutcomeUnknown(f"{loan.node.name} committed, but stopped waiting for its standby")


def passes(error: BaseException, desk: Desk) -> bool:
    """Return whether a transaction that failed so was rolled back for a reason that passes."""
    if isinstance(error, Retryable):
        return not isinstance(error, DeadlineExceeded)
    return isinstance(error, Exception) and desk.outcome_of(error) in (
        Outcome.AGAIN,
        Outcome.UNPLANNED,
        Outcome.UNSENT,
        Outcome.REFUSED,
        Outcome.READ_ONLY,
    )
