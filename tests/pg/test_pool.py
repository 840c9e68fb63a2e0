"""The pool of one endpoint, with links that are opened, lost and reset on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic
from typing import Any

import pytest

from shardlib.errors import DeadlineExceeded, NodeUnavailable, Overloaded
from shardlib.pg.pool import EndpointPool, Limits
from tests.pg.links import is_quiet
from tests.support.waiting import wait_for

FOREVER = float("inf")


class FakeConnection:
    """As much of asyncpg's connection as the pool touches."""

    def __init__(self) -> None:
        self.closed = False
        self._listeners: list[Callable[[Any], None]] = []

    def is_closed(self) -> bool:
        return self.closed

    def add_termination_listener(self, listener: Callable[[Any], None]) -> None:
        self._listeners.append(listener)

    def terminate(self) -> None:
        """Close, and tell the listeners a turn later, as asyncpg does."""
        if not self.closed:
            self.closed = True
            for listener in self._listeners:
                asyncio.get_running_loop().call_soon(listener, self)


class FakeLink:
    """A session whose reset can be held up or made to fail."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.connection = FakeConnection()
        self.deadline = FOREVER
        self.dirty = self.overdue = self.sync_wait_cancelled = self.in_recovery = False
        self.floor = self.timeline = self.greeted = 0
        self.instance = 0.0
        self.opened_at = 0.0
        self.may_reset = asyncio.Event()
        self.may_reset.set()
        self.fails = False

    async def greet(self, epoch: int) -> None:
        self.greeted = epoch

    async def reset(self) -> None:
        await self.may_reset.wait()
        if self.fails:
            raise OSError("lost while it was reset")
        self.dirty = False


class Endpoint:
    """Opens links, slowly or not at all if told so."""

    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.opening = 0
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.refuses = False

    async def open(self, epoch: int) -> Any:
        self.opening += 1
        try:
            await self.may_open.wait()
            if self.refuses:
                raise ConnectionRefusedError
            link = FakeLink(len(self.links))
            self.links.append(link)
            return link
        finally:
            self.opening -= 1

    @property
    def alive(self) -> int:
        return sum(not link.connection.closed for link in self.links)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture
async def pool(endpoint: Endpoint) -> AsyncIterator[EndpointPool]:
    pool = EndpointPool("node1", "here", endpoint.open, Limits(size=3, waiting=5), lambda _pool, _reason: None)
    yield pool
    await pool.close()
    assert endpoint.alive == 0
    assert not pool.waiting


async def test_the_link_used_last_is_used_next(pool: EndpointPool) -> None:
    first, second = [await pool.take(FOREVER) for _ in range(2)]
    pool.give(first)
    pool.give(second)
    assert await pool.take(FOREVER) is second
    assert await pool.take(FOREVER) is first
    for link in (first, second):
        pool.give(link)


async def test_never_more_links_than_its_size_whatever_is_done(pool: EndpointPool, endpoint: Endpoint) -> None:
    most = 0

    async def use(number: int) -> None:
        nonlocal most
        for turn in range(6):
            try:
                link: Any = await pool.take(monotonic() + 5.0)
            except Overloaded:
                await asyncio.sleep(0.001)
                continue
            most = max(most, endpoint.alive + endpoint.opening)
            await asyncio.sleep(0)
            link.dirty = (number + turn) % 3 == 0
            if (number + turn) % 5 == 0:
                pool.drop(link)
            else:
                pool.give(link)

    await asyncio.gather(*(use(number) for number in range(12)))
    await wait_for(lambda: is_quiet(pool))
    assert most == 3
    assert endpoint.alive == len(pool.idle) <= 3
    assert pool.view.outstanding == 0


async def test_a_link_that_is_being_reset_takes_up_its_place(pool: EndpointPool, endpoint: Endpoint) -> None:
    links: list[Any] = [await pool.take(FOREVER) for _ in range(3)]
    for link in links:
        link.may_reset.clear()
        link.dirty = True
        pool.give(link)
    waiting = asyncio.create_task(pool.take(FOREVER))
    await asyncio.sleep(0.01)
    assert (endpoint.alive, endpoint.opening, waiting.done()) == (3, 0, False)
    links[1].may_reset.set()
    assert await waiting is links[1]
    pool.give(links[1])
    for link in links:
        link.may_reset.set()
    await wait_for(lambda: len(pool.idle) == 3)


async def test_a_link_that_cant_be_reset_is_replaced(pool: EndpointPool, endpoint: Endpoint) -> None:
    links: list[Any] = [await pool.take(FOREVER) for _ in range(3)]
    waiting = asyncio.create_task(pool.take(FOREVER))
    await asyncio.sleep(0)
    links[0].dirty = links[0].fails = True
    pool.give(links[0])
    fresh: Any = await waiting
    assert fresh.number == 3
    assert endpoint.alive == 3
    for link in (fresh, *links[1:]):
        pool.give(link)


async def test_a_link_that_was_lost_while_idle_is_never_handed_out(pool: EndpointPool) -> None:
    link: Any = await pool.take(FOREVER)
    pool.give(link)
    link.connection.terminate()
    await asyncio.sleep(0)
    assert not pool.idle
    assert pool.counters.lost == 1
    assert await pool.take(FOREVER) is not link


async def test_a_closed_link_that_is_given_back_is_not_kept(pool: EndpointPool) -> None:
    link: Any = await pool.take(FOREVER)
    link.connection.terminate()
    await asyncio.sleep(0)
    pool.give(link)
    assert not pool.idle


async def test_an_overdue_link_is_terminated_and_not_kept(pool: EndpointPool) -> None:
    patient: Any = await pool.take(FOREVER)
    link: Any = await pool.take(monotonic() + 0.02)
    another: Any = await pool.take(monotonic() + 0.04)
    await wait_for(lambda: link.connection.closed and another.connection.closed)
    assert link.overdue
    assert not patient.overdue
    assert pool.counters.overdue == 2
    for each in (patient, link, another):
        pool.give(each)
    assert pool.idle == [patient]


async def test_a_link_thats_back_in_time_is_left_alone(pool: EndpointPool) -> None:
    link: Any = await pool.take(monotonic() + 0.02)
    pool.give(link)
    await asyncio.sleep(0.05)
    assert not link.connection.closed
    assert await pool.take(FOREVER) is link
    pool.give(link)


async def test_who_waits_too_long_is_told_and_forgotten(pool: EndpointPool) -> None:
    links = [await pool.take(FOREVER) for _ in range(3)]
    with pytest.raises(DeadlineExceeded):
        await pool.take(monotonic() + 0.01)
    assert not pool.waiting
    for link in links:
        pool.give(link)
    assert len(pool.idle) == 3


async def test_waiters_are_served_in_their_order_and_newcomers_sent_away(pool: EndpointPool) -> None:
    link = await pool.take(FOREVER)
    others = [await pool.take(FOREVER) for _ in range(2)]
    served: list[int] = []

    async def wait(number: int) -> None:
        mine = await pool.take(FOREVER)
        served.append(number)
        pool.give(mine)

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await pool.take(FOREVER)
    waiting[1].cancel()
    pool.give(link)
    await asyncio.gather(*waiting, return_exceptions=True)
    assert served == [0, 2, 3, 4]
    for other in others:
        pool.give(other)


async def test_a_waiter_cancelled_as_it_is_served_passes_its_link_on(pool: EndpointPool) -> None:
    links = [await pool.take(FOREVER) for _ in range(3)]
    first, second = (asyncio.create_task(pool.take(FOREVER)) for _ in range(2))
    await asyncio.sleep(0)
    pool.give(links[0])
    first.cancel()
    assert await second is links[0]
    assert first.cancelled()
    for link in links:
        pool.give(link)
    assert pool.view.outstanding == 0


async def test_an_endpoint_that_refuses_ends_in_an_open_breaker_and_comes_back(
    pool: EndpointPool, endpoint: Endpoint
) -> None:
    endpoint.refuses = True
    waiting = [asyncio.create_task(pool.take(FOREVER)) for _ in range(3)]
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, NodeUnavailable)
    with pytest.raises(NodeUnavailable):
        await pool.take(FOREVER)
    endpoint.refuses = False
    while not pool.breaker.lets_through:
        pool.looked()
    pool.give(await pool.take(monotonic() + 5.0))


async def test_closing_ends_what_is_idle_lent_opening_and_waiting(endpoint: Endpoint) -> None:
    pool = EndpointPool("node1", "here", endpoint.open, Limits(size=3, waiting=5), lambda _pool, _reason: None)
    lent, idle = [await pool.take(FOREVER) for _ in range(2)]
    pool.give(idle)
    assert await pool.take(FOREVER) is idle
    pool.give(idle)
    endpoint.may_open.clear()
    taken = await pool.take(FOREVER)
    waiting = asyncio.create_task(pool.take(FOREVER))
    await asyncio.sleep(0.01)
    await pool.close()
    with pytest.raises(NodeUnavailable):
        await waiting
    assert (endpoint.alive, endpoint.opening) == (0, 0)
    pool.give(lent)
    pool.drop(taken)
    assert not pool.idle
    with pytest.raises(NodeUnavailable):
        await pool.take(FOREVER)
