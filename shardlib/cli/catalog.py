"""Reading the catalog once, as the application does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from shardlib import admin
from shardlib.cli.settings import Settings
from shardlib.core.topology import Node, Topology

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's work to its end."""
    return asyncio.run(work)


async def read_catalog(settings: Settings) -> Topology:
    """Return the present topology; CatalogUnavailable when the catalog doesn't answer."""
    return await admin.view_topology(settings.need_catalog())


def owned(topology: Topology, node: Node | str) -> dict[str, int]:
    """Return how many buckets of each keyspace a node owns."""
    name = node if isinstance(node, str) else node.name
    return {space.name: space.owners.count(name) for space in topology.keyspaces.values()}
