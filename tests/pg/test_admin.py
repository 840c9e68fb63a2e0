"""Two operators at work at the same time: none undoes what the other did, whoever was first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from shardlib import admin
from shardlib.core.topology import Node, Topology
from shardlib.errors import Rejected
from shardlib.pg.catalog import PgCatalog
from shardlib.testing.databases import TestCluster
from shardlib.testing.secrets_file import ADMIN

Work = Callable[[], Awaitable[Topology]]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    """Take a piece of another operator's work, to be done just before the next change reaches the catalog."""
    works: list[Work] = []

    def before(verb: str) -> Callable[..., Any]:
        change = getattr(PgCatalog, verb)

        async def changed(catalog: PgCatalog, *args: Any) -> int:
            while works:
                await works.pop()()
            return await change(catalog, *args)  # type: ignore[no-any-return]

        return changed

    for verb in ("put_node", "remove_node", "create_keyspace"):
        monkeypatch.setattr(PgCatalog, verb, before(verb))
    return works.append


async def keyspaces_on(cluster: TestCluster, name: str) -> set[str]:
    """Return the keyspaces that a node knows."""
    url = cluster.node_admin_urls[cluster.node_names.index(name)]
    node = await asyncpg.connect(url, password=cluster.servers.secrets.password(ADMIN))
    try:
        return {row["name"] for row in await node.fetch("SELECT name FROM shardlib.keyspace")}
    finally:
        await node.close()


async def forget(cluster: TestCluster, name: str) -> Node:
    """Return a node to what it was before it was added; the catalog has no bucket on it any more."""
    other = next(node for node in cluster.node_names if node != name)
    catalog = await asyncpg.connect(cluster.admin_url, password=cluster.servers.secrets.password(ADMIN))
    await catalog.execute("UPDATE shardlib.bucket SET node = $1", other)
    await catalog.close()
    await admin.remove_node(cluster.admin_url, name)
    url = cluster.node_admin_urls[cluster.node_names.index(name)]
    connection = await asyncpg.connect(url, password=cluster.servers.secrets.password(ADMIN))
    await connection.execute("DROP SCHEMA shardlib CASCADE")
    await connection.close()
    return cluster.nodes[name]


async def test_changes_of_two_operators_to_one_node_are_both_kept(
    shardlib_cluster: TestCluster, meanwhile: Callable[[Work], None]
) -> None:
    url = shardlib_cluster.admin_url
    meanwhile(lambda: admin.set_node(url, "node2", {"weight": 2.5}))
    topology = await admin.set_node(url, "node2", {"region": "eu"})
    assert topology.nodes["node2"] == replace(shardlib_cluster.nodes["node2"], weight=2.5, region="eu")


async def test_a_node_that_was_removed_meanwhile_does_not_come_back(
    shardlib_cluster: TestCluster, meanwhile: Callable[[Work], None]
) -> None:
    url = shardlib_cluster.admin_url
    await admin.add_node(url, await forget(shardlib_cluster, "node3"))
    meanwhile(lambda: admin.remove_node(url, "node3"))
    with pytest.raises(Rejected, match="no node node3"):
        await admin.set_node(url, "node3", {"weight": 2.0})
    assert "node3" not in (await admin.read_topology(url)).nodes


async def test_a_node_that_is_added_while_a_keyspace_is_made_knows_it(
    shardlib_cluster: TestCluster, meanwhile: Callable[[Work], None]
) -> None:
    url = shardlib_cluster.admin_url
    node = await forget(shardlib_cluster, "node3")
    meanwhile(lambda: admin.add_node(url, node))
    topology = await admin.create_keyspace(url, "plants", "int", 64)
    assert await keyspaces_on(shardlib_cluster, "node3") == set(topology.keyspaces)
    assert set(topology.keyspaces["plants"].owners) == set(shardlib_cluster.node_names)


async def test_a_keyspace_that_is_made_while_a_node_is_added_is_known_there(
    shardlib_cluster: TestCluster, meanwhile: Callable[[Work], None]
) -> None:
    url = shardlib_cluster.admin_url
    node = await forget(shardlib_cluster, "node3")
    meanwhile(lambda: admin.create_keyspace(url, "plants", "int", 64))
    topology = await admin.add_node(url, node)
    assert "plants" in topology.keyspaces
    assert await keyspaces_on(shardlib_cluster, "node3") == set(topology.keyspaces)


async def test_two_who_make_the_same_keyspace_make_one(
    shardlib_cluster: TestCluster, meanwhile: Callable[[Work], None]
) -> None:
    url = shardlib_cluster.admin_url
    meanwhile(lambda: admin.create_keyspace(url, "plants", "int", 64))
    assert (await admin.create_keyspace(url, "plants", "int", 64)).keyspaces["plants"].buckets == 64
    meanwhile(lambda: admin.create_keyspace(url, "stones", "int", 64))
    with pytest.raises(Rejected, match="stones exists with hash int and 64 buckets"):
        await admin.create_keyspace(url, "stones", "int", 128)


async def test_adding_a_node_again_leaves_or_replaces_its_entry_as_it_is_told(
    shardlib_cluster: TestCluster, meanwhile: Callable[[Work], None]
) -> None:
    url, known = shardlib_cluster.admin_url, shardlib_cluster.nodes["node2"]
    before = await admin.read_topology(url)
    assert (await admin.add_node(url, known)).epoch == before.epoch
    topology = await admin.add_node(url, replace(known, weight=3.0))
    assert topology.nodes["node2"].weight == 3.0
    with pytest.raises(Rejected, match="node node2 with other properties"):
        await admin.add_node(url, known, overwrite=False)
    assert (await admin.read_topology(url)).nodes == topology.nodes
