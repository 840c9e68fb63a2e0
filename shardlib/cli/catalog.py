"""Reading the catalog once, as the application does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from shardlib.cli.settings import Settings
from shardlib.core.topology import Node, Topology
from shardlib.pg.catalog import PgCatalog
from shardlib.pg.link import Credentials

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's work to its end."""
    return asyncio.run(work)


async def read_catalog(settings: Settings) -> Topology:
    """Return the present topology; CatalogUnavailable when the catalog doesn't answer."""
    catalog = PgCatalog(settings.need_catalog(), Credentials.from_environment().application, "shardctl")
    try:
        return await catalog.read()
    finally:
        await catalog.close()


def owned(topology: Topology, node: Node | str) -> dict[str, int]:
    """Return how many buckets of each keyspace a node owns."""
    name = node if isinstance(node, str) else node.name
    return {space.name: space.owners.count(name) for space in topology.keyspaces.values()}


def check_address(ctx: click.Context, option: click.Parameter, value: Any) -> Any:
    """Refuse addresses that can't be a node's, or that carry a password; for click."""
    for url in (value if isinstance(value, tuple) else (value,)) if value else ():
        parts = urlsplit(url)
        if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
            raise click.BadParameter(f"expected postgresql://role@host:port/database, not {_masked(url)}", ctx, option)
        if parts.password:
            raise click.BadParameter("the catalog stores no passwords: leave it out of the address", ctx, option)
    return value


def _masked(url: str) -> str:
    return url if "@" not in url else f"...@{url.rpartition('@')[2]}"
