"""Rows and unique values in large numbers: all of them, once, on their own nodes, whatever happens on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

import shardlib
from shardlib import Cluster, Transaction, Unique
from shardlib.bulk import Bulk, BulkClaims, new_token
from shardlib.bulk import rows as bulk_rows
from shardlib.errors import NotColocated, OutcomeUnknown, Refused, Taken, WrongKey
from shardlib.sql import load
from shardlib.testing.databases import TestCluster
from shardlib.unique import Swept
from shardlib.watch import now
from tests.pg.conftest import SPACES, Space
from tests.pg.stage import Stage, keys_of
from tests.support.waiting import wait_for

COLUMNS = ("id", "note")
NUMBERS = SPACES[0]
EXPORT = "SELECT id, note FROM items_numbers WHERE /*mine:id*/"
FENCE = """
CREATE FUNCTION shardlib.fence() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE 'bucket {bucket} has moved' USING ERRCODE = 'SH001'; END $$;
CREATE TRIGGER zz_fence BEFORE INSERT ON items_numbers FOR EACH ROW
    WHEN ((hashint8extended(NEW.id, 0) & 4095) = {bucket}) EXECUTE FUNCTION shardlib.fence();
"""


async def stream(rows: Iterable[Sequence[Any]]) -> AsyncIterator[Sequence[Any]]:
    for row in rows:
        yield row


async def copy(cluster: Cluster, space: Space, rows: Iterable[Sequence[Any]]) -> tuple[int, list[Sequence[Any]]]:
    """Copy rows in; return how many were taken, and the others."""
    others: list[Sequence[Any]] = []
    bulk = Bulk(cluster, keyspace=space.keyspace)
    taken = await bulk.copy_in(
        space.table, COLUMNS, stream(rows), key="id", refused=lambda row, _error: others.append(row)
    )
    return taken, others


async def everything(cluster: Cluster, space: Space) -> dict[Any, str]:
    rows = cluster.scatter(f"SELECT id, note FROM {space.table} WHERE /*mine:id*/", keyspace=space.keyspace)
    return {row["id"]: row["note"] async for row in rows}


# -- COPY in


async def test_rows_are_copied_to_their_homes(
    stocked: TestCluster, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_rows, "BATCH_ROWS", 50)
    wanted = {space.make(number): f"note {number}" for number in range(1000)}
    async with stocked.connect() as cluster:
        assert await copy(cluster, space, wanted.items()) == (1000, [])
        for key in list(wanted)[:50]:  # a read by key finds it, so it lies where it belongs
            home = cluster.shard(key, keyspace=space.keyspace)
            assert await home.fetchval(f"SELECT note FROM {space.table} WHERE id = $1", key) == wanted[key]
        assert await everything(cluster, space) == wanted


async def test_refused_rows_are_found_and_the_others_go_in(stocked: TestCluster, space: Space) -> None:
    there = space.make(7)
    rows = [(space.make(number), f"note {number}") for number in range(500)]
    rows[100] = (space.make(99), "twice in one batch")
    rows[200] = (space.make(200), None)  # type: ignore[assignment]
    rows[300] = (space.make(300), 5)  # type: ignore[assignment]  # asyncpg can't encode it
    async with stocked.connect() as cluster:
        await cluster.shard(there, keyspace=space.keyspace).execute(
            f"INSERT INTO {space.table} (id) VALUES ($1)", there
        )
        taken, others = await copy(cluster, space, rows)
        assert taken == 496
        assert Counter(row[0] for row in others) == Counter(space.make(number) for number in (7, 99, 200, 300))


async def test_a_key_of_another_type_is_said_before_anything_is_sent(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        with pytest.raises(ExceptionGroup) as failure:
            await copy(cluster, NUMBERS, [("x", "")])
        assert failure.group_contains(WrongKey)


async def test_a_slow_node_slows_its_source_down(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_rows, "BATCH_ROWS", 10)
    drawn = 0

    async def source(keys: list[int]) -> AsyncIterator[tuple[int, str]]:
        nonlocal drawn
        for key in keys:
            drawn += 1
            yield key, ""

    async with stage.databases.connect(call_seconds=20) as cluster:
        keys = keys_of(cluster, "node1", 400)
        async with stage.admin("node1") as node:
            held = node.transaction()
            await held.start()
            await node.execute("LOCK TABLE items_numbers IN SHARE MODE")
            bulk = Bulk(cluster, keyspace="numbers")
            job = asyncio.create_task(
                bulk.copy_in("items_numbers", COLUMNS, source(keys), key="id", refused=lambda _row, _error: None)
            )
            await asyncio.sleep(0.2)  # not to be right: the longer, the more a source without bounds would have given
            most = 10 * (bulk_rows.BATCHES_WAITING + 2)
            assert 0 < drawn <= most
            await held.rollback()
        assert await job == 400


# -- moves


async def test_rows_that_meet_a_fence_follow_their_bucket(stage: Stage) -> None:
    async with stage.databases.connect() as cluster:
        keys = keys_of(cluster, "node1", 300)
        bucket = cluster.where(keys[10], keyspace="numbers").bucket
        moved = [key for key in keys if cluster.where(key, keyspace="numbers").bucket == bucket]
        async with stage.admin("node1") as node:
            await node.execute(FENCE.format(bucket=bucket))
        job = asyncio.create_task(copy(cluster, NUMBERS, [(key, "") for key in keys]))
        await stage.give(bucket, "node2")
        assert await job == (300, [])
        assert [await stage.read("node1", key) for key in moved] == [None] * len(moved)
        assert [await stage.read("node2", key) for key in moved] == [1] * len(moved)
        assert set(await everything(cluster, NUMBERS)) == set(keys)


async def test_an_answer_of_commit_that_is_lost_is_said_to_be_unknown(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(tx: Any) -> None:
        tx._loan.pool.drop(tx._loan.link)
        raise tx._unknown("the connection was lost at COMMIT")

    monkeypatch.setattr(Transaction, "_commit", lost)
    async with stage.databases.connect() as cluster:
        keys = keys_of(cluster, "node1", 3)
        bulk = Bulk(cluster, keyspace="numbers")

        async def body(tx: Transaction, part: Sequence[int]) -> None:
            await tx.copy_records_to_table("items_numbers", records=[(key, "") for key in part], columns=COLUMNS)

        parts = await bulk.each_node(keys, bulk.bucket, body)
        assert [(sorted(part.items), type(part.error)) for part in parts] == [(keys, OutcomeUnknown)]


# -- COPY out


async def test_a_copy_out_gives_each_row_once(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        await copy(cluster, NUMBERS, [(number, f"tab\tback\\slash\n{number}") for number in range(3000)])
        chunks = [chunk async for chunk in Bulk(cluster, keyspace="numbers").copy_out(EXPORT)]
        lines = b"".join(chunks).split(b"\n")
        assert sorted(lines[:-1]) == sorted(b"%d\ttab\\tback\\\\slash\\n%d" % (n, n) for n in range(3000))
        assert lines[-1] == b""
        assert all(chunk.endswith(b"\n") for chunk in chunks)


async def test_a_copy_out_leaves_out_rows_that_lie_on_a_node_without_being_owned(stage: Stage) -> None:
    async with stage.databases.connect() as cluster:
        key = keys_of(cluster, "node1")[0]
        bucket = cluster.where(key, keyspace="numbers").bucket
        await stage.put("node1", key, 1)
        await stage.put("node2", key, 1)
        await stage.disown("node2", bucket)
        chunks = [chunk async for chunk in Bulk(cluster, keyspace="numbers").copy_out(EXPORT)]
        assert b"".join(chunks) == b"%d\t\n" % key


async def test_a_copy_out_during_which_buckets_moved_is_refused(stage: Stage) -> None:
    async with stage.databases.connect(lease_seconds=0.2) as cluster:
        await copy(cluster, NUMBERS, [(number, "x" * 3000) for number in range(6000)])
        bucket = cluster.where(0, keyspace="numbers").bucket
        owner = cluster.where(0, keyspace="numbers").node
        out = Bulk(cluster, keyspace="numbers").copy_out(EXPORT)
        await anext(out)
        await stage.disown(owner, bucket)
        begun = cluster._desk.watcher.view
        await stage.give(bucket, stage.other_than(owner))
        await wait_for(lambda: now() > begun.fresh_until)  # as every move waits before it fences
        with pytest.raises(Refused):
            async for _chunk in out:
                pass


async def test_a_copy_out_needs_the_mark(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        for query in ("SELECT id FROM items_numbers", "SELECT id FROM items_numbers WHERE /*mine*/"):
            with pytest.raises(NotColocated):
                await anext(Bulk(cluster, keyspace="numbers").copy_out(query))


async def test_a_copy_out_that_is_left_early_leaves_nothing_behind(stocked: TestCluster) -> None:
    async with stocked.connect(pool_size=1) as cluster:
        await copy(cluster, NUMBERS, [(number, "x" * 1000) for number in range(6000)])
        for _ in range(3):
            out = Bulk(cluster, keyspace="numbers").copy_out(EXPORT)
            await anext(out)
            await out.aclose()
        assert len(await everything(cluster, NUMBERS)) == 6000  # with the only connection of each node


# -- unique values

KEYS = {1: b"the first key"}
TWO_KEYS = {**KEYS, 2: b"the second key"}
HELD = {"email": "SELECT note FROM items_users WHERE id = $1"}


class Signups:
    """Owners with e-mails, in bulk."""

    def __init__(self, cluster: Cluster, keys: dict[int, bytes] = KEYS, current: int = 1) -> None:
        self.claims = BulkClaims(cluster, keys=keys, current=current)
        self.unique = Unique(cluster, held=HELD, keys=keys, current=current)
        self.users = Bulk(cluster, keyspace="users")
        self.token = new_token()

    async def claim(self, emails: dict[str, UUID]) -> set[str]:
        """Do the first step; return the e-mails that were won."""
        hidden = {self.claims.hide("email", email): email for email in emails}
        seats = self.claims.seats(list(hidden))
        others = self.claims.others([("email", email) for email in hidden.values()])
        wanted = [
            shardlib.bulk.Wanted(seat, str(emails[hidden[seat.value]]), None, other)
            for seat, other in zip(seats, others, strict=True)
        ]
        return {hidden[value] for value in await self.claims.claim(wanted, self.token)}

    async def write(self, emails: dict[str, UUID]) -> set[str]:
        """Do the second step; return the owners whose rows are in."""

        async def body(tx: Transaction, part: Sequence[tuple[str, UUID]]) -> set[str]:
            owners = {str(owner): self.users.bucket(owner) for _email, owner in part}
            decided = await self.claims.decide(tx, owners, self.token)
            records = [(owner, email) for email, owner in part if str(owner) in decided]
            await tx.copy_records_to_table("items_users", records=records, columns=COLUMNS)
            return decided

        parts = await self.users.each_node(emails.items(), lambda pair: self.users.bucket(pair[1]), body)
        assert [part.error for part in parts] == [None] * len(parts)
        return {owner for part in parts for owner in part.result or ()}


def signups(count: int, tag: str = "") -> dict[str, UUID]:
    return {f"user{number}{tag}@example.com": uuid4() for number in range(count)}


async def test_the_steps_in_bulk_give_what_unique_finds(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        some, emails = Signups(cluster), signups(200)
        assert await some.claim(emails) == set(emails)
        assert await some.write(emails) == set(map(str, emails.values()))
        for email, owner in list(emails.items())[:20]:
            assert await some.unique.find("email", email.upper()) == owner
            with pytest.raises(Taken):
                await some.unique.claim("email", email, uuid4())
        assert await some.unique.sweep(older_than=0) == Swept(confirmed=0, freed=0)


async def test_of_two_imports_at_a_time_one_gets_each_value(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        one, two = Signups(cluster), Signups(cluster)
        first, second = signups(500), signups(500)
        won = await asyncio.gather(one.claim(first), two.claim(second))
        assert won[0] | won[1] == set(first)
        assert not won[0] & won[1]


async def test_a_contender_between_claim_and_decision_is_not_overwritten(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        some, emails = Signups(cluster), signups(20)
        await some.claim(emails)
        contested, winner = next(iter(emails)), uuid4()
        claim = await some.unique.claim("email", contested, winner)
        written = await some.write(emails)
        assert written == set(map(str, emails.values())) - {str(emails[contested])}
        async with cluster.shard(winner, keyspace="users").transaction() as tx:
            await some.unique.decide(tx, claim)
            await tx.execute("INSERT INTO items_users (id, note) VALUES ($1, $2)", winner, contested)
        assert await some.unique.find("email", contested) == winner


async def test_a_value_under_another_key_is_not_won(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        old, emails = Signups(cluster), signups(10)
        await old.claim(emails)
        await old.write(emails)
        new = Signups(cluster, TWO_KEYS, current=2)
        fresh = signups(10, "x")
        assert await new.claim({**emails, **fresh}) == set(fresh)


async def test_decisions_under_an_old_token_are_refused(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        some, emails = Signups(cluster), signups(3)
        some.token = UUID(int=some.token.int - (25 * 3_600_000 << 80))
        assert await some.claim(emails) == set(emails)
        assert await some.write(emails) == set()


async def test_a_claim_whose_answer_was_lost_is_found_to_be_won(
    stocked: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stocked.connect() as cluster:
        some, emails = Signups(cluster), signups(50)
        attempt, lost = some.claims._try, 0

        async def losing(wanted: Any, token: UUID) -> Any:
            nonlocal lost
            won, unknown = await attempt(wanted, token)
            lost += 1
            return (set(), [*wanted]) if lost == 1 else (won, unknown)

        monkeypatch.setattr(some.claims, "_try", losing)
        assert await some.claim(emails) == set(emails)


async def test_bulk_look_ups_use_the_index_also_when_the_table_was_small(stage: Stage) -> None:
    prepared, arguments = load("bulk")["standing"].replace("$1::text", "$1"), "('a\x1fb')"
    async with stage.admin("node1") as node:
        await node.execute("ANALYZE shardlib.identifier")
        await node.execute(f"PREPARE bulk (text) AS {prepared}")
        await node.execute("SET plan_cache_mode = force_generic_plan")
        assert "Seq Scan" in await plan(node, arguments)  # of an empty table, and kept
        await node.execute(
            "INSERT INTO shardlib.identifier (value, owner, token, state) "
            "SELECT 'email:1:' || md5(n::text), n, gen_random_uuid(), 'pending' FROM generate_series(1, 5000) AS n"
        )
        async with node.transaction():
            await node.execute(load("bulk")["plan_afresh"])
            afresh = await plan(node, arguments)
        assert "Index Cond: (value = ANY" in afresh, afresh
        assert "Seq Scan" not in afresh, afresh


async def plan(node: asyncpg.Connection, arguments: str) -> str:
    return "\n".join(row[0] for row in await node.fetch(f"EXPLAIN EXECUTE bulk {arguments}"))


async def test_what_a_run_leaves_that_died_is_free_for_who_wants_it(stocked: TestCluster) -> None:
    async with stocked.connect() as cluster:
        some, emails = Signups(cluster), signups(5)
        await some.claim(emails)  # and no more
        email, winner = next(iter(emails)), uuid4()
        assert await some.unique.find("email", email) is None
        claim = await some.unique.claim("email", email, winner)
        async with cluster.shard(winner, keyspace="users").transaction() as tx:
            await some.unique.decide(tx, claim)
            await tx.execute("INSERT INTO items_users (id, note) VALUES ($1, $2)", winner, email)
        assert await some.unique.find("email", email) == winner
        assert str(emails[email]) not in await some.write(emails)  # should the dead one wake
