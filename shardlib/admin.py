"""Changing the cluster's make-up: the catalog, keyspaces, nodes. What ``shardctl`` and the local stack call.

Each function takes the catalog's URL as an administrator reaches it, and changes the catalog by compare-and-set on its
epoch, so two operators can't undo each other's work unseen. All may be repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from shardlib.core.keys import hash_named
from shardlib.core.plan import Goal, plan
from shardlib.core.topology import MAX_BUCKETS, Keyspace, Node, Topology
from shardlib.errors import Rejected
from shardlib.pg.catalog import PgCatalog
from shardlib.pg.link import Credentials
from shardlib.pg.setup import install_catalog, install_keyspaces, install_node
from shardlib.ports import StaleEpoch

DEFAULT_BUCKETS = 4096
_TRIES = 20  # against other operators' changes
Change = Callable[[PgCatalog, int], Awaitable[int]]  # of the catalog, if its epoch is still that


async def init_catalog(url: str, application_role: str = "shardlib") -> None:
    """Create or upgrade the catalog's schema, and let the application's role read it."""
    await install_catalog(url, _admin(), application_role)


async def read_topology(url: str) -> Topology:
    """Return the catalog's present topology."""
    async with _catalog(url, _admin()) as catalog:
        return await catalog.read()


async def view_topology(url: str) -> Topology:
    """Return the catalog's present topology, read as the application: no administrator's password is needed."""
    async with _catalog(url, Credentials.from_environment().application) as catalog:
        return await catalog.read()


async def add_node(url: str, node: Node, application_role: str = "shardlib", *, overwrite: bool = True) -> Topology:
    """Create or upgrade the node's bookkeeping, with all keyspaces, then enter it in the catalog; owns nothing yet.

    An entry that is there is replaced; without ``overwrite`` it is Rejected unless it is the same.
    """
    address = node.admin_url or node.url
    await install_node(address, _admin(), node.name, application_role)

    async def decide(topology: Topology) -> Change | None:
        known = topology.nodes.get(node.name)
        if known not in (None, node) and not overwrite:
            raise Rejected(f"there is a node {node.name} with other properties")
        await install_keyspaces(address, _admin(), topology.keyspaces.values())
        return None if known == node else lambda catalog, epoch: catalog.put_node(epoch, node)

    return await _change(url, decide)


async def set_node(url: str, name: str, changes: Mapping[str, Any]) -> Topology:
    """Change some of what the catalog knows of a node: properties of ``Node``, by name."""

    async def decide(topology: Topology) -> Change:
        if name not in topology.nodes:
            raise Rejected(f"there is no node {name}")
        node = replace(topology.nodes[name], **changes)
        return lambda catalog, epoch: catalog.put_node(epoch, node)

    return await _change(url, decide)


async def remove_node(url: str, name: str) -> Topology:
    """Forget a node; Rejected while it owns a bucket."""

    async def decide(_topology: Topology) -> Change:
        return lambda catalog, epoch: catalog.remove_node(epoch, name)

    return await _change(url, decide)


async def create_keyspace(
    url: str,
    name: str,
    hash_name: str,
    buckets: int = DEFAULT_BUCKETS,
) -> Topology:
    """Create a keyspace on all nodes: ``buckets`` (a power of two, never changed later) over the nodes by weight.

    ``hash_name`` is a name in ``shardlib.core.keys.HASHES``.
    """
    hash_named(hash_name)
    if not 1 <= buckets <= MAX_BUCKETS or buckets & (buckets - 1):
        raise Rejected(f"{buckets} buckets: it must be a power of two up to {MAX_BUCKETS}")

    async def decide(topology: Topology) -> Change | None:
        if not topology.nodes:
            raise Rejected("add a node first: shardctl nodes add")
        if name in topology.keyspaces:
            _check_same(topology.keyspaces[name], hash_name, buckets)
            return None
        placement = plan(name, [None] * buckets, Goal(list(topology.nodes.values())))
        keyspace = Keyspace(name, hash_name, placement.owners)
        for node in topology.nodes.values():
            await install_keyspaces(node.admin_url or node.url, _admin(), [keyspace])
        return lambda catalog, epoch: catalog.create_keyspace(epoch, keyspace)

    return await _change(url, decide)


def _check_same(known: Keyspace, hash_name: str, buckets: int) -> None:
    if (known.hash, known.buckets) != (hash_name, buckets):
        raise Rejected(f"keyspace {known.name} exists with hash {known.hash} and {known.buckets} buckets")


def _admin() -> str | None:
    return Credentials.from_environment().admin


@asynccontextmanager
async def _catalog(url: str, password: str | None) -> AsyncIterator[PgCatalog]:
    catalog = PgCatalog(url, password, "shardctl")
    try:
        yield catalog
    finally:
        await catalog.close()


async def _change(url: str, decide: Callable[[Topology], Awaitable[Change | None]]) -> Topology:
    """Make the change that ``decide`` returns for the very topology whose epoch it is made on; None: nothing to do.

    ``decide`` is called again for a newer topology when somebody else was first. What it does to nodes beforehand
    (their keyspaces, say) is therefore complete for the topology that the change follows.
    """
    async with _catalog(url, _admin()) as catalog:
        for _ in range(_TRIES):
            topology = await catalog.read()
            change = await decide(topology)
            if change is None:
                return topology
            try:
                await change(catalog, topology.epoch)
            except StaleEpoch:
                continue
            return await catalog.read()
    raise Rejected("the catalog changes all the time: somebody else is at work")
