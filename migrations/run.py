"""One migration on one database, so that it may be killed at any moment and run again.

With a transaction the change and its ledger row are one commit. Without one (CREATE INDEX CONCURRENTLY) the ledger says
"started" first and "finished" last; what was killed between is run again whole, which the lint makes sure is possible,
after the invalid index that such a death leaves was dropped. A lock that isn't had in time is tried again: whoever
waits for a table's lock holds up everybody behind him, so waits are short and pauses are longer.
"""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import asyncpg

from migrations import ledger
from migrations.files import Migration

MAX_TRIES = 10
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 10.0

_BUILDS_INDEX = re.compile(
    r"create (?:unique )?index concurrently if not exists (?P<index>\S+) on (?:only )?(?P<table>[^\s(]+)"
)
_INVALID = """
SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = to_regclass($1) AND c.relname = $2 AND NOT i.indisvalid
"""


async def run(connection: Any, migration: Migration) -> int:
    """Apply a migration and return how many tries it took.

    Raises the last LockNotAvailableError or DeadlockDetectedError after MAX_TRIES, any other error at once.
    """
    work = _in_transaction if migration.in_transaction else _in_steps
    for attempt in range(1, MAX_TRIES):
        try:
            await work(connection, migration)
            return attempt
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(_pause(attempt))
    await work(connection, migration)
    return MAX_TRIES


async def _in_transaction(connection: Any, migration: Migration) -> None:
    async with connection.transaction():
        await _limit(connection, migration, local=True)
        await connection.execute(migration.text)
        await ledger.write(connection, migration, finished=True)


async def _in_steps(connection: Any, migration: Migration) -> None:
    await ledger.write(connection, migration, finished=False)
    await _limit(connection, migration, local=False)
    for statement in migration.statements:
        await _drop_invalid(connection, statement.bare)
        await connection.execute(statement.text)
    await ledger.write(connection, migration, finished=True)


async def _limit(connection: Any, migration: Migration, *, local: bool) -> None:
    await connection.execute(
        "SELECT set_config('lock_timeout', $1, $3), set_config('statement_timeout', $2, $3)",
        migration.lock_timeout,
        migration.statement_timeout,
        local,
    )


async def _drop_invalid(connection: Any, bare: str) -> None:
    built = _BUILDS_INDEX.match(bare)
    if built is None:
        return
    for row in await connection.fetch(_INVALID, built["table"], built["index"].strip('"')):
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {row[0]}")


def _pause(attempt: int) -> float:
    """Return seconds to wait: between half and all of a bound that doubles."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * float(2 ** (attempt - 1)))
    return random.uniform(0.5, 1.0) * longest
