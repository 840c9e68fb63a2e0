"""The sessions of one endpoint: bounded, last in first out, each lent until a deadline.

DESIGN. Taking and giving back are plain list operations: a request that finds an idle link never waits and sends
nothing but its own statement. (asyncpg's pool sends a reset after each use: a second round trip, which costs more than
the first for a read by primary key.) What may dirty a session is known by its text and has it reset, in the background.

The pool is the node's bulkhead: what waits for a slow node waits here, in a bounded queue, and holds nothing that
others need. One timer watches all lent links and terminates those that are overdue; that ends the statement on this
side at once, frozen server or not. (asyncpg's own timeout asks the server to cancel and waits for it once more.)

New links are opened by a background task, never by the request that wants one: a cancelled request loses nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

from shardlib.core.backoff import Backoff
from shardlib.core.health import HEALTHY, Outcome
from shardlib.core.route import ReplicaView
from shardlib.errors import DeadlineExceeded, NodeUnavailable, Overloaded
from shardlib.pg.errors import refused_to_connect
from shardlib.ports import Counters, Link

_RETRY_OPENING = Backoff(base=0.05, cap=1.0)


@dataclass(frozen=True, slots=True)
class Limits:
    """The named bounds of a pool."""

    size: int = 10  # links per endpoint and process
    waiting: int = 1000  # requests that may wait for one
    open_seconds: float = 3.0  # for a connection to be made and greeted


class EndpointPool:
    """The links of one endpoint; see the module for the rules."""

    def __init__(
        self,
        node: str,
        name: str,
        open_link: Callable[[int], Awaitable[Link]],
        limits: Limits,
        on_breaker: Callable[[EndpointPool, str | None], None],
        on_demoted: Callable[[EndpointPool], None] = lambda _pool: None,
    ) -> None:
        self.node = node
        self.name = name
        self.idle: list[Link] = []
        self.busy: set[Link] = set()
        self.breaker = HEALTHY
        self.epoch = 0
        self.view = ReplicaView()
        self.counters = Counters()
        self._open_link = open_link
        self._limits = limits
        self._on_breaker = on_breaker
        self._on_demoted = on_demoted
        self._waiters: deque[asyncio.Future[Link]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = 0
        self._resetting = 0
        self._reaper: asyncio.TimerHandle | None = None
        self._reap_at = float("inf")
        self._closed = False
        self._all_back = asyncio.Event()  # to a closed pool

    def __repr__(self) -> str:
        return f"<pool of {self.node} {self.name}: {len(self.idle)} idle, {len(self.busy)} busy>"

    @property
    def broken(self) -> str:
        """Why requests are refused; empty: they aren't."""
        return "" if self.breaker.lets_through else self.breaker.why

    @property
    def waiting(self) -> int:
        """How many requests wait for a link."""
        return len(self._waiters)

    def lend(self, link: Link, until: float) -> None:
        """Note that ``link`` was taken off ``idle``; past ``until`` it is terminated."""
        link.deadline = until
        self.busy.add(link)
        self.view.outstanding += 1
        if until < self._reap_at:
            self._arm(until)

    def watch(self, link: Link, until: float) -> None:
        """Change the deadline of a lent link."""
        link.deadline = until
        if until < self._reap_at:
            self._arm(until)

    async def take(self, until: float) -> Link:
        """Return a link lent until then, waiting for one if need be.

        Raises NodeUnavailable while the breaker is open, Overloaded when too many wait, DeadlineExceeded.
        """
        if self.idle:
            link = self.idle.pop()
            self.lend(link, until)
            return link
        if self._closed or not self.breaker.lets_through:
            self.counters.refused += 1
            raise self.unavailable()
        if len(self._waiters) >= self._limits.waiting:
            self.counters.refused += 1
            raise Overloaded(f"{len(self._waiters)} requests wait for a connection to {self.node}")
        self.counters.waited += 1
        return await self._wait(until)

    def give(self, link: Link) -> None:
        """Take back a link whose statement is over."""
        if self.breaker is not HEALTHY and not link.overdue:
            self._note(Outcome.ANSWERED)
        self._forget(link)
        if link.overdue or self._closed or link.connection.is_closed():
            self._discard(link)
        elif link.dirty:
            self._resetting += 1
            self._background(self._reset(link))
        else:
            self._hand_on(link)

    def drop(self, link: Link) -> None:
        """Terminate a link in an unknown state: somebody else's answer may be on its way to it."""
        self._forget(link)
        self._discard(link)

    def lost(self, link: Link) -> None:
        """Drop a link that gave no answer. If it hung, that counts as a failure of the server.

        One that was cut doesn't: an administrator may have ended the session. The next one to be opened tells.
        """
        hung = link.overdue
        self.drop(link)
        if hung:
            self.failed("no answer in time")

    async def greet(self, link: Link) -> None:
        """Ask the node for its floor and timeline again, because a newer epoch has been seen."""
        await link.greet(self.epoch)

    def forget_greetings(self) -> None:
        """Have all links greet again before their next use: the server's role has changed."""
        for link in (*self.idle, *self.busy):
            link.greeted = -1

    def failed(self, reason: str) -> None:
        """Count a failure: enough of them in a row open the breaker and send everyone who waits away."""
        self._note(Outcome.FAILED, reason)

    def looked(self) -> None:
        """Note that the monitor got an answer: what closes the breaker."""
        if self.breaker is not HEALTHY:
            self._note(Outcome.LOOKED)

    def look_failed(self, reason: str) -> None:
        """Note that the monitor got no answer."""
        self._note(Outcome.LOOK_FAILED, reason)

    def demoted(self) -> None:
        """Note that a write met a read-only server: its monitor finds out the rest."""
        self._on_demoted(self)

    async def close(self, patience_seconds: float = 0.0) -> None:
        """End all links: refuse newcomers, send waiters away, let the lent ones come back for so long, terminate."""
        self._closed = True
        self._refuse_waiting()
        try:
            if self.busy:
                async with asyncio.timeout(patience_seconds):
                    await self._all_back.wait()
        except TimeoutError:
            pass  # they had their time
        finally:
            await self._end()

    async def _end(self) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in (*self.idle, *self.busy):
            link.connection.terminate()
        self.idle.clear()

    # -- the breaker

    def _note(self, outcome: Outcome, why: str = "") -> None:
        before = self.breaker
        self.breaker = before.after(outcome, monotonic(), why)
        if before.lets_through and not self.breaker.lets_through:
            self._let_go()
            self._on_breaker(self, why)
        elif self.breaker.lets_through and not before.lets_through:
            self._on_breaker(self, None)

    def _let_go(self) -> None:
        """End idle links, and a replica's busy ones; send everyone who waits away."""
        reads = self.busy if self.view.usable else ()  # of a replica: the primary answers them while there is time
        self.view.usable = False
        for link in (*self.idle, *reads):
            link.connection.terminate()
        self.idle.clear()
        self._refuse_waiting()

    def unavailable(self) -> NodeUnavailable:
        """Return the error for a request that is refused."""
        why = "it is not part of the cluster any more" if self._closed else self.broken
        after = self.breaker.retry_after(monotonic())
        return NodeUnavailable(f"{self.node} can't be reached: {why}", node=self.node, retry_after=after)

    # -- waiting and handing on

    async def _wait(self, until: float) -> Link:
        waiter: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._grow()
        timer = asyncio.get_running_loop().call_later(max(0.0, until - monotonic()), self._too_late, waiter)
        try:
            link = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.give(waiter.result())  # it was handed over in the same turn in which the caller was cancelled
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
        finally:
            timer.cancel()
        self.watch(link, until)
        return link

    def _too_late(self, waiter: asyncio.Future[Link]) -> None:
        if not waiter.done():
            self._waiters.remove(waiter)
            waiter.set_exception(DeadlineExceeded(f"no connection to {self.node} became free in time"))

    def _hand_on(self, link: Link) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.lend(link, float("inf"))
                waiter.set_result(link)
                return
        self.idle.append(link)

    def _refuse_waiting(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(self.unavailable())

    # -- opening and closing links

    def _grow(self) -> None:
        wanted = min(len(self._waiters), self._limits.size - len(self.idle) - len(self.busy) - self._resetting)
        while self._opening < wanted and not self._closed:
            self._opening += 1
            self._background(self._open())

    async def _open(self) -> None:
        attempt = 0
        try:
            while self._waiters and self.breaker.lets_through:
                try:
                    link = await self._open_link(self.epoch)
                except Exception as error:  # whatever a driver raises: the node isn't usable
                    if not self.idle and not self.busy:  # else it serves, and only won't have one link more
                        self.failed(refused_to_connect(error))
                    attempt += 1
                    await asyncio.sleep(_RETRY_OPENING.delay(attempt, random.random()))
                else:
                    self.counters.opened += 1
                    link.connection.add_termination_listener(lambda _connection, link=link: self._lost(link))
                    self._hand_on(link)
                    return
        finally:
            self._opening -= 1

    async def _reset(self, link: Link) -> None:
        try:
            async with asyncio.timeout(self._limits.open_seconds):
                await link.reset()
        except BaseException:
            self._resetting -= 1
            self._discard(link)
            raise
        self._resetting -= 1
        self._hand_on(link)

    def _forget(self, link: Link) -> None:
        self.busy.discard(link)
        self.view.outstanding -= 1

    def _discard(self, link: Link) -> None:
        link.connection.terminate()
        self._grow()
        if self._closed and not self.busy:
            self._all_back.set()

    def _lost(self, link: Link) -> None:
        if link in self.idle:
            self.idle.remove(link)
            self.counters.lost += 1

    def _background(self, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception as error:  # a link that can't be reset is gone; a later one will be opened
                self.failed(refused_to_connect(error))

        task = asyncio.get_running_loop().create_task(run(), name=f"pool of {self.node} {self.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- deadlines

    def _arm(self, until: float) -> None:
        if self._reaper is not None:
            self._reaper.cancel()
        self._reap_at = until
        self._reaper = asyncio.get_running_loop().call_later(max(0.0, until - monotonic()), self._reap)

    def _reap(self) -> None:
        now = monotonic() + 0.001  # the loop's clock may be a millisecond behind
        for link in [link for link in self.busy if link.deadline <= now and not link.overdue]:
            link.overdue = True
            self.counters.overdue += 1
            link.connection.terminate()
        self._reaper, self._reap_at = None, float("inf")
        left = min((link.deadline for link in self.busy if not link.overdue), default=float("inf"))
        if left < float("inf"):
            self._arm(left)
