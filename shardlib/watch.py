"""Keeps the snapshot current: versions may be skipped or repeated, never go back.

DESIGN. The catalog is never on the request path. A task polls it (three times a lease) and listens for announcements,
which are hints only. An answer confirms the snapshot as of the moment *before* the poll was sent, on a clock that runs
while the machine sleeps (CLOCK_BOOTTIME); a snapshot confirmed less than ``lease`` ago is *fresh*. While the catalog is
away nothing fails: reads of primaries ask the node one more question, that is all.

A snapshot is adopted together with the nodes that it names, as one View; a request keeps the view that it began with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, monotonic

from shardlib.core.topology import Keyspace, Topology
from shardlib.errors import CatalogUnavailable, DeadlineExceeded
from shardlib.observe import CatalogFound, CatalogLost, Observer, SnapshotNotSaved, TopologyChanged
from shardlib.ports import Catalog, Node, Nodes
from shardlib.snapshot import load, save

_RETRY_SECONDS = 0.5  # between polls while the catalog is away
_NOTHING = (-1, -1)  # older than any version


def now() -> float:
    """Return seconds on a clock that doesn't stop while the machine sleeps."""
    return clock_gettime(CLOCK_BOOTTIME)


class View:
    """A topology and its open nodes; ``confirmed_at`` and ``fresh_until`` are CLOCK_BOOTTIME seconds."""

    __slots__ = ("confirmed_at", "epoch", "fresh_until", "nodes", "spaces", "topology")

    def __init__(self, topology: Topology, nodes: Mapping[str, Node], confirmed_at: float, lease: float) -> None:
        self.topology = topology
        self.epoch = topology.epoch
        self.nodes = nodes
        self.spaces = {name: Space(self, keyspace) for name, keyspace in topology.keyspaces.items()}
        self.confirm(confirmed_at, lease)

    def confirm(self, at: float, lease: float) -> None:
        """Note that the catalog confirmed this topology at that time."""
        self.confirmed_at = at
        self.fresh_until = at + lease


class Space:
    """A keyspace as requests use it: bucket -> open node."""

    __slots__ = ("keyspace", "moving", "owners", "view")

    def __init__(self, view: View, keyspace: Keyspace) -> None:
        self.view = view
        self.keyspace = keyspace
        self.owners: Sequence[Node] = [view.nodes[name] for name in keyspace.owners]
        self.moving = keyspace.moving


class Watcher:
    """Holds the present view and replaces it."""

    def __init__(
        self, catalog: Catalog, nodes: Nodes, lease_seconds: float, snapshot_file: Path | None, observer: Observer
    ) -> None:
        self.view: View
        self.catalog_answers = False
        self._catalog = catalog
        self._nodes = nodes
        self._lease = lease_seconds
        self._file = snapshot_file
        self._observer = observer
        self._poke = asyncio.Event()
        self._polled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Get a first snapshot from the catalog, else from the file; CatalogUnavailable when there is neither."""
        try:
            await self._poll()
        except CatalogUnavailable as error:
            topology = load(self._file) if self._file is not None else None
            if topology is None:
                raise
            self._observer.observe(CatalogLost(str(error)))
            self._adopt(topology, float("-inf"), "file")
        self._task = asyncio.get_running_loop().create_task(self._run(), name="shardlib watcher")

    async def close(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._catalog.close()

    def hurry(self) -> None:
        """Poll soon: somebody has met a node that knows of a newer topology."""
        self._poke.set()

    async def confirmed_after(self, moment: float, until: float) -> View:
        """Return a view confirmed after ``moment`` (CLOCK_BOOTTIME seconds); DeadlineExceeded past ``until``."""
        while self.view.confirmed_at <= moment:
            self._poke.set()
            await self._next_poll(until)
        return self.view

    async def newer_than(self, view: View, until: float) -> View:
        """Return a view with a later epoch than this one's; DeadlineExceeded past ``until``."""
        while self.view.topology.version <= view.topology.version:
            self._poke.set()
            await self._next_poll(until)
        return self.view

    async def _next_poll(self, until: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, until - monotonic())):
                await asyncio.shield(self._polled)
        except TimeoutError:
            raise DeadlineExceeded("the catalog had no newer topology in time") from None

    async def _run(self) -> None:
        while True:
            await self._pause()
            try:
                await self._poll()
            except Exception as error:  # whatever it is, an old snapshot serves and the next poll may do
                if self.catalog_answers:
                    self.catalog_answers = False
                    self._observer.observe(CatalogLost(str(error) or type(error).__name__))
            self._polled.set_result(None)
            self._polled = asyncio.get_running_loop().create_future()

    async def _pause(self) -> None:
        """Wait for the next poll: a third of a lease, or until somebody asks, but not in a tight loop.

        A catalog that is away isn't asked more often, however many requests wait for it.
        """
        if not self.catalog_answers:
            await asyncio.sleep(_RETRY_SECONDS)
            return
        asked = asyncio.ensure_future(self._poke.wait())
        noticed = asyncio.ensure_future(self._catalog.wait_for_notice(self._lease / 3))
        try:
            await asyncio.wait((asked, noticed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            noticed.cancel()
        await asyncio.sleep(0.005)
        self._poke.clear()

    async def _poll(self) -> None:
        sent = now()
        known = self.view.topology.version if hasattr(self, "view") else _NOTHING
        version = await self._catalog.version()
        if version > known:
            topology = await self._catalog.read()
            version = topology.version
            if version > known:
                self._adopt(topology, sent, "catalog")
                await self._save(topology)
        if version == known:
            self.view.confirm(sent, self._lease)
        elif version < known:
            raise CatalogUnavailable(f"the catalog went back to {version} from {known}")
        if not self.catalog_answers:
            self.catalog_answers = True
            self._observer.observe(CatalogFound())

    def _adopt(self, topology: Topology, confirmed_at: float, source: str) -> None:
        self.view = View(topology, self._nodes.apply(topology), confirmed_at, self._lease)
        self._observer.observe(TopologyChanged(topology.incarnation, topology.epoch, source))

    async def _save(self, topology: Topology) -> None:
        if self._file is None:
            return
        try:
            await asyncio.to_thread(save, self._file, topology)
        except OSError as error:
            self._observer.observe(SnapshotNotSaved(str(error)))
