"""The catalog is never on the request path: it may be away, come back newer, or come back older."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import shardlib
from shardlib.errors import CatalogUnavailable, InvalidTopology
from shardlib.observe import CatalogFound, CatalogLost, TopologyChanged
from shardlib.testing.plugin import OwnServers
from tests.chaos.catalog_away import take_away
from tests.pg.stage import INSERT, KEYSPACE, RAISE, READ, Heard, Stage, epoch_is, gone_stale, is_fresh, keys_of
from tests.support.waiting import wait_for

AWAY_SECONDS = 4.0
LEASE = 0.5


async def staged(own_servers: OwnServers) -> Stage:
    stage = Stage(own_servers(nodes=2, replicas=0))
    await stage.prepare()
    return stage


async def test_no_request_fails_while_the_catalog_is_away(own_servers: OwnServers) -> None:
    """How fast they are is measured by tests/chaos/catalog_away.py."""
    found = await take_away(await staged(own_servers), AWAY_SECONDS, LEASE)
    assert found.errors == []
    assert min(len(found.reads), len(found.writes)) > 50


async def test_a_process_starts_from_its_file_while_the_catalog_is_away(
    own_servers: OwnServers, tmp_path: Path
) -> None:
    stage = await staged(own_servers)
    file = tmp_path / "below" / "snapshot.json"
    async with stage.databases.connect(keyspace=KEYSPACE, snapshot_file=file) as cluster:
        key = keys_of(cluster, "node1")[0]
        await cluster.shard(key).execute(INSERT, key)
    assert "password" not in file.read_text(encoding="utf-8")
    stage.databases.servers.catalog.stop()
    heard = Heard()
    async with stage.databases.connect(
        keyspace=KEYSPACE, snapshot_file=file, observer=heard, lease_seconds=LEASE
    ) as cluster:
        home = cluster.shard(key)
        assert await home.execute(RAISE, key) == "UPDATE 1"
        assert await home.fetchval(READ, key) == 2
        assert await home.run(lambda tx: tx.fetchval(READ, key)) == 2
        assert [event.source for event in heard.of(TopologyChanged)] == ["file"]
        assert (len(heard.of(CatalogLost)), cluster.health().catalog_answers) == (1, False)
        stage.databases.servers.catalog.start()
        await wait_for(lambda: is_fresh(cluster, LEASE))
        assert (len(heard.of(CatalogFound)), cluster.health().catalog_answers) == (1, True)


async def test_without_catalog_and_file_there_is_no_start(own_servers: OwnServers, tmp_path: Path) -> None:
    stage = await staged(own_servers)
    stage.databases.servers.catalog.stop()
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{}", encoding="utf-8")
    for file, error in ((None, CatalogUnavailable), (tmp_path / "none.json", CatalogUnavailable)):
        with pytest.raises(error):
            await opened(stage, file)
    with pytest.raises(InvalidTopology):
        await opened(stage, damaged)


async def opened(stage: Stage, file: Path | None) -> None:
    async with stage.databases.connect(snapshot_file=file):
        pass


async def test_a_catalog_that_comes_back_newer_is_followed(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    catalog = stage.databases.servers.catalog
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=LEASE) as cluster:
        key = keys_of(cluster, "node1")[0]
        await cluster.shard(key).execute(INSERT, key)
        catalog.stop()
        await gone_stale(cluster, LEASE)
        await stage.put("node2", key, 7)
        await stage.disown("node1", cluster.where(key).bucket)
        read = asyncio.ensure_future(cluster.shard(key).fetchval(READ, key))
        catalog.start()
        await stage.give(cluster.where(key).bucket, "node2")
        assert await read == 7
        assert cluster.where(key).node == "node2"


async def test_a_catalog_restored_to_an_older_epoch_takes_nobody_back(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    heard = Heard()
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=LEASE, observer=heard) as cluster:
        key = keys_of(cluster, "node1")[0]
        bucket = cluster.where(key).bucket
        before = cluster.topology.epoch
        await stage.put("node2", key, 7)
        await epoch_is(cluster, await stage.give(bucket, "node2"))
        async with stage.admin() as catalog:
            await catalog.execute("UPDATE shardlib.catalog SET epoch = $1", before)
            await catalog.execute("UPDATE shardlib.bucket SET node = 'node1' WHERE bucket = $1", bucket)
            await catalog.execute("NOTIFY shardlib_topology")
        await wait_for(lambda: heard.of(CatalogLost))
        await gone_stale(cluster, LEASE)  # what it says confirms nothing
        assert (cluster.topology.epoch, cluster.where(key).node) == (before + 1, "node2")
        assert await cluster.shard(key).fetchval(READ, key) == 7
        assert cluster.health().catalog_answers is False
        await epoch_is(cluster, await move_on(stage, before + 2))
        await wait_for(lambda: is_fresh(cluster, LEASE))


async def move_on(stage: Stage, epoch: int) -> int:
    async with stage.admin() as catalog:
        await catalog.execute("UPDATE shardlib.catalog SET epoch = $1", epoch)
    return epoch


async def test_announcements_may_be_lost_and_nonsense_comes(own_servers: OwnServers) -> None:
    """NOTIFY is a hint: without one the poll finds the change, and false alarms change nothing."""
    stage = await staged(own_servers)
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=LEASE) as cluster:
        key = keys_of(cluster, "node1")[0]
        async with stage.admin() as catalog:
            for _ in range(50):
                await catalog.execute("NOTIFY shardlib_topology, 'nonsense'")
        await epoch_is(cluster, await stage.give(cluster.where(key).bucket, "node2", notify=False))
        assert cluster.where(key).node == "node2"


async def test_an_observer_that_fails_hurts_nobody(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))

    class Clumsy:
        def observe(self, event: object, /) -> None:
            raise KeyError(event)

    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=LEASE, observer=Clumsy()) as cluster:
        key = keys_of(cluster, "node1")[0]
        await epoch_is(cluster, await stage.give(cluster.where(key).bucket, "node2"))
        assert await cluster.shard(key).execute(INSERT, key) == "INSERT 0 1"
    assert any("TopologyChanged" in complaint for complaint in complaints)


async def test_several_clusters_of_one_process_keep_apart(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    async with stage.databases.connect(keyspace=KEYSPACE) as one, stage.databases.connect(keyspace=KEYSPACE) as two:
        key = keys_of(one, "node1")[0]
        await one.shard(key).execute(INSERT, key)
        assert await two.shard(key).fetchval(READ, key) == 1
        assert isinstance(two, shardlib.Cluster)
