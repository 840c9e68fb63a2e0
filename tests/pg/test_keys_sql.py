"""Python and a real server put the same key into the same bucket."""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Callable, Sequence

import asyncpg
import pytest

from shardlib.core.keys import HASHES
from shardlib.testing import TestCluster

MASK = 0xFFFF
KEYS = 100_000
EDGES_INT = [0, 1, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32 - 1, 2**32, -(2**32), 2**63 - 1, -(2**63)]


def _ints(dice: random.Random) -> list[int]:
    wide = [dice.randint(-(2**63), 2**63 - 1) for _ in range(KEYS // 2)]
    narrow = [dice.randint(-(2 ** dice.randint(1, 40)), 2 ** dice.randint(1, 40)) for _ in range(KEYS // 2)]
    return EDGES_INT + wide + narrow


def _strs(dice: random.Random) -> list[str]:
    """Make strings of each length around the hash's 12-byte blocks, of one- to four-byte characters."""
    whole = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    alphabets = [[chr(code) for code in range(1, 128)], whole[:0x7FF], whole]
    made = ["".join(dice.choices(dice.choice(alphabets), k=dice.randint(0, 40))) for _ in range(KEYS)]
    return ["a" * length for length in range(100)] + ["x" * 100_000] + made


def _uuids(dice: random.Random) -> list[uuid.UUID]:
    edges = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=1), uuid.UUID(int=1 << 127)]
    return edges + [uuid.UUID(int=dice.getrandbits(128)) for _ in range(KEYS)]


@pytest.mark.parametrize("name, make", [("int", _ints), ("str", _strs), ("uuid_tail", _uuids), ("uuid_hash", _uuids)])
async def test_a_hundred_thousand_keys_agree(
    shardlib_cluster: TestCluster, name: str, make: Callable[[random.Random], Sequence[object]]
) -> None:
    each = HASHES[name]
    keys = make(random.Random(name))
    here = [each.bucket(key, MASK) for key in keys]
    query = f"SELECT {each.sql('key', MASK)} FROM unnest($1::{each.sql_type}[]) WITH ORDINALITY AS t(key, n) ORDER BY n"
    node = await asyncpg.connect(shardlib_cluster.node_admin_urls[0])
    try:
        there = [bucket for (bucket,) in await node.fetch(query, keys)]
    finally:
        await node.close()
    differing = [(key, ours, theirs) for key, ours, theirs in zip(keys, here, there, strict=True) if ours != theirs]
    assert len(keys) >= KEYS
    assert differing == []


@pytest.mark.parametrize("name", ["int", "str", "uuid_tail", "uuid_hash"])
async def test_the_expression_may_stand_in_an_index(shardlib_cluster: TestCluster, name: str) -> None:
    each = HASHES[name]
    node = await asyncpg.connect(shardlib_cluster.node_admin_urls[0])
    try:
        async with node.transaction():
            await node.execute(f'CREATE TABLE keyed ("Key" {each.sql_type} PRIMARY KEY)')
            await node.execute(f"""CREATE INDEX ON keyed ({each.sql('"Key"', 4095)})""")
            await node.execute("DROP TABLE keyed")
    finally:
        await node.close()
