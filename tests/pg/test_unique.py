"""Unique values, one caller at a time: who gets a value, who is refused, what a retry and a new key find."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shardlib import Claim, unique
from shardlib.core.identifiers import hide, token_at
from shardlib.errors import ClaimLost, NodeUnavailable, Rejected, Taken, UnknownName, WrongKey
from shardlib.sql import load
from shardlib.testing.databases import TestCluster
from shardlib.unique import Swept
from tests.pg.claimants import HOMES, KEYS, TWO_KEYS, Act, World, world

EMAIL = "Anna@Example.org"


@pytest.fixture(params=HOMES)
async def homes(request: pytest.FixtureRequest, shardlib_cluster: TestCluster) -> AsyncIterator[World]:
    """Give owners with keys of each type."""
    async with world(shardlib_cluster, request.param) as made:
        yield made


class Counter:
    """Counts the statements of a claimant."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def __call__(self, name: str, act: Act) -> Any:
        self.names.append(name)
        return await act()


class Outage:
    """Lets the first calls of one statement fail as if their node were down."""

    def __init__(self, name: str, calls: int) -> None:
        self.name = name
        self.calls = calls

    async def __call__(self, name: str, act: Act) -> Any:
        if name == self.name and self.calls:
            self.calls -= 1
            raise NodeUnavailable("node1 can't be reached", node="node1")
        return await act()


async def test_the_first_gets_it_and_the_second_is_refused(homes: World) -> None:
    somebody, first, second = homes.claimant(), homes.new_owner(), homes.new_owner()
    assert await somebody.make_own(first, EMAIL) == first
    with pytest.raises(Taken):
        await somebody.make_own(second, "  anna@example.ORG ")
    assert await somebody.unique.find("email", EMAIL) == first
    assert await homes.holders(EMAIL) == [first]
    assert await somebody.unique.find("email", "somebody@example.org") is None


async def test_the_index_holds_no_clear_value(homes: World) -> None:
    await homes.claimant().make_own(homes.new_owner(), EMAIL)
    (row,) = await homes.everywhere("SELECT value, state FROM shardlib.identifier")
    assert (row["value"], row["state"]) == (str(hide("email", EMAIL, 1, KEYS[1])), "committed")
    assert "anna" not in row["value"].lower()


async def test_what_each_step_costs(homes: World) -> None:
    counter = Counter()
    somebody, owner = homes.claimant(counter), homes.new_owner()
    claim = await somebody.unique.claim("email", EMAIL, owner)
    assert counter.names == ["INSERT INTO shardlib.identifier"]
    await somebody.write(claim, EMAIL)
    assert len(counter.names) == 1 + 4, "begin, the decision, the row, commit"
    await somebody.unique.confirm(claim)
    assert len(counter.names) == 6
    assert await somebody.unique.find("email", EMAIL) == owner
    assert len(counter.names) == 8, "the index, and the owner's row"


async def test_hot_statements_read_one_row_by_an_index(homes: World) -> None:
    await homes.claimant().make_own(homes.new_owner(), EMAIL)
    token = "'00000000-0000-7000-8000-000000000000'::uuid"
    arguments = {"entry": ["'email:1:00'"], "outcome": ["'users'", "1", "'1'", token]}
    async with homes.nodes[0].acquire() as connection:
        await connection.execute("SET enable_seqscan = off")
        for name, values in arguments.items():
            types = {"entry": "(text)", "outcome": "(text, int, text, uuid)"}[name]
            await connection.execute(f"PREPARE {name}{types} AS {load('claims')[name]}")
            plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}({', '.join(values)})")
            node = json.loads(plan)[0]["Plan"]
            assert (node["Node Type"], node.get("Filter")) == ("Index Scan", None), plan
            assert node["Index Name"].endswith("_pkey")


async def test_a_late_decision_is_refused(homes: World) -> None:
    late, quick = homes.claimant(), homes.claimant()
    owner, other = homes.new_owner(), homes.new_owner()
    claim = await late.unique.claim("email", EMAIL, owner)
    assert await quick.make_own(other, EMAIL) == other
    with pytest.raises(ClaimLost, match="taken over"):
        await late.write(claim, EMAIL)
    await late.unique.confirm(claim)
    assert await homes.holders(EMAIL) == [other]
    assert await quick.unique.find("email", EMAIL) == other


async def test_a_claim_decides_once(homes: World) -> None:
    somebody, owner = homes.claimant(), homes.new_owner()
    claim = await somebody.unique.claim("email", EMAIL, owner)
    await somebody.write(claim, EMAIL)
    with pytest.raises(ClaimLost, match="decided before"):
        await somebody.write(claim, EMAIL)


@pytest.mark.parametrize("hours", [-25, 25])
async def test_a_token_too_old_or_too_new_for_the_home_is_refused(homes: World, hours: int) -> None:
    somebody, owner = homes.claimant(), homes.new_owner()
    token = token_at(int((time.time() + hours * 3600) * 1000), 1)
    with pytest.raises(ClaimLost, match="older than a day"):
        await somebody.write(Claim(hide("email", EMAIL, 1, KEYS[1]), owner, token), EMAIL)
    assert await homes.holders(EMAIL) == []


async def test_there_and_back_again_with_a_late_release(homes: World) -> None:
    """H6: x to y to x; the release of the first x comes last and must not free what is held again."""
    somebody, owner, other = homes.claimant(), homes.new_owner(), homes.new_owner()
    await somebody.make_own(owner, "x@example.org")
    (first,) = await somebody.unique.entries("email", "x@example.org")
    await somebody.make_own(owner, "y@example.org")
    await somebody.make_own(owner, "x@example.org")
    await somebody.unique.release("email", "x@example.org", first.token)
    with pytest.raises(Taken):
        await somebody.make_own(other, "x@example.org")
    assert await somebody.make_own(other, "y@example.org") == other
    assert await homes.holders("x@example.org") == [owner]


async def test_a_release_frees_only_what_is_not_carried(homes: World) -> None:
    somebody, owner, other = homes.claimant(), homes.new_owner(), homes.new_owner()
    await somebody.make_own(owner, "x@example.org")
    (entry,) = await somebody.unique.entries("email", "x@example.org")
    await somebody.unique.release("email", "x@example.org", entry.token)
    assert await somebody.unique.find("email", "x@example.org") == owner, "its owner's row still carries it"
    await somebody.change(owner, "x@example.org", "y@example.org")
    assert await somebody.unique.entries("email", "x@example.org") == ()
    assert await somebody.make_own(other, "x@example.org") == other


async def test_a_decision_elsewhere_is_refused(homes: World) -> None:
    somebody, owner = homes.claimant(), homes.new_owner()
    claim = await somebody.unique.claim("email", EMAIL, owner)
    home = elsewhere = homes.cluster.shard(owner, keyspace=homes.home)
    while elsewhere.bucket == home.bucket:
        elsewhere = homes.cluster.shard(homes.new_owner(), keyspace=homes.home)
    async with elsewhere.transaction() as tx:
        with pytest.raises(Rejected, match="home of the claim's owner"):
            await somebody.unique.decide(tx, claim)


async def test_who_claims_what_he_holds_goes_on_holding_it(homes: World) -> None:
    somebody, owner, other = homes.claimant(), homes.new_owner(), homes.new_owner()
    await somebody.make_own(owner, EMAIL)
    await somebody.unique.claim("email", EMAIL, owner)  # and never decides
    with pytest.raises(Taken):
        await somebody.make_own(other, EMAIL)
    assert await somebody.unique.find("email", EMAIL) == owner
    assert await somebody.make_own(owner, EMAIL) == owner


async def test_the_value_of_a_deleted_owner_is_free(homes: World) -> None:
    somebody, owner, other = homes.claimant(), homes.new_owner(), homes.new_owner()
    await somebody.make_own(owner, EMAIL)
    await somebody.delete(owner)
    assert await somebody.unique.find("email", EMAIL) is None
    assert await somebody.make_own(other, EMAIL) == other


async def test_a_home_that_lost_its_last_writes_gives_the_value_back(homes: World) -> None:
    """A failover can take decision and row together; the index alone says "committed" then."""
    somebody, owner, other = homes.claimant(), homes.new_owner(), homes.new_owner()
    await somebody.make_own(owner, EMAIL)
    await somebody.delete(owner)
    await homes.everywhere("DELETE FROM shardlib.claim_decision")
    assert await somebody.make_own(other, EMAIL) == other


async def test_decisions_of_a_held_value_may_be_forgotten(homes: World) -> None:
    somebody, owner, other = homes.claimant(), homes.new_owner(), homes.new_owner()
    await somebody.make_own(owner, EMAIL)
    await homes.everywhere("DELETE FROM shardlib.claim_decision")
    with pytest.raises(Taken):
        await somebody.make_own(other, EMAIL)
    assert await somebody.unique.find("email", EMAIL) == owner


async def test_a_retry_meets_its_own_claim(homes: World) -> None:
    somebody, first, second = homes.claimant(), homes.new_owner(), homes.new_owner()
    claim = await somebody.unique.claim("email", EMAIL, first, request_id="r")
    again = await somebody.unique.claim("email", EMAIL, second, request_id="r")
    assert again.owner == first, "the owner that the first attempt chose"
    assert again.token != claim.token
    with pytest.raises(ClaimLost):
        await somebody.write(claim, EMAIL)
    await somebody.write(again, EMAIL)
    done = await somebody.unique.claim("email", EMAIL, second, request_id="r")
    assert done == again, "the first attempt got through: its claim comes back"
    with pytest.raises(Taken):
        await somebody.unique.claim("email", EMAIL, second, request_id="another")
    assert await homes.holders(EMAIL) == [first]


async def test_a_sweep_settles_what_nobody_finished(homes: World) -> None:
    somebody, owners = homes.claimant(), [homes.new_owner() for _ in range(4)]
    await somebody.make_own(owners[0], "done@example.org")
    decided = await somebody.unique.claim("email", "decided@example.org", owners[1])
    await somebody.write(decided, "decided@example.org")
    orphan = await somebody.unique.claim("email", "orphan@example.org", owners[2])
    assert await somebody.unique.sweep(older_than=3600) == Swept(confirmed=0, freed=0)
    assert await somebody.unique.sweep(older_than=0, limit=1) == Swept(confirmed=1, freed=0), "the oldest first"
    assert await somebody.unique.sweep(older_than=0) == Swept(confirmed=0, freed=1)
    with pytest.raises(ClaimLost):
        await somebody.write(orphan, "orphan@example.org")
    rows = await homes.everywhere("SELECT state FROM shardlib.identifier")
    assert [row["state"] for row in rows] == ["committed", "committed"]


async def test_a_sweep_goes_on_when_a_home_is_out_of_reach(homes: World) -> None:
    somebody = homes.claimant()
    for number in range(3):
        await somebody.unique.claim("email", f"{number}@example.org", homes.new_owner())
    outage = Outage("INSERT INTO shardlib.claim_decision", calls=unique.MAX_TRIES)
    assert await homes.claimant(outage).unique.sweep(older_than=0) == Swept(confirmed=0, freed=2, left=1)
    assert await somebody.unique.sweep(older_than=0) == Swept(confirmed=0, freed=1)


async def test_a_sweep_leaves_alone_what_it_does_not_know(homes: World) -> None:
    await homes.claimant(held={"phone": "SELECT NULL"}).unique.claim("phone", "1", homes.new_owner())
    await homes.claimant(keys=TWO_KEYS, current=2).unique.claim("email", EMAIL, homes.new_owner())
    assert await homes.claimant().unique.sweep(older_than=0) == Swept(confirmed=0, freed=0)


async def test_a_new_key_finds_old_values_and_lets_nobody_in_twice(homes: World) -> None:
    old, new = (homes.claimant(keys=TWO_KEYS, current=current) for current in TWO_KEYS)
    owner, other = homes.new_owner(), homes.new_owner()
    await old.make_own(owner, EMAIL)
    assert await new.unique.find("email", EMAIL) == owner
    with pytest.raises(Taken):
        await new.make_own(other, EMAIL)
    assert await new.make_own(owner, EMAIL) == owner
    with pytest.raises(Taken):
        await old.make_own(other, EMAIL)
    assert await homes.holders(EMAIL) == [owner]
    await new.delete(owner)
    assert await new.make_own(other, EMAIL) == other


async def test_what_is_wrong_is_said_before_anything_is_written(homes: World) -> None:
    somebody = homes.claimant()
    with pytest.raises(UnknownName, match="no kind 'phone'"):
        await somebody.unique.claim("phone", "1", homes.new_owner())
    with pytest.raises(WrongKey):
        await somebody.unique.claim("email", EMAIL, b"bytes")  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="no HMAC key 7"):
        homes.claimant(current=7)
    assert await homes.everywhere("SELECT FROM shardlib.identifier") == []
