"""One read for many keys: a query per node that owns any of them, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardlib.calls import Call, Desk, Place
from shardlib.core.keys import Key
from shardlib.core.statements import Kind, kind_of
from shardlib.deadlines import deadline_or
from shardlib.errors import Rejected
from shardlib.groups import all_of
from shardlib.ports import Record

MAX_KEYS = 10_000  # per call: an array far larger holds up every other statement of its connection


async def fetch_many(
    desk: Desk, keyspace: str, by_bucket: Mapping[int, Sequence[Key]], query: str, args: tuple[Any, ...]
) -> list[Record]:
    """Return the rows of all keys, in no order; a key whose bucket moves meanwhile is routed again by its call."""
    if kind_of(query) is not Kind.READ:
        raise Rejected("only a read can be made for many keys at once")
    if sum(map(len, by_bucket.values())) > MAX_KEYS:
        raise Rejected(f"more than {MAX_KEYS} keys in one call")
    until = deadline_or(desk.call_seconds)
    owners = desk.watcher.view.spaces[keyspace].owners
    groups: dict[str, list[int]] = {}
    for bucket in by_bucket:
        groups.setdefault(owners[bucket].name, []).append(bucket)
    calls = [
        Call(desk, Place(keyspace, buckets), "fetch", query, (_keys(by_bucket, buckets), *args), until).run()
        for buckets in groups.values()
    ]
    return [row for rows in await all_of(calls) for row in rows]


def _keys(by_bucket: Mapping[int, Sequence[Key]], buckets: Sequence[int]) -> list[Key]:
    return [key for bucket in buckets for key in by_bucket[bucket]]
