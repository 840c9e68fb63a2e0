"""Point statements on one Postgres with asyncpg alone: through its pool, and on connections that are never given back.

``Held`` is the fastest that asyncpg can be: each worker owns a connection and statements that are already prepared.
Both get the node for nothing: only keys that live on it are asked for. Passwords come from PGPASSFILE.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import asyncpg

READ = "SELECT id, name, email FROM bench_item WHERE id = $1"
UPDATE = "UPDATE bench_item SET visits = visits + 1 WHERE id = $1"
INSERT = "INSERT INTO bench_item (id, name, email) VALUES ($1, $2, $3)"
READ_MANY = "SELECT id, name, email FROM bench_item WHERE id = ANY($1)"

Call = Callable[..., Awaitable[Any]]


class Pooled:
    """asyncpg's pool, every connection opened beforehand and none reopened while we measure."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @classmethod
    async def open(cls, url: str, workers: int) -> Pooled:
        return cls(await asyncpg.create_pool(
            url, min_size=workers, max_size=workers,
            max_inactive_connection_lifetime=0, max_queries=10**9,
        ))

    def calls(self, query: str, _worker: int) -> Call:
        """Return what runs the statement, with its arguments."""
        verb = self._pool.fetchrow if query is READ else self._pool.execute
        return partial(verb, query)

    async def close(self) -> None:
        await self._pool.close()


class Held:
    """A connection for each worker, with each statement prepared."""

    def __init__(self, statements: list[dict[str, Any]], connections: list[asyncpg.Connection]) -> None:
        self._statements = statements
        self._connections = connections

    @classmethod
    async def open(cls, url: str, workers: int) -> Held:
        connections = [await asyncpg.connect(url) for _ in range(workers)]
        queries = (READ, UPDATE, INSERT, READ_MANY)
        statements = [{query: await each.prepare(query) for query in queries} for each in connections]
        return cls(statements, connections)

    def calls(self, query: str, worker: int) -> Call:
        """Return what runs the worker's statement, with its arguments."""
        statement = self._statements[worker][query]
        verb: Call = statement.fetch if query is READ_MANY else statement.fetchrow
        return verb

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
