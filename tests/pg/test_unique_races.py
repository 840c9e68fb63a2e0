"""No value ever has two owners: each interrupted prefix, each pause, lost answers, and crowds of crashing claimants."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

from shardlib import unique
from shardlib.errors import ClaimLost, OutcomeUnknown, Refused, Taken
from shardlib.testing.databases import TestCluster
from tests.pg.claimants import HOMES, TWO_KEYS, Act, Claimant, Crashed, World, world
from tests.support.waiting import wait_for

EMAIL = "anna@example.org"
VALUES, CONTENDERS = 160, 4


@pytest.fixture(params=HOMES)
async def homes(request: pytest.FixtureRequest, shardlib_cluster: TestCluster) -> AsyncIterator[World]:
    """Give owners with keys of each type."""
    async with world(shardlib_cluster, request.param) as made:
        yield made


@pytest.fixture
def rude(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everybody take over at once: the worst case."""
    monkeypatch.setattr(unique, "PATIENCE_SECONDS", 0.0)


class Nth:
    """Does something at the n-th step: ``before`` it or ``after`` it."""

    def __init__(self, number: int, place: str, what: Callable[[bool], Awaitable[None]]) -> None:
        self.number = number
        self.place = place
        self.what = what
        self.count = 0

    async def __call__(self, name: str, act: Act) -> Any:
        self.count += 1
        if self.count != self.number:
            return await act()
        if self.place == "before":
            await self.what(False)
            return await act()
        answer = await act()
        await self.what(True)
        return answer

    @property
    def reached(self) -> bool:
        return self.count >= self.number


async def crash(done: bool) -> None:
    """End the process here."""
    crashed = Crashed()
    crashed.done = done  # type: ignore[attr-defined]
    raise crashed


async def create(homes: World, somebody: Claimant, owner: Any, x: str) -> None:
    await somebody.make_own(owner, x)


async def retry(homes: World, somebody: Claimant, owner: Any, x: str) -> None:
    await homes.claimant().unique.claim("email", x, homes.new_owner(), request_id="r")
    await somebody.make_own(owner, x, request_id="r")


async def take_over(homes: World, somebody: Claimant, owner: Any, x: str) -> None:
    await homes.claimant().unique.claim("email", x, homes.new_owner())
    await somebody.make_own(owner, x)


async def inherit(homes: World, somebody: Claimant, owner: Any, x: str) -> None:
    former = homes.new_owner()
    await homes.claimant().make_own(former, x)
    await homes.claimant().delete(former)
    await somebody.make_own(owner, x)


async def change(homes: World, somebody: Claimant, owner: Any, x: str) -> None:
    await homes.claimant().make_own(owner, f"y{x}")
    await somebody.change(owner, f"y{x}", x)


async def leave(homes: World, somebody: Claimant, owner: Any, x: str) -> None:
    await homes.claimant().make_own(owner, x)
    await somebody.change(owner, x, f"y{x}")


async def return_to(homes: World, somebody: Claimant, owner: Any, x: str) -> None:
    await homes.claimant().make_own(owner, x)
    await homes.claimant().make_own(owner, f"y{x}")
    await somebody.make_own(owner, x)


SCENARIOS = [create, retry, take_over, inherit, change, leave, return_to]
Scenario = Callable[[World, Claimant, Any, str], Coroutine[Any, Any, None]]


async def outcome(attempt: Awaitable[Any]) -> str:
    """Return how an attempt ended."""
    try:
        await attempt
    except (Taken, ClaimLost, Crashed) as error:
        return type(error).__name__
    return "own"


async def check(homes: World, *emails: str) -> None:
    """Check that each value has one holder or none, that the index names him, and that a free value can be had."""
    for email in emails:
        holders = await homes.holders(email)
        assert len(holders) <= 1, f"{email} belongs to {holders}"
        somebody = homes.claimant(keys=TWO_KEYS)
        assert await somebody.unique.find("email", email) == (holders[0] if holders else None)
        newcomer = homes.new_owner()
        assert await outcome(somebody.make_own(newcomer, email)) == ("Taken" if holders else "own")
        assert await homes.holders(email) == (holders or [newcomer])


async def every_step(run: Callable[[Scenario, int, str], Awaitable[bool]]) -> dict[str, int]:
    """Run each scenario once per step and place of trouble, until it has no more; return how many steps each had."""
    steps = {}
    for scenario in SCENARIOS:
        number, reached = 0, (True, True)
        while any(reached):
            number += 1
            reached = await asyncio.gather(run(scenario, number, "before"), run(scenario, number, "after"))
        steps[scenario.__name__] = number - 1
    return steps


def email_of(scenario: Scenario, number: int, place: str) -> str:
    return f"{scenario.__name__}-{place}-step-{number}@example.org"


async def test_every_interrupted_prefix_can_be_resolved(homes: World, rude: None) -> None:
    async def run(scenario: Scenario, number: int, place: str) -> bool:
        step, email = Nth(number, place, crash), email_of(scenario, number, place)
        await outcome(scenario(homes, homes.claimant(step), homes.new_owner(), email))
        await check(homes, email, f"y{email}")
        return step.reached

    steps = await every_step(run)
    assert min(steps.values()) == steps["create"] == 6, "the claim, four in the transaction, the confirmation"


async def test_somebody_else_may_come_between_any_two_steps(homes: World, rude: None) -> None:
    async def run(scenario: Scenario, number: int, place: str) -> bool:
        email = email_of(scenario, number, place)
        others: list[asyncio.Task[str]] = []

        async def come_between(_done: bool) -> None:
            others.append(asyncio.create_task(outcome(homes.claimant().make_own(homes.new_owner(), email))))
            await wait_for(lambda: _done_or_blocked(homes, others[0]))

        step = Nth(number, place, come_between)
        await outcome(scenario(homes, homes.claimant(step), homes.new_owner(), email))
        await asyncio.gather(*others)
        await check(homes, email, f"y{email}")
        return step.reached

    await every_step(run)


async def _done_or_blocked(homes: World, task: asyncio.Task[str]) -> bool:
    waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return task.done() or bool(await homes.everywhere(waiting))


async def test_a_lost_answer_changes_nothing(homes: World, rude: None) -> None:
    """Before a step it is refused, after it its answer is lost."""

    async def run(scenario: Scenario, number: int, place: str) -> bool:
        async def lose(done: bool) -> None:
            raise OutcomeUnknown("the answer was lost") if done else Refused("it moves")

        step, email = _OutsideTransactions(number, place, lose), email_of(scenario, number, place)
        assert await outcome(scenario(homes, homes.claimant(step), homes.new_owner(), email)) == "own"
        await check(homes, email, f"y{email}")
        return step.reached

    await every_step(run)


class _OutsideTransactions(Nth):
    async def __call__(self, name: str, act: Act) -> Any:
        return await act() if name.startswith("tx ") else await super().__call__(name, act)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
async def test_a_contender_waits_for_a_decision_in_flight(homes: World, rude: None, ending: str) -> None:
    first, second = homes.new_owner(), homes.new_owner()
    somebody = homes.claimant()
    claim = await somebody.unique.claim("email", EMAIL, first)
    with pytest.raises(KeyError) if ending == "rollback" else _nothing_raised():
        async with homes.cluster.shard(first, keyspace=homes.home).transaction() as tx:
            await somebody.unique.decide(tx, claim)
            await tx.execute("INSERT INTO holder (id, email) VALUES ($1, $2)", first, EMAIL)
            other = asyncio.create_task(outcome(homes.claimant().make_own(second, EMAIL)))
            await wait_for(lambda: _done_or_blocked(homes, other))
            assert not other.done()
            if ending == "rollback":
                raise KeyError
    assert await other == ("Taken" if ending == "commit" else "own")
    assert await homes.holders(EMAIL) == [first if ending == "commit" else second]


class _nothing_raised:  # noqa: N801 - reads as a condition
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class Trouble:
    """Crashes and pauses at random, and counts them."""

    def __init__(self, seed: str, crashes: float, pauses: float) -> None:
        self.random = random.Random(seed)
        self.crashes = crashes
        self.pauses = pauses
        self.counts: Counter[str] = Counter()

    async def __call__(self, name: str, act: Act) -> Any:
        await self._before()
        answer = await act()
        await self._after()
        return answer

    async def _before(self) -> None:
        if self.random.random() < self.pauses:
            self.counts["pauses"] += 1
            await asyncio.sleep(self.random.random() * 0.02)
        await self._maybe_crash(False)

    async def _after(self) -> None:
        await self._maybe_crash(True)

    async def _maybe_crash(self, done: bool) -> None:
        if self.random.random() < self.crashes / 2:
            self.counts["crashes"] += 1
            await crash(done)


@pytest.mark.parametrize("seed", ["1"])
async def test_a_crowd_wants_the_same_values(homes: World, rude: None, seed: str) -> None:
    """Four contenders for each of 160 values, each of whom may crash after any step and pauses before many."""
    trouble = Trouble(f"{seed} {homes.home}", crashes=0.06, pauses=0.3)
    crowd = asyncio.Semaphore(60)
    ended: Counter[str] = Counter()

    async def contend(email: str, number: int) -> None:
        async with crowd:
            somebody = homes.claimant(trouble, keys=TWO_KEYS, current=1 + number % 2)
            ended[await outcome(somebody.make_own(homes.new_owner(), email))] += 1

    emails = [f"person{number}@example.org" for number in range(VALUES)]
    contenders = [contend(email, number) for email in emails for number in range(CONTENDERS)]
    trouble.random.shuffle(contenders)
    async with asyncio.TaskGroup() as tasks:
        for contender in contenders:
            tasks.create_task(contender)
    print(dict(ended), dict(trouble.counts))
    assert trouble.counts["crashes"] > VALUES / 2
    assert ended["own"] > VALUES / 4
    rows = await homes.everywhere("SELECT email, count(*) FROM holder GROUP BY email")
    owned = Counter(dict.fromkeys(emails, 0))
    for row in rows:
        owned[row["email"]] += row["count"]
    assert [email for email, count in owned.items() if count > 1] == []
    await asyncio.gather(*(check(homes, email) for email in emails[:40]))


class Holdings:
    """Who surely holds what: from the answer to the commit that took it to the start of the one that gives it up."""

    def __init__(self) -> None:
        self.holder: dict[str, Any] = {}

    def take(self, email: str, owner: Any) -> None:
        assert self.holder.setdefault(email, owner) == owner, f"{email} has two owners"

    def give_up(self, owner: Any) -> None:
        for email in [email for email, holder in self.holder.items() if holder == owner]:
            del self.holder[email]


async def test_owners_change_their_values_all_the_time(homes: World, rude: None) -> None:
    """Ten owners and twenty values, there and back, late releases: at no moment has one two owners."""
    trouble = Trouble(homes.home, crashes=0.02, pauses=0.3)
    emails = [f"value{number}@example.org" for number in range(20)]
    holdings, ended = Holdings(), Counter[str]()

    async def live(owner: Any, seed: int) -> None:
        choose = random.Random(seed)
        somebody = homes.claimant(trouble)
        for _ in range(40):
            ended[await outcome(_change(somebody, homes, holdings, owner, choose.choice(emails)))] += 1

    async with asyncio.TaskGroup() as tasks:
        for number in range(10):
            tasks.create_task(live(homes.new_owner(), number))
    print(dict(ended), dict(trouble.counts))
    assert ended["own"] > 60
    assert trouble.counts["crashes"] > 20
    await check(homes, *emails)


async def _change(somebody: Claimant, homes: World, holdings: Holdings, owner: Any, email: str) -> None:
    query = "SELECT email FROM holder WHERE id = $1"
    old = await homes.cluster.shard(owner, keyspace=homes.home).fetchval(query, owner)
    entries = await somebody.unique.entries("email", old) if old else ()
    claim = await somebody.unique.claim("email", email, owner)
    holdings.give_up(owner)
    try:
        await somebody.write(claim, email)
    finally:
        now = await homes.cluster.shard(owner, keyspace=homes.home).fetchval(query, owner)
        if now:
            holdings.take(now, owner)
    await somebody.unique.confirm(claim)
    for entry in entries:
        await somebody.unique.release("email", old, entry.token)
