"""Installs and upgrades the bookkeeping: the catalog's schema and that of each node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from shardlib.core.keys import hash_named
from shardlib.core.topology import Keyspace
from shardlib.errors import Broken, FormatMismatch, Rejected
from shardlib.pg.errors import refused_to_connect
from shardlib.pg.link import FORMATS, open_connection
from shardlib.sql import load, quote_identifier, scripts

_SQL = load("setup")
_SECONDS = 10.0


async def install_catalog(url: str, password: str | None, application_role: str) -> None:
    """Create or upgrade the catalog's schema; the application's role may read it."""
    async with _session(url, password) as connection, connection.transaction():
        await connection.execute(_SQL["one_at_a_time"])
        for script in scripts("catalog_schema"):
            await connection.execute(script)
        await connection.execute(_SQL["grant_catalog"].replace(":role", quote_identifier(application_role)))


async def install_node(url: str, password: str | None, name: str, application_role: str) -> None:
    """Create or upgrade a node's bookkeeping. Rejected when the database is another node's already."""
    async with _session(url, password) as connection, connection.transaction():
        await connection.execute(_SQL["one_at_a_time"])
        for script in scripts("node"):
            await connection.execute(script)
        row = await connection.fetchrow(_SQL["name_node"], name, max(FORMATS))
        if row["name"] != name:
            raise Rejected(f"this database is {row['name']!r} already, it can't be {name!r} as well")
        if row["format"] not in FORMATS:
            raise FormatMismatch(f"the node's bookkeeping has format {row['format']}, newer than this version")
        await connection.execute(_SQL["grant_node"].replace(":role", quote_identifier(application_role)))


async def install_keyspaces(url: str, password: str | None, keyspaces: Iterable[Keyspace]) -> None:
    """Make keyspaces known on a node, so that tables can be attached to them."""
    async with _session(url, password) as connection:
        for keyspace in keyspaces:
            expression = hash_named(keyspace.hash).sql("%s", keyspace.mask)
            await connection.execute(_SQL["put_keyspace"], keyspace.name, keyspace.hash, keyspace.buckets, expression)


@asynccontextmanager
async def _session(url: str, password: str | None) -> AsyncIterator[Any]:
    try:
        connection = await open_connection(url, password, "shardctl", _SECONDS)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        address = url.rpartition("@")[2].partition("?")[0]
        raise Broken(f"no connection as administrator to {address}: {refused_to_connect(error)}") from error
    try:
        yield connection
    except asyncpg.PostgresError as error:
        raise Rejected(f"the server refuses: {error}") from error
    finally:
        await connection.close(timeout=_SECONDS)
