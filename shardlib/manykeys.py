"""One read for many keys: a query per node that owns any of them, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shardlib.calls import Call, Desk, Parted, Place
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
    """Return the rows of all keys, in no order; keys whose buckets move meanwhile are grouped and asked for again."""
    if kind_of(query) is not Kind.READ:
        raise Rejected("only a read can be made for many keys at once")
    if sum(map(len, by_bucket.values())) > MAX_KEYS:
        raise Rejected(f"more than {MAX_KEYS} keys in one call")
    return await _ManyKeys(desk, keyspace, by_bucket, query, args).fetch(list(by_bucket))


class _ManyKeys:
    """One read for keys of many buckets."""

    def __init__(
        self, desk: Desk, keyspace: str, by_bucket: Mapping[int, Sequence[Key]], query: str, args: tuple[Any, ...]
    ) -> None:
        self._desk = desk
        self._keyspace = keyspace
        self._by_bucket = by_bucket
        self._query = query
        self._args = args
        self._until = deadline_or(desk.call_seconds)

    async def fetch(self, buckets: Sequence[int]) -> list[Record]:
        """Return the rows of these buckets, by a query per node."""
        groups = self._by_node(buckets)
        return _together(await all_of([self._fetch_from_one(group) for group in groups]))

    async def _fetch_from_one(self, buckets: Sequence[int]) -> list[Record]:
        try:
            return await self._call(buckets).run()  # type: ignore[no-any-return]
        except Parted:
            groups = self._by_node(buckets)
            return _together(await all_of([self._fetch_again(group) for group in groups]))

    async def _fetch_again(self, buckets: Sequence[int]) -> list[Record]:
        return await self._call(buckets).beware().run()  # type: ignore[no-any-return]

    def _call(self, buckets: Sequence[int]) -> Call:
        keys = [key for bucket in buckets for key in self._by_bucket[bucket]]
        return Call(self._desk, Place(self._keyspace, buckets), "fetch", self._query, (keys, *self._args), self._until)

    def _by_node(self, buckets: Sequence[int]) -> list[list[int]]:
        owners = self._desk.watcher.view.spaces[self._keyspace].owners
        groups: dict[str, list[int]] = {}
        for bucket in buckets:
            groups.setdefault(owners[bucket].name, []).append(bucket)
        return list(groups.values())


def _together(answers: Sequence[Sequence[Record]]) -> list[Record]:
    return [row for rows in answers for row in rows]
