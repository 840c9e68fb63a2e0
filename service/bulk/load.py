"""Batches of users into the cluster, each batch in the steps of ``shardlib.Unique``: claim, then decide and write.

DESIGN. Claims are made batch after batch, so of two lines that want the same value the earlier one gets it. Writing
goes on while later batches claim. A row that doesn't win all its claims at once is *contested*: it waits until every
earlier batch is done, and is then settled alone, by the API's own protocol. So is every row of which the fast way
can't say what became of it: a twin's decision, a refusal by the database, a COMMIT without an answer. The fast way only
counts what it knows. Killed at any point, an import leaves claims and whole users; run again, it meets its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from service.bulk.report import Rejection
from service.bulk.rows import Row
from service.bulk.single import Singles
from service.profiles.sql import SQL
from shardlib import Cluster, Transaction
from shardlib.bulk import Bulk, BulkClaims, Part, Standing, new_token

TABLE = "users"
COLUMNS = (
    "id", "email", "name", "username", "profile", "locale", "status", "version", "created_at", "updated_at",
)  # fmt: skip
SINGLES_AT_ONCE = 8  # contested rows that are settled at the same time


@dataclass(slots=True)
class Outcome:
    """What became of a batch's rows."""

    created: list[UUID] = field(default_factory=list)
    present: int = 0
    rejections: list[Rejection] = field(default_factory=list)


@dataclass(slots=True)
class Claimed:
    """A batch after its first step."""

    token: UUID
    won: list[Row]
    contested: list[Row]
    rejections: list[Rejection]


class Loader:
    """Imports batches of rows."""

    def __init__(self, cluster: Cluster, claims: BulkClaims, singles: Singles) -> None:
        self._users = Bulk(cluster, keyspace="users")
        self._claims = claims
        self._singles = singles

    async def claim(self, rows: Sequence[Row]) -> Claimed:
        """Do the first step of a batch; call it for one batch after the other."""
        fresh, rejections = _without_doubles(rows)
        token = new_token()
        won = await self._claims.claim([wanted for row in fresh for wanted in row.wanted.values()], token)
        complete = [row for row in fresh if all(wanted.seat.value in won for wanted in row.wanted.values())]
        whole = {row.line for row in complete}
        return Claimed(token, complete, [row for row in fresh if row.line not in whole], rejections)

    async def finish(self, claimed: Claimed, earlier: Awaitable[object] | None) -> Outcome:
        """Do the other steps of a batch, its contested rows when the earlier batch is done."""
        outcome = Outcome(rejections=claimed.rejections)
        unclear = await self._write(claimed, outcome)
        if earlier is not None:
            await earlier
        await self._settle([*claimed.contested, *unclear], outcome)
        return outcome

    async def _write(self, claimed: Claimed, outcome: Outcome) -> list[Row]:
        """Decide for the claims and write the users; return the rows of which it isn't known that they are in."""
        now = datetime.now(UTC)

        async def body(tx: Transaction, rows: Sequence[Row]) -> set[str]:
            decided = await self._claims.decide(tx, {row.owner: row.bucket for row in rows}, claimed.token)
            records = [_record(row, now) for row in rows if row.owner in decided]
            await tx.copy_records_to_table(TABLE, records=records, columns=COLUMNS)
            return decided

        ordered = sorted(claimed.won, key=_by_owner)  # neighbours in the index come after each other
        parts = await self._users.each_node(ordered, lambda row: row.bucket, body)
        written = [row for part in parts for row in part.items if row.owner in (part.result or ())]
        outcome.created += [row.id for row in written]
        lines = {row.line for row in written}
        return [row for row in claimed.won if row.line not in lines]

    async def _settle(self, rows: Sequence[Row], outcome: Outcome) -> None:
        """Settle contested rows: those that an earlier run imported all at once, the others one by one."""
        if not rows:
            return
        present = await self._present(rows)
        outcome.present += len(present)
        slots = asyncio.Semaphore(SINGLES_AT_ONCE)

        async def settle(row: Row) -> None:
            async with slots:
                answer = await self._singles.create(row, _record(row, datetime.now(UTC)))
            if isinstance(answer, Rejection):
                outcome.rejections.append(answer)
            elif answer:
                outcome.created.append(row.id)
            else:
                outcome.present += 1

        async with asyncio.TaskGroup() as group:
            for row in rows:
                if row.line not in present:
                    group.create_task(settle(row))

    async def _present(self, rows: Sequence[Row]) -> set[int]:
        """Return the lines whose values all stand committed for them, and whose users are there."""
        standing = await self._claims.standing(wanted.seat for row in rows for wanted in row.wanted.values())
        mine = [row for row in rows if all(_stands(wanted.seat.value, row, standing) for wanted in row.wanted.values())]
        there = await self.existing([(row.id, row.bucket) for row in mine])
        return {row.line for row in mine if row.id in there}

    async def existing(self, ids: Iterable[tuple[UUID, int]]) -> set[UUID]:
        """Return which of these users (with their buckets) are there."""

        async def body(tx: Transaction, part: Sequence[tuple[UUID, int]]) -> set[UUID]:
            return {row["id"] for row in await tx.fetch(SQL["existing"], [user_id for user_id, _bucket in part])}

        parts = await self._users.each_node(ids, lambda entry: entry[1], body)
        return {user_id for part in parts for user_id in _found(part)}


def _by_owner(row: Row) -> str:
    return row.owner


def _without_doubles(rows: Sequence[Row]) -> tuple[list[Row], list[Rejection]]:
    """Keep the first of the rows of a batch that share an id or a unique value."""
    first: dict[str, int] = {}
    kept: list[Row] = []
    rejections: list[Rejection] = []
    for row in rows:
        keys = [*(wanted.seat.value for wanted in row.wanted.values()), row.owner]
        if first.keys().isdisjoint(keys):
            first.update(dict.fromkeys(keys, row.line))
            kept.append(row)
        else:
            rejections.append(_double(row, keys, first))
    return kept, rejections


def _double(row: Row, keys: Sequence[str], first: Mapping[str, int]) -> Rejection:
    name, line = next((name, first[key]) for name, key in zip((*row.wanted, "id"), keys, strict=True) if key in first)
    return Rejection(row.line, "taken", f"line {line} has the same {name}", f"/{name}")


def _stands(value: str, row: Row, standing: Mapping[str, Standing]) -> bool:
    entry = standing.get(value)
    if entry is None or not entry.committed or entry.owner != row.owner:
        return False
    return row.user.id is not None or entry.request_id == row.request_id


def _found(part: Part[Any, set[UUID]]) -> set[UUID]:
    if part.error is not None:
        raise part.error
    return part.result or set()


def _record(row: Row, now: datetime) -> tuple[object, ...]:
    user = row.user
    created = user.created_at or now
    updated = user.updated_at or max(created, now)
    return (
        row.owner, user.email, user.name, user.username, row.profile, user.locale, user.status, user.version, created,
        updated,
    )  # fmt: skip
