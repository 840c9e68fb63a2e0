"""One connection to look at a server through, for ``shardctl doctor``: outside of all pools, read only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from shardlib.errors import NodeUnavailable
from shardlib.pg.errors import Record, refused_to_connect
from shardlib.pg.link import open_connection

OPEN_SECONDS = 3.0
ANSWER_SECONDS = 5.0


class Look:
    """A connection that only reads."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def rows(self, query: str, *args: Any, seconds: float | None = ANSWER_SECONDS) -> list[Record]:
        """Return the rows of a statement; NodeUnavailable when the server refuses it or doesn't answer in time."""
        try:
            return await self._connection.fetch(query, *args, timeout=seconds)  # type: ignore[no-any-return]
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise NodeUnavailable(refused_to_connect(error), node="") from error

    async def row(self, query: str, *args: Any) -> Any:
        """Return the first row, None if there is none."""
        rows = await self.rows(query, *args)
        return rows[0] if rows else None


@asynccontextmanager
async def looking_at(url: str, password: str | None) -> AsyncIterator[Look]:
    """Open a connection for reading; NodeUnavailable says in one line why there is none."""
    try:
        connection = await open_connection(url, password, "shardctl doctor", OPEN_SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise NodeUnavailable(refused_to_connect(error), node="") from error
    try:
        look = Look(connection)
        await look.rows("SET default_transaction_read_only = on")
        yield look
    finally:
        connection.terminate()  # nothing is under way, and a server that hangs isn't waited for
