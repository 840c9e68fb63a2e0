"""Statements for many keys, of which some move to another node while they are on their way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from shardlib import Cluster
from shardlib.bulk import Bulk
from shardlib.core.mine import fill
from shardlib.errors import Refused
from shardlib.scatter import Scatter
from shardlib.testing.databases import TestCluster
from tests.pg.stage import KEYSPACE, Stage, epoch_is, keys_of
from tests.support.waiting import wait_for

QUERY = "SELECT id, version FROM items_numbers WHERE id = ANY($1)"
ALL = "SELECT id, version FROM items_numbers WHERE /*mine*/"


@dataclass(frozen=True)
class Moved:
    """Two keys of one node, as the client still believes; the second (or both) lives elsewhere by now."""

    cluster: Cluster
    stays: int
    moves: int


@pytest.fixture
async def stage(stocked: TestCluster) -> Stage:
    return Stage(stocked)


@pytest.fixture(params=["first", "last"])
async def moved(stage: Stage, request: pytest.FixtureRequest) -> AsyncIterator[Moved]:
    """Move one bucket behind the client's back, the first or the last in the order of buckets."""
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=600.0) as cluster:
        source, target = stage.databases.node_names[:2]
        keys = sorted(keys_of(cluster, source, 20), key=lambda key: cluster.where(key).bucket)
        moves, stays = (keys[0], keys[-1]) if request.param == "first" else (keys[-1], keys[0])
        for key in (moves, stays):
            await stage.put(source, key, 1)
        bucket = cluster.where(moves).bucket
        await epoch_is(cluster, await stage.flag(bucket))
        await stage.disown(source, bucket)
        await stage.put(target, moves, 2)
        await stage.gained(target, bucket, await stage.give(bucket, target, notify=False))
        yield Moved(cluster, stays, moves)


async def test_each_key_is_read_where_it_lives_now(moved: Moved) -> None:
    rows = await moved.cluster.fetch_many(QUERY, [moved.stays, moved.moves])
    assert sorted((row["id"], row["version"]) for row in rows) == sorted([(moved.stays, 1), (moved.moves, 2)])


@pytest.mark.parametrize("limit", [None, 100])
async def test_a_fan_out_never_misses_or_doubles_a_row(moved: Moved, limit: int | None) -> None:
    expected = sorted([(moved.stays, 1), (moved.moves, 2)])
    with pytest.raises(Refused):
        await moved.cluster.scatter(ALL, limit=limit).fetch()
    answers = []

    async def answered() -> bool:
        """Try again, as the error says."""
        try:
            answers.append(await moved.cluster.scatter(ALL, limit=limit).fetch())
        except Refused:
            return False
        return True

    await wait_for(answered)
    assert sorted((row["id"], row["version"]) for row in answers[0]) == expected


# -- a bucket that is switched between the answers of two nodes

Rows = list[tuple[int, int]]
FanOut = Callable[[Cluster], Awaitable[Rows]]


async def in_batches(cluster: Cluster) -> Rows:
    return [(row["id"], row["version"]) async for row in cluster.scatter(ALL)]


async def whole(cluster: Cluster) -> Rows:
    return [(row["id"], row["version"]) for row in await cluster.scatter(ALL, limit=100).fetch()]


async def copied(cluster: Cluster) -> Rows:
    text = b"".join([chunk async for chunk in Bulk(cluster, keyspace=KEYSPACE).copy_out(ALL, key_column="id")])
    return [
        (int(key), int(version))
        for key, _, version in (line.partition("\t") for line in text.decode().split("\n") if line)
    ]


fan_outs = pytest.mark.parametrize("fan_out", [in_batches, whole, copied])


@fan_outs
async def test_a_bucket_that_is_switched_between_two_answers_comes_once(stage: Stage, fan_out: FanOut) -> None:
    """The source answered while it still was the owner; the target, when it had become that."""
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=600.0) as cluster:
        source, target = stage.databases.node_names[:2]
        key = keys_of(cluster, source)[0]
        await stage.put(source, key, 1)
        await stage.put(target, key, 2)
        epoch = cluster.topology.epoch
        await stage.gained(target, cluster.where(key).bucket, epoch + 1)
        assert await fan_out(cluster) == [(key, 1)]


@fan_outs
async def test_what_was_gained_before_counts(stage: Stage, fan_out: FanOut) -> None:
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        source, target = stage.databases.node_names[:2]
        key = keys_of(cluster, source)[0]
        bucket = cluster.where(key).bucket
        await stage.put(target, key, 2)
        epoch = await stage.give(bucket, target)
        await stage.gained(target, bucket, epoch)
        await epoch_is(cluster, epoch)
        assert await fan_out(cluster) == [(key, 2)]


@fan_outs
async def test_a_bucket_that_leaves_and_comes_back_meanwhile_is_not_missed_in_silence(
    stage: Stage, fan_out: FanOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        source, target = stage.databases.node_names[:2]
        key = keys_of(cluster, source)[0]
        bucket = cluster.where(key).bucket
        await stage.put(source, key, 1)

        async def there_and_back() -> None:
            await stage.give(bucket, target)
            epoch = await stage.give(bucket, source)
            await stage.gained(source, bucket, epoch)
            await epoch_is(cluster, epoch)

        _before(monkeypatch, Scatter, "_filled", there_and_back)
        _before(monkeypatch, Bulk, "_copy_node", there_and_back)
        with pytest.raises(Refused):
            await fan_out(cluster)
        monkeypatch.undo()
        assert await fan_out(cluster) == [(key, 1)]


def _before(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, first: Callable[[], Awaitable[None]]) -> None:
    """Do something else first, once, where the fan-out has taken its snapshot and has asked no node yet."""
    original = getattr(owner, method)
    doing: list[asyncio.Future[None]] = []

    async def after(*args: Any) -> Any:
        if not doing:
            doing.append(asyncio.ensure_future(first()))
        await doing[0]
        return await original(*args)

    monkeypatch.setattr(owner, method, after)


async def test_no_row_pays_for_the_mark_while_nothing_moves(stage: Stage) -> None:
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        source, topology = stage.databases.node_names[0], cluster.topology
        await stage.put(source, keys_of(cluster, source)[0], 1)
        await stage.gained(source, 5, topology.epoch)
        filled = fill(ALL, topology.keyspaces[KEYSPACE], "id", topology.epoch)
        async with stage.admin(source) as node:
            rows = await node.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) {filled}")
    plan = [row[0].strip() for row in rows]
    for_statement, for_rows = (
        [following for line, following in pairwise(plan) if line.startswith(kind)] for kind in ("InitPlan", "SubPlan")
    )
    assert len(for_statement) == 2
    assert not any("never executed" in line for line in for_statement)
    assert len(for_rows) > 1
    assert all("never executed" in line for line in for_rows)
