"""What the library itself needs in fresh databases: the catalog, its nodes and keyspaces."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from shardlib import admin
from shardlib.core.topology import Node

KEYSPACES = {"users": "uuid_tail", "identifiers": "str", "numbers": "int", "names": "str"}  # name -> hash


async def initialise(catalog_admin_url: str, nodes: Mapping[str, Node], keyspaces: Mapping[str, str]) -> None:
    """Set up the catalog, enter the nodes, create the keyspaces; what is there already stays."""
    await admin.init_catalog(catalog_admin_url)
    for node in nodes.values():
        await admin.add_node(catalog_admin_url, node)
    for name, hash_name in keyspaces.items():
        await admin.create_keyspace(catalog_admin_url, name, hash_name)


@contextmanager
def environment(more: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def run_apart(job: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in a thread of its own, whose event loop is nobody else's business."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, job).result()
