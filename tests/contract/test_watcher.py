"""The watcher, on a catalog in memory that lies, lags and goes away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from shardlib.core.topology import Keyspace, Node, Topology
from shardlib.errors import CatalogUnavailable, DeadlineExceeded, InvalidTopology
from shardlib.memory import Faults, MemoryCatalog, Store
from shardlib.observe import CatalogFound, CatalogLost, Event, SnapshotNotSaved, TopologyChanged
from shardlib.snapshot import load, save
from shardlib.watch import Watcher, now
from tests.support.waiting import wait_for

LEASE = 0.06  # seconds; polls come three times as often


class Notes:
    """Remembers the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def observe(self, event: Event, /) -> None:
        self.events.append(event)

    def versions(self) -> list[tuple[int, int]]:
        return [(event.incarnation, event.epoch) for event in self.events if isinstance(event, TopologyChanged)]

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


class NoNodes:
    """Opens nothing: nodes are names."""

    def apply(self, topology: Topology) -> Mapping[str, Any]:
        return {name: SimpleNamespace(name=name) for name in topology.nodes}


def stocked() -> Store:
    """Return a store that holds a node with a keyspace."""
    store = Store()
    node = Node("node1", "postgresql://127.0.0.1:1/app")
    store.put(Topology(1, 1, {"node1": node}, {"plants": Keyspace("plants", "int", ("node1",))}))
    return store


def raise_epoch(store: Store) -> None:
    store.put(replace(store.topology, epoch=store.topology.epoch + 1))


def make(catalog: MemoryCatalog, notes: Notes, file: Path | None = None, lease: float = LEASE) -> Watcher:
    nodes: Any = NoNodes()
    return Watcher(catalog, nodes, lease, file, notes)


@asynccontextmanager
async def watching(
    catalog: MemoryCatalog, notes: Notes, file: Path | None = None, lease: float = LEASE
) -> AsyncIterator[Watcher]:
    watcher = make(catalog, notes, file, lease)
    await watcher.start()
    try:
        yield watcher
    finally:
        await watcher.close()


# -- never back


@pytest.mark.parametrize("seed", range(5))
async def test_it_never_goes_back_whatever_the_catalog_says(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardlib.watch._RETRY_SECONDS", 0.002)
    store, notes, chance = stocked(), Notes(), random.Random(seed)
    catalog = MemoryCatalog(store, Faults(), seed)
    async with watching(catalog, notes, lease=0.003) as watcher:
        catalog.faults = Faults(unavailable=0.2, stale=0.5)
        for _ in range(60):
            if chance.random() < 0.15:
                store.fail_over(lost=chance.randint(0, 1))
            else:
                raise_epoch(store)
            watcher._poke.set()
            await asyncio.sleep(0.004 * chance.random())
        catalog.faults = Faults()
        await wait_for(lambda: watcher.view.topology == store.topology)
    versions = notes.versions()
    assert versions == sorted(set(versions))
    assert len(versions) > 5


async def test_a_lost_epoch_is_given_out_again_by_a_newer_incarnation() -> None:
    store, notes = stocked(), Notes()
    async with watching(MemoryCatalog(store), notes) as watcher:
        raise_epoch(store)
        await wait_for(lambda: watcher.view.topology.version == (1, 2))
        store.fail_over(lost=1)
        await wait_for(lambda: watcher.view.topology.version == (2, 1))
        old = replace(store.topology, incarnation=1, epoch=99)
        store.put(old)
        await wait_for(lambda: not watcher.catalog_answers)
        assert watcher.view.topology.version == (2, 1)
    assert notes.versions() == [(1, 1), (1, 2), (2, 1)]


async def test_a_snapshot_older_than_its_announced_version_is_not_adopted() -> None:
    class Torn(MemoryCatalog):
        """Knows the newest version, and reads the oldest topology."""

        async def read(self) -> Topology:
            await super().read()
            return self.store.history[1]

    store, notes = stocked(), Notes()
    catalog = Torn(store)
    async with watching(catalog, notes) as watcher:
        watcher.view.topology = replace(watcher.view.topology, epoch=5)
        for _ in range(5):
            raise_epoch(store)
        asked = catalog.asked
        await wait_for(lambda: catalog.asked > asked + 4)
        assert watcher.view.topology.version == (1, 5)
    assert notes.versions() == [(1, 1)]


# -- how fresh it is


async def test_a_poll_confirms_as_of_before_it_was_sent() -> None:
    class Slow(MemoryCatalog):
        async def version(self) -> tuple[int, int]:
            version = await super().version()
            await gate.wait()
            return version

    gate = asyncio.Event()
    gate.set()
    store = stocked()
    async with watching(Slow(store), Notes()) as watcher:
        gate.clear()
        asked = now()
        waiting = asyncio.create_task(watcher.confirmed_after(asked - 1.0, monotonic() + 5.0))
        await waiting
        before = watcher.view.confirmed_at
        await asyncio.sleep(2 * LEASE)
        answered = now()
        gate.set()
        await wait_for(lambda: watcher.view.confirmed_at > before)
        assert watcher.view.confirmed_at <= answered - LEASE
        assert watcher.view.fresh_until == watcher.view.confirmed_at + LEASE


async def test_without_the_catalog_it_grows_stale_and_recovers() -> None:
    store, notes = stocked(), Notes()
    catalog = MemoryCatalog(store)
    async with watching(catalog, notes) as watcher:
        assert now() < watcher.view.fresh_until
        catalog.away = True
        await wait_for(lambda: now() > watcher.view.fresh_until and not watcher.catalog_answers)
        view = watcher.view
        raise_epoch(store)
        catalog.away = False
        await wait_for(lambda: watcher.catalog_answers and now() < watcher.view.fresh_until)
        assert watcher.view.epoch == 2
        assert view.epoch == 1  # a request keeps the view that it began with
    assert (notes.count(CatalogLost), notes.count(CatalogFound)) == (1, 2)


async def test_an_announcement_is_followed_at_once() -> None:
    store = stocked()
    async with watching(MemoryCatalog(store), Notes(), lease=600.0) as watcher:
        raise_epoch(store)
        await wait_for(lambda: watcher.view.epoch == 2, 2.0)


async def test_a_catalog_that_breaks_in_a_new_way_doesnt_end_the_watch() -> None:
    class Breaking(MemoryCatalog):
        broken: Exception | None = None

        async def version(self) -> tuple[int, int]:
            if self.broken is not None:
                raise self.broken
            return await super().version()

    store, notes = stocked(), Notes()
    catalog = Breaking(store)
    async with watching(catalog, notes) as watcher:
        for broken in (ValueError("what?"), InvalidTopology("torn"), OSError()):
            catalog.broken = broken
            await wait_for(lambda: not watcher.catalog_answers)
            catalog.broken = None
            await wait_for(lambda: watcher.catalog_answers)


# -- asking for something newer

Ask = Callable[[Watcher, float], Coroutine[Any, Any, Any]]


async def newer(watcher: Watcher, until: float) -> Any:
    return await watcher.newer_than(watcher.view, until)


async def confirmed(watcher: Watcher, until: float) -> Any:
    return await watcher.confirmed_after(now(), until)


async def test_who_wants_a_newer_topology_gets_it_when_it_is_there() -> None:
    store = stocked()
    async with watching(MemoryCatalog(store), Notes(), lease=600.0) as watcher:
        waiting = [asyncio.create_task(watcher.newer_than(watcher.view, monotonic() + 5.0)) for _ in range(3)]
        begun = now()
        await wait_for(lambda: watcher.view.confirmed_at > begun)  # by a poll that they asked for
        assert not any(task.done() for task in waiting)
        raise_epoch(store)
        assert {view.epoch for view in await asyncio.gather(*waiting)} == {2}


async def test_who_wants_a_confirmation_gets_one_of_a_later_poll() -> None:
    async with watching(MemoryCatalog(stocked()), Notes(), lease=600.0) as watcher:
        moment = now()
        view = await watcher.confirmed_after(moment, monotonic() + 5.0)
        assert view.confirmed_at > moment


@pytest.mark.parametrize("ask", [newer, confirmed])
async def test_waiting_for_a_catalog_that_is_away_is_bounded_and_gentle(ask: Ask) -> None:
    catalog = MemoryCatalog(stocked())
    async with watching(catalog, Notes()) as watcher:
        catalog.away = True
        await wait_for(lambda: not watcher.catalog_answers)
        asked, began = catalog.asked, monotonic()
        waiting = [asyncio.create_task(ask(watcher, began + 0.7)) for _ in range(20)]
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, DeadlineExceeded)
        assert 0.6 < monotonic() - began < 5.0
        assert catalog.asked - asked <= 4


# -- the file


async def test_it_starts_from_its_file_while_the_catalog_is_away(tmp_path: Path) -> None:
    file, store = tmp_path / "deep" / "snapshot", stocked()
    async with watching(MemoryCatalog(store), Notes(), file):
        raise_epoch(store)
        await wait_for(lambda: file.exists() and load(file) == store.topology)
    catalog, notes = MemoryCatalog(store), Notes()
    catalog.away = True
    async with watching(catalog, notes, file) as watcher:
        assert watcher.view.topology == store.topology
        assert watcher.view.confirmed_at == float("-inf")
        assert not watcher.catalog_answers
        catalog.away = False
        raise_epoch(store)
        await wait_for(lambda: watcher.view.epoch == 3 and now() < watcher.view.fresh_until)
    assert [event.source for event in notes.events if isinstance(event, TopologyChanged)] == ["file", "catalog"]


async def test_the_catalog_comes_before_the_file(tmp_path: Path) -> None:
    file, store = tmp_path / "snapshot", stocked()
    save(file, replace(store.topology, epoch=0))
    async with watching(MemoryCatalog(store), Notes(), file) as watcher:
        assert watcher.view.epoch == 1


async def test_it_doesnt_start_without_a_catalog_and_a_file(tmp_path: Path) -> None:
    catalog = MemoryCatalog(stocked())
    catalog.away = True
    for file in (None, tmp_path / "missing"):
        with pytest.raises(CatalogUnavailable):
            await make(catalog, Notes(), file).start()


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 100, b'{"format": 2}'])
async def test_a_file_that_cant_be_used_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "snapshot"
    file.write_bytes(content)
    catalog = MemoryCatalog(stocked())
    catalog.away = True
    with pytest.raises(InvalidTopology, match="snapshot"):
        await make(catalog, Notes(), file).start()


async def test_a_file_that_cant_be_written_is_told_and_borne(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store, notes = stocked(), Notes()
    async with watching(MemoryCatalog(store), notes, tmp_path / "file" / "snapshot") as watcher:
        raise_epoch(store)
        await wait_for(lambda: watcher.view.epoch == 2)
        await wait_for(lambda: notes.count(SnapshotNotSaved) == 2)
