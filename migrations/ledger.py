"""The ledger of a database: which migrations it has, with their checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from migrations.files import Migration
from migrations.plan import Applied

_SCHEMA = (Path(__file__).parent / "ledger.sql").read_text(encoding="utf-8")
_WRITE = """
INSERT INTO migrations.ledger (number, name, checksum, finished, finished_at)
VALUES ($1, $2, $3, $4, CASE WHEN $4 THEN clock_timestamp() END)
ON CONFLICT (number) DO UPDATE SET name = $2, checksum = $3, finished = $4, finished_at = excluded.finished_at
"""


async def create(connection: Any) -> None:
    """Make the ledger if it isn't there."""
    await connection.execute(_SCHEMA)


async def read(connection: Any) -> tuple[Applied, ...]:
    """Return what is applied, by number; nothing when there is no ledger yet."""
    if await connection.fetchval("SELECT to_regclass('migrations.ledger')") is None:
        return ()
    rows = await connection.fetch("SELECT number, name, checksum, finished FROM migrations.ledger ORDER BY number")
    return tuple(Applied(**row) for row in rows)


async def write(connection: Any, migration: Migration, *, finished: bool) -> None:
    """Put a migration into the ledger, in the transaction that it ran in if it has one."""
    await connection.execute(_WRITE, migration.number, migration.name, migration.checksum, finished)
