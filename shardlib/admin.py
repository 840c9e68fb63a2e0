"""Changing the cluster's make-up: the catalog, keyspaces, nodes. What ``shardctl`` and the local stack call.

Each function takes the catalog's URL as an administrator reaches it, and changes the catalog by compare-and-set on its
epoch, so two operators can't undo each other's work unseen. All may be repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

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


async def add_node(url: str, node: Node, application_role: str = "shardlib") -> Topology:
    """Create or upgrade the node's bookkeeping, with all keyspaces, then enter it in the catalog; owns nothing yet."""
    topology = await read_topology(url)
    await install_node(node.admin_url or node.url, _admin(), node.name, application_role)
    await install_keyspaces(node.admin_url or node.url, _admin(), list(topology.keyspaces.values()))
    return await _change(url, lambda catalog, epoch: catalog.put_node(epoch, node))


async def set_node(url: str, node: Node) -> Topology:
    """Replace what the catalog knows of a node."""
    if node.name not in (await read_topology(url)).nodes:
        raise Rejected(f"there is no node {node.name}")
    return await _change(url, lambda catalog, epoch: catalog.put_node(epoch, node))


async def remove_node(url: str, name: str) -> Topology:
    """Forget a node; Rejected while it owns a bucket."""
    return await _change(url, lambda catalog, epoch: catalog.remove_node(epoch, name))


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
    topology = await read_topology(url)
    if not topology.nodes:
        raise Rejected("add a node first: shardctl nodes add")
    if name in topology.keyspaces:
        return _same_keyspace(topology, name, hash_name, buckets)
    placement = plan(name, [None] * buckets, Goal(list(topology.nodes.values())))
    keyspace = Keyspace(name, hash_name, placement.owners)
    for node in topology.nodes.values():
        await install_keyspaces(node.admin_url or node.url, _admin(), [keyspace])
    return await _change(url, lambda catalog, epoch: catalog.create_keyspace(epoch, keyspace))


def _same_keyspace(topology: Topology, name: str, hash_name: str, buckets: int) -> Topology:
    known = topology.keyspaces[name]
    if (known.hash, known.buckets) != (hash_name, buckets):
        raise Rejected(f"keyspace {name} exists with hash {known.hash} and {known.buckets} buckets")
    return topology


def _admin() -> str | None:
    return Credentials.from_environment().admin


@asynccontextmanager
async def _catalog(url: str, password: str | None) -> AsyncIterator[PgCatalog]:
    catalog = PgCatalog(url, password, "shardctl")
    try:
        yield catalog
    finally:
        await catalog.close()


async def _change(url: str, change: Callable[[PgCatalog, int], Awaitable[int]]) -> Topology:
    async with _catalog(url, _admin()) as catalog:
        for _ in range(_TRIES):
            _, epoch = await catalog.version()
            try:
                await change(catalog, epoch)
            except StaleEpoch:
                continue
            return await catalog.read()
    raise Rejected("the catalog changes all the time: somebody else is at work")
