"""Keyspaces: do Python and this server agree on buckets, do rows lie where they belong?"""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

from shardlib.cli.checks.findings import Finding, error, names
from shardlib.core.keys import Key, hash_named
from shardlib.core.topology import Keyspace, Topology
from shardlib.pg.inspect import Look
from shardlib.sql import quote_identifier

SAMPLES = 200
_LETTERS = "abcäß0 9-_@.😀漢\u0301"


async def check_hashes(where: str, look: Look, topology: Topology) -> list[Finding]:
    """Compare the buckets of some keys as Python and as the server compute them."""
    findings = []
    for space in topology.keyspaces.values():
        hashing = hash_named(space.hash)
        keys = sample(hashing.key_type, random.Random(space.name))
        expression = hashing.sql("key", space.mask)
        source = f"unnest($1::{hashing.sql_type}[]) WITH ORDINALITY AS given (key, place)"
        query = f"SELECT {expression} AS bucket FROM {source} ORDER BY place"
        theirs = [row["bucket"] for row in await look.rows(query, keys)]
        wrong = sum(hashing.bucket(key, space.mask) != bucket for key, bucket in zip(keys, theirs, strict=True))
        if wrong:
            advice = "stop writing: is the server's byte order or collation unusual? Rows would be put on wrong nodes"
            findings.append(
                error(where, f"{wrong} of {SAMPLES} keys of {space.name} are in another bucket there", advice)
            )
    return findings


def sample(key_type: type, chance: random.Random) -> list[Key]:
    """Return some keys of a type."""
    if key_type is int:
        return [chance.randrange(-(2**63), 2**63) >> chance.randrange(63) for _ in range(SAMPLES)]
    if key_type is UUID:
        return [UUID(int=chance.getrandbits(128)) for _ in range(SAMPLES)]
    return ["".join(chance.choices(_LETTERS, k=chance.randrange(40))) for _ in range(SAMPLES)]


async def check_rows(where: str, look: Look, topology: Topology, tables: list[dict[str, Any]]) -> list[Finding]:
    """Count rows of buckets that the node doesn't own: reads every attached table."""
    found: dict[str, int] = {}
    for entry in tables:
        space = topology.keyspaces.get(entry["keyspace"])
        if space is not None:
            count = await _strays(where, look, space, entry)
            found.update({entry["table_name"]: count} if count else {})
    if not found:
        return []
    listed = ", ".join(names(f"{count:,} in {table}" for table, count in found.items()))
    advice = (
        "nobody reads them by key; they are left by a move, or were written past the library: look, then delete them"
    )
    return [error(where, f"rows of buckets that it doesn't own: {listed}", advice)]


async def _strays(where: str, look: Look, space: Keyspace, entry: dict[str, Any]) -> int:
    """Count rows; those of buckets on the move may be there rightly and don't count."""
    here = [bucket for bucket, owner in enumerate(space.owners) if owner == where or bucket in space.moving]
    bucket = hash_named(space.hash).sql(quote_identifier(entry["key_column"]), space.mask)
    query = f"SELECT count(*) AS strays FROM {entry['table_name']} WHERE NOT {bucket} = ANY($1)"
    rows = await look.rows(query, here, seconds=None)
    return int(rows[0]["strays"])
