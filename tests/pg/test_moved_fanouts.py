"""Statements for many keys, of which some move to another node while they are on their way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from shardlib import Cluster
from shardlib.errors import Refused
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
