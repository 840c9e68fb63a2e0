"""One contested user at a time, by the API's own protocol: whoever else wants its values is settled with first."""

from __future__ import annotations

import shardlib
from service.bulk.report import Rejection
from service.bulk.rows import Row
from service.profiles.sql import SQL
from shardlib import Cluster, Transaction, Unique
from shardlib.errors import ClaimLost, OutcomeUnknown, Taken

MAX_ROUNDS = 5  # of one row against others of the same values
_ABOUT_DATA = ("22", "23")  # SQLSTATE classes: data exception, integrity constraint violation


class Singles:
    """Creates users whose values are contested."""

    def __init__(self, cluster: Cluster, unique: Unique) -> None:
        self._cluster = cluster
        self._unique = unique

    async def create(self, row: Row, record: tuple[object, ...]) -> bool | Rejection:
        """Return True when the user was created, False when it was there, or why it can't be."""
        for _ in range(MAX_ROUNDS):
            try:
                there = await self._already_there(row)
                return await self._create(row, record) if there is None else there
            except (ClaimLost, OutcomeUnknown, shardlib.UniqueViolation):
                continue
            except Exception as error:
                if not (getattr(error, "sqlstate", None) or "").startswith(_ABOUT_DATA):
                    raise
                await self._tidy(row)
                return Rejection(row.line, "invalid", "the database refuses it")
        return Rejection(row.line, "contested", "others want the same values all the time; import the line again")

    async def _already_there(self, row: Row) -> bool | Rejection | None:
        """Return False if the user is there by this very line, a rejection if by another, None if it isn't there."""
        found = await self._cluster.shard(row.id, keyspace="users").fetchrow(SQL["get"], row.id)
        if found is None:
            return None
        await self._tidy(row)
        for entry in await self._unique.entries("email", row.user.email):
            if entry.owner == row.id:
                same = row.user.id is not None or entry.request_id == row.request_id
                return False if same else Rejection(row.line, "taken", "another line has this e-mail", "/email")
        return Rejection(row.line, "taken", "a user with this id is there, with another e-mail", "/id")

    async def _create(self, row: Row, record: tuple[object, ...]) -> bool | Rejection:
        claims = []
        for kind, value in row.values().items():
            try:
                claims.append(await self._unique.claim(kind, value, row.id, request_id=row.request_id))
            except Taken:
                await self._tidy(row)
                return Rejection(row.line, "taken", f"this {kind} belongs to another user", f"/{kind}")

        async def body(tx: Transaction) -> None:
            for claim in claims:
                await self._unique.decide(tx, claim)
            await tx.execute(SQL["import"], *record)

        await self._cluster.shard(row.id, keyspace="users").run(body)
        for claim in claims:
            await self._unique.confirm(claim)
        return True

    async def _tidy(self, row: Row) -> None:
        """Settle what this row or an earlier run claimed: it stays if the user carries the value, else it is freed."""
        for kind, value in row.values().items():
            for entry in await self._unique.entries(kind, value):
                if entry.owner == row.id:
                    await self._unique.release(kind, value, entry.token)
