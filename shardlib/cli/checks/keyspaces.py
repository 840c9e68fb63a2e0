"""Keyspaces: do Python and this server agree on buckets, are keys spread, do rows lie where they belong?"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from uuid import UUID

from shardlib.cli.checks.findings import Finding, Row, error, names, warning
from shardlib.core.keys import Key, hash_named
from shardlib.core.topology import Keyspace, Topology
from shardlib.errors import NodeUnavailable
from shardlib.pg.inspect import Look
from shardlib.sql import quote_identifier

SAMPLES = 200
SAMPLED_PAGES = 400  # of a table, for its keys' spread: some 20,000 keys
FEWEST_KEYS = 200  # that say anything about spread
SIGMAS = 10.0  # from an even spread: chance alone never gets there
_PAGE_BYTES = 8192
_LETTERS = "abcäß0 9-_@.😀漢\u0301"


def judge_keyspaces(where: str, known: Mapping[str, Row], topology: Topology) -> Iterator[Finding]:
    """Judge the node's keyspaces against the catalog's."""
    wanted = {space.name: (space.hash, space.buckets) for space in topology.keyspaces.values()}
    if missing := sorted(wanted.keys() - known.keys()):
        advice = f"run shardctl nodes add {where} again: it installs keyspaces"
        yield error(where, f"it doesn't know {', '.join(missing)}", advice)
    for name in sorted(wanted.keys() & known.keys()):
        here = (known[name]["hash"], known[name]["buckets"])
        if wanted[name] != here:
            advice = "rows would be taken for another bucket's: don't move anything, restore the right catalog"
            yield error(where, f"keyspace {name} is {here} here and {wanted[name]} in the catalog", advice)


async def check_hashes(where: str, look: Look, topology: Topology, known: Mapping[str, Row]) -> list[Finding]:
    """Compare the buckets of some keys as Python and as the server compute them, by the text stored there."""
    findings = []
    for space in topology.keyspaces.values():
        expressions = {hash_named(space.hash).sql("%s", space.mask)}
        if space.name in known:
            expressions.add(known[space.name]["bucket_sql"])
        for expression in sorted(expressions):
            findings += await _compare(where, look, space, expression)
    return findings


async def _compare(where: str, look: Look, space: Keyspace, expression: str) -> list[Finding]:
    hashing = hash_named(space.hash)
    keys = sample(hashing.key_type, random.Random(space.name))
    query = (
        f"SELECT {expression.replace('%s', 'k.key')} AS bucket"
        f" FROM unnest($1::{hashing.sql_type}[]) WITH ORDINALITY AS k (key, n) ORDER BY n"
    )
    advice = (
        f"move nothing; shardlib.keyspace should say {hashing.sql('%s', space.mask)}: shardctl nodes add {where} ... "
        "installs that. If it does, is the server big-endian?"
    )
    try:
        theirs = [row["bucket"] for row in await look.rows(query, keys)]
    except NodeUnavailable as reason:
        return [error(where, f"the buckets of {space.name} can't be computed there: {reason}", advice)]
    wrong = sum(hashing.bucket(key, space.mask) != bucket for key, bucket in zip(keys, theirs, strict=True))
    if not wrong:
        return []
    return [error(where, f"{wrong} of {SAMPLES} sample keys of {space.name} are in another bucket there", advice)]


def sample(key_type: type, chance: random.Random) -> list[Key]:
    """Return some keys of a type."""
    if key_type is int:
        return [chance.randrange(-(2**63), 2**63) >> chance.randrange(63) for _ in range(SAMPLES)]
    if key_type is UUID:
        return [UUID(int=chance.getrandbits(128)) for _ in range(SAMPLES)]
    return ["".join(chance.choices(_LETTERS, k=chance.randrange(40))) for _ in range(SAMPLES)]


async def check_spread(where: str, look: Look, topology: Topology, tables: Iterable[Row]) -> list[Finding]:
    """Sample keys of tables whose bucket is the tail of a UUID: are those bits random?"""
    findings: list[Finding] = []
    for table, space in _sharded(tables, topology):
        if space.hash == "uuid_tail":
            percent = 100 * min(1.0, SAMPLED_PAGES * _PAGE_BYTES / max(1, table["bytes"]))
            source = f"{table['table_name']} TABLESAMPLE SYSTEM ({percent:.6f})"
            counts = await _count(look, space, table["key_column"], source)
            mine = [counts.get(bucket, 0) for bucket, owner in enumerate(space.owners) if owner == where]
            findings += judge_spread(where, table["table_name"], mine)
    return findings


def judge_spread(where: str, table: str, counts: Sequence[int]) -> Iterator[Finding]:
    """Judge by the chi-square statistic whether so many keys per bucket can be chance.

    For even buckets its mean is the number of buckets less one, its variance twice that.
    """
    total = sum(counts)
    if total < FEWEST_KEYS or len(counts) < 2:
        return
    fair, free = total / len(counts), len(counts) - 1
    if sum((count - fair) ** 2 for count in counts) / fair > free + SIGMAS * math.sqrt(2 * free):
        used = sum(count > 0 for count in counts)
        what = (
            f"keys of {table} aren't spread: {total:,} sampled ones lie in {used:,} of {len(counts):,} buckets, "
            f"{max(counts):,} in the fullest"
        )
        yield warning(where, what, "uuid_tail needs UUIDs whose last bits are random (versions 4, 7): use uuid_hash")


async def check_rows(
    where: str, look: Look, topology: Topology, tables: Iterable[Row], foreign: Iterable[Row]
) -> list[Finding]:
    """Count rows of buckets that the node doesn't own: reads every attached table.

    Buckets on the move or on the node's foreign list may have rows here rightly.
    """
    excused = {(row["keyspace"], row["bucket"]) for row in foreign}
    findings: list[Finding] = []
    for table, space in _sharded(tables, topology):
        counts = await _count(look, space, table["key_column"], table["table_name"])
        strays = {
            bucket: count
            for bucket, count in counts.items()
            if bucket is None
            or (space.owners[bucket] != where and bucket not in space.moving and (space.name, bucket) not in excused)
        }
        findings += judge_strays(where, table["table_name"], strays, space)
    return findings


def judge_strays(where: str, table: str, strays: Mapping[int | None, int], space: Keyspace) -> Iterator[Finding]:
    """Judge rows that nobody finds here, by bucket."""
    if not strays:
        return
    owners = {at: "the key is NULL" if at is None else f"{at} of {space.owners[at]}" for at in strays}
    listed = ", ".join(names(owners[at] for at in sorted(strays, key=lambda at: -1 if at is None else at)))
    advice = (
        "no request finds them here; a move left them, or somebody wrote past the library: compare them with their "
        "owner's rows, then insert or delete"
    )
    rows = sum(strays.values())
    yield error(where, f"{rows:,} rows of {table} are in buckets that it doesn't own: {listed}", advice)


def _sharded(tables: Iterable[Row], topology: Topology) -> Iterator[tuple[Row, Keyspace]]:
    for table in tables:
        if table["there"] and table["keyspace"] in topology.keyspaces:
            yield table, topology.keyspaces[table["keyspace"]]


async def _count(look: Look, space: Keyspace, key_column: str, source: str) -> dict[int | None, int]:
    bucket = hash_named(space.hash).sql(quote_identifier(key_column), space.mask)
    rows = await look.rows(f"SELECT {bucket} AS bucket, count(*) AS rows FROM {source} GROUP BY 1", seconds=None)
    return {row["bucket"]: row["rows"] for row in rows}
