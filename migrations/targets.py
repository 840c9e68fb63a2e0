"""The databases to migrate, and a session on one of them.

The catalog is found by ``SHARDLIB_CATALOG_URL``, the nodes by the catalog. Sessions are the administrator's:
``SHARDLIB_ADMIN_USER`` (shardlib_admin) with ``SHARDLIB_ADMIN_PASSWORD`` or ``SHARDLIB_ADMIN_PASSWORD_FILE``; without
them libpq's own sources apply (PGPASSFILE).
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from migrations.files import Refused

LOCK = int.from_bytes(b"migrate!")  # the advisory lock of a migration, one per database
LOCK_SECONDS = 60.0
POLL_SECONDS = 0.2
CONNECT_SECONDS = 10.0


class Kind(enum.Enum):
    """Which directory of migrations a database gets."""

    CATALOG = "catalog"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Target:
    """A database, by the name of its node or "catalog"."""

    name: str
    kind: Kind
    url: str


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the databases as the administrator."""

    catalog_url: str
    user: str
    password: str | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Access:
        """Read it; Refused when there is no catalog's URL."""
        url = environment.get("SHARDLIB_CATALOG_URL")
        if not url:
            raise Refused("SHARDLIB_CATALOG_URL isn't set: say where the catalog is")
        password = environment.get("SHARDLIB_ADMIN_PASSWORD")
        if file := environment.get("SHARDLIB_ADMIN_PASSWORD_FILE"):
            password = Path(file).read_text(encoding="utf-8").strip()
        return cls(url, environment.get("SHARDLIB_ADMIN_USER", "shardlib_admin"), password)

    @property
    def catalog(self) -> Target:
        return Target("catalog", Kind.CATALOG, self.catalog_url)

    async def nodes(self) -> tuple[Target, ...]:
        """Return the nodes that the catalog knows, by name."""
        async with self.session(self.catalog) as connection:
            if await connection.fetchval("SELECT to_regclass('shardlib.node')") is None:
                raise Refused("the catalog is empty: initialise it first (shardctl init)")
            rows = await connection.fetch("SELECT name, url, admin_url FROM shardlib.node ORDER BY name")
        return tuple(Target(row["name"], Kind.NODE, row["admin_url"] or row["url"]) for row in rows)

    async def _connect(self, target: Target) -> Any:
        try:
            return await asyncpg.connect(
                target.url,
                user=self.user,
                password=self.password,
                timeout=CONNECT_SECONDS,
                server_settings={"application_name": "shardlib migrations", "client_connection_check_interval": "1s"},
            )
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Refused(f"can't reach {target.name}: {str(error) or type(error).__name__}") from error

    @asynccontextmanager
    async def session(self, target: Target) -> AsyncIterator[Any]:
        """Open a session on a database and close it; Refused says why that failed.

        Without its client it ends within a second, whatever it runs."""
        connection = await self._connect(target)
        try:
            yield connection
            await connection.close(timeout=CONNECT_SECONDS)
        finally:
            connection.terminate()


@asynccontextmanager
async def locked(connection: Any) -> AsyncIterator[None]:
    """Hold the database's migration lock; Refused when another runner keeps it for longer than a minute.

    It is tried again and again, not waited for: a session that waits in a statement holds a snapshot, and the other
    runner's CREATE INDEX CONCURRENTLY would wait for that snapshot.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + LOCK_SECONDS
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
        if loop.time() > end:
            raise Refused(f"another migration has been running for {LOCK_SECONDS:.0f} s; wait for it, or see who it is")
        await asyncio.sleep(POLL_SECONDS)
    yield  # closing the session gives it back
