"""What every catalog promises: one suite, run on the one in memory and on the one in Postgres."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from shardlib.core.topology import Keyspace, Node, Topology
from shardlib.errors import CatalogUnavailable, Rejected
from shardlib.memory import MemoryCatalog, Store
from shardlib.pg.catalog import PgCatalog
from shardlib.pg.link import Credentials
from shardlib.ports import Catalog, StaleEpoch
from shardlib.testing.databases import TestCluster

Connect = Callable[[], Catalog]


class Clients:
    """Makes clients of one catalog, and one of a catalog that isn't there."""

    def __init__(self, connect: Connect, connect_nowhere: Connect) -> None:
        self._connect = connect
        self._connect_nowhere = connect_nowhere
        self.made: list[Catalog] = []

    def __call__(self) -> Catalog:
        return self._keep(self._connect())

    def nowhere(self) -> Catalog:
        return self._keep(self._connect_nowhere())

    def _keep(self, catalog: Catalog) -> Catalog:
        self.made.append(catalog)
        return catalog


def in_memory() -> Clients:
    store = Store()

    def nowhere() -> Catalog:
        catalog = MemoryCatalog(store)
        catalog.away = True
        return catalog

    return Clients(lambda: MemoryCatalog(store), nowhere)


def in_postgres(cluster: TestCluster) -> Clients:
    password = Credentials.from_environment().admin
    nobody_there = "postgresql://shardlib_admin@127.0.0.1:1/catalog"
    return Clients(
        lambda: PgCatalog(cluster.admin_url, password, "shardctl"),
        lambda: PgCatalog(nobody_there, password, "shardctl"),
    )


@pytest.fixture(params=["memory", "postgres"])
async def clients(request: pytest.FixtureRequest) -> AsyncIterator[Clients]:
    made = in_memory() if request.param == "memory" else in_postgres(request.getfixturevalue("shardlib_cluster"))
    catalog = made()
    await change(catalog, lambda epoch: catalog.put_node(epoch, node(0)))
    yield made
    await asyncio.gather(*(catalog.close() for catalog in made.made))


async def change(catalog: Catalog, how: Callable[[int], Any]) -> int:
    """Make a change however often somebody else is first; return the epoch that it made."""
    while True:
        _, epoch = await catalog.version()
        try:
            made = await how(epoch)
        except StaleEpoch:
            continue
        assert isinstance(made, int)
        return made


def node(number: int, **facts: Any) -> Node:
    return Node(f"spare{number}", f"postgresql://shardlib@127.0.0.1:1/{number}", **facts)


async def add(catalog: Catalog, number: int) -> int:
    return await change(catalog, lambda epoch: catalog.put_node(epoch, node(number)))


async def read(catalog: Catalog) -> Topology:
    topology = await catalog.read()
    assert topology.check() is topology
    return topology


async def test_what_one_writes_another_reads(clients: Clients) -> None:
    one, other = clients(), clients()
    entry = node(1, admin_url="a", replication_url="b", replicas=("c", "d"), weight=2.5, region="e", zone="f")
    await change(one, lambda epoch: one.put_node(epoch, entry))
    keyspace = Keyspace("plants", "int", ("spare0", "spare1", "spare1", "spare0"))
    epoch = await change(one, lambda epoch: one.create_keyspace(epoch, keyspace))
    topology = await read(other)
    assert topology.nodes["spare1"] == entry
    assert topology.keyspaces["plants"] == keyspace
    assert topology.epoch == epoch
    assert await other.version() == topology.version


async def test_an_entry_is_replaced(clients: Clients) -> None:
    catalog = clients()
    await change(catalog, lambda epoch: catalog.put_node(epoch, node(0, zone="elsewhere")))
    assert (await read(catalog)).nodes["spare0"].zone == "elsewhere"


async def test_each_change_raises_the_epoch_by_one(clients: Clients) -> None:
    catalog = clients()
    incarnation, epoch = await catalog.version()
    for number in range(1, 4):
        assert await catalog.put_node(epoch, node(number)) == epoch + 1
        epoch += 1
        assert await catalog.version() == (incarnation, epoch)


async def test_a_change_of_an_old_epoch_changes_nothing(clients: Clients) -> None:
    catalog = clients()
    _, epoch = await catalog.version()
    await catalog.put_node(epoch, node(1))
    before = await read(catalog)
    for late in (epoch, epoch + 2):
        with pytest.raises(StaleEpoch):
            await catalog.put_node(late, node(2))
        with pytest.raises(StaleEpoch):
            await catalog.remove_node(late, "spare1")
        with pytest.raises(StaleEpoch):
            await catalog.create_keyspace(late, Keyspace("plants", "int", ("spare0",)))
    assert await read(catalog) == before


async def test_of_writers_that_race_one_wins_each_epoch(clients: Clients) -> None:
    catalogs = [clients() for _ in range(6)]
    _, first = await catalogs[0].version()

    async def write(number: int, catalog: Catalog) -> list[int]:
        return [await add(catalog, 100 * number + turn) for turn in range(5)]

    epochs = await asyncio.gather(*(write(number, catalog) for number, catalog in enumerate(catalogs)))
    assert sorted(itertools.chain(*epochs)) == list(range(first + 1, first + 31))
    topology = await read(catalogs[0])
    assert {f"spare{100 * number + turn}" for number in range(6) for turn in range(5)} <= topology.nodes.keys()


async def test_a_snapshot_is_of_one_epoch(clients: Clients) -> None:
    writer, reader = clients(), clients()
    base = await read(reader)
    done = asyncio.Event()

    async def write() -> None:
        for number in range(1, 20):
            await add(writer, number)
        done.set()

    writing = asyncio.create_task(write())
    epochs = []
    while not done.is_set():
        topology = await read(reader)
        assert len(topology.nodes) - len(base.nodes) == topology.epoch - base.epoch
        epochs.append(topology.epoch)
    await writing
    assert epochs == sorted(epochs)


async def test_a_node_leaves_when_it_owns_nothing(clients: Clients) -> None:
    catalog = clients()
    await change(catalog, lambda epoch: catalog.put_node(epoch, node(1)))
    await change(catalog, lambda epoch: catalog.create_keyspace(epoch, Keyspace("plants", "int", ("spare0",))))
    before = await read(catalog)
    for name in ("spare0", "nobody"):
        with pytest.raises(Rejected):
            await catalog.remove_node(before.epoch, name)
    assert await read(catalog) == before
    await catalog.remove_node(before.epoch, "spare1")
    assert "spare1" not in (await read(catalog)).nodes


async def test_a_keyspace_that_cant_be_is_rejected(clients: Clients) -> None:
    catalog = clients()
    await change(catalog, lambda epoch: catalog.create_keyspace(epoch, Keyspace("plants", "int", ("spare0",))))
    before = await read(catalog)
    impossible = [
        Keyspace("plants", "int", ("spare0",)),
        Keyspace("others", "int", ("spare0", "nobody")),
        Keyspace("others", "int", ("spare0", "spare0", "spare0")),
    ]
    for keyspace in impossible:
        with pytest.raises(Rejected):
            await catalog.create_keyspace(before.epoch, keyspace)
    assert await read(catalog) == before


async def test_a_node_that_cant_be_is_rejected(clients: Clients) -> None:
    catalog = clients()
    before = await read(catalog)
    for entry in (node(1, weight=-1.0), Node("", "postgresql://shardlib@127.0.0.1:1/1")):
        with pytest.raises(Rejected):
            await catalog.put_node(before.epoch, entry)
    assert await read(catalog) == before


async def test_an_announcement_wakes_who_waits(clients: Clients) -> None:
    writer, waiter = clients(), clients()
    await waiter.version()
    await waiter.wait_for_notice(0.05)
    waiting = asyncio.create_task(waiter.wait_for_notice(60.0))
    await asyncio.sleep(0)
    await change(writer, lambda epoch: writer.put_node(epoch, node(1)))
    await asyncio.wait_for(waiting, 5.0)


async def test_waiting_ends_without_an_announcement(clients: Clients) -> None:
    waiter = clients()
    await waiter.version()
    await asyncio.wait_for(waiter.wait_for_notice(0.05), 5.0)


async def test_a_catalog_that_doesnt_answer_says_so(clients: Clients) -> None:
    catalog = clients.nowhere()
    with pytest.raises(CatalogUnavailable):
        await catalog.version()
    with pytest.raises(CatalogUnavailable):
        await catalog.read()
    with pytest.raises(CatalogUnavailable):
        await catalog.put_node(0, node(1))
    await asyncio.wait_for(catalog.wait_for_notice(0.05), 5.0)
