"""A catalog in memory, with faults on demand: for tests of whatever watches or changes a catalog.

It passes the same tests as the one in Postgres. Several catalogs on one ``Store`` are several clients of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shardlib.core.topology import Keyspace, Node, Topology
from shardlib.errors import CatalogUnavailable, InvalidTopology, Rejected
from shardlib.ports import StaleEpoch


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely each answer goes wrong, from 0 to 1."""

    unavailable: float = 0.0  # no answer
    stale: float = 0.0  # to a question: the answer of an earlier time, as a lagging server would give it


class Store:
    """What all clients of one catalog share: its topologies, newest last."""

    def __init__(self) -> None:
        self.history = [Topology(1, 0, {}, {})]
        self.listeners: set[asyncio.Event] = set()

    @property
    def topology(self) -> Topology:
        """The present topology."""
        return self.history[-1]

    def put(self, topology: Topology) -> None:
        """Replace the topology, whatever it was, and announce it."""
        self.history.append(topology)
        for listener in self.listeners:
            listener.set()

    def fail_over(self, lost: int = 0) -> None:
        """Start a new incarnation that has lost the last changes, as many as given."""
        survivor = self.history[-1 - lost]
        self.put(replace(survivor, incarnation=self.topology.incarnation + 1))


class MemoryCatalog:
    """One client; see ports.Catalog for what its verbs promise. ``away`` makes all of them fail."""

    def __init__(self, store: Store, faults: Faults = Faults(), seed: int = 0) -> None:
        self.store = store
        self.faults = faults
        self.away = False
        self.asked = 0  # questions so far
        self._chance = random.Random(seed)
        self._notice = asyncio.Event()
        store.listeners.add(self._notice)

    async def version(self) -> tuple[int, int]:
        """Return (incarnation, epoch)."""
        return (await self._ask()).version

    async def read(self) -> Topology:
        """Return a consistent snapshot."""
        return await self._ask()

    async def wait_for_notice(self, seconds: float) -> None:
        """Return when a change was announced, or after ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._notice.wait()
        except TimeoutError:
            return
        finally:
            self._notice.clear()

    async def create_keyspace(self, epoch: int, keyspace: Keyspace) -> int:
        """Add a keyspace if the epoch is still that."""
        topology = await self._begin(epoch)
        if keyspace.name in topology.keyspaces:
            raise Rejected(f"there is a keyspace {keyspace.name} already")
        return self._commit(topology, topology.nodes, {**topology.keyspaces, keyspace.name: keyspace})

    async def put_node(self, epoch: int, node: Node) -> int:
        """Add a node or replace its entry, if the epoch is still that."""
        topology = await self._begin(epoch)
        if not node.name or node.weight < 0:
            raise Rejected(f"{node.name!r} of weight {node.weight} can't be a node")
        return self._commit(topology, {**topology.nodes, node.name: node}, topology.keyspaces)

    async def remove_node(self, epoch: int, name: str) -> int:
        """Forget a node that owns nothing, if the epoch is still that."""
        topology = await self._begin(epoch)
        if name not in topology.nodes:
            raise Rejected(f"there is no node {name}")
        if any(name in keyspace.owners for keyspace in topology.keyspaces.values()):
            raise Rejected(f"{name} still owns buckets: drain it first")
        others = {other: node for other, node in topology.nodes.items() if other != name}
        return self._commit(topology, others, topology.keyspaces)

    async def close(self) -> None:
        """Stop listening."""
        self.store.listeners.discard(self._notice)

    async def _ask(self) -> Topology:
        self.asked += 1
        await self._travel()
        if self._chance.random() < self.faults.stale:
            return self._chance.choice(self.store.history)
        return self.store.topology

    async def _begin(self, epoch: int) -> Topology:
        await self._travel()
        topology = self.store.topology
        if topology.epoch != epoch:
            raise StaleEpoch(epoch)
        return topology

    async def _travel(self) -> None:
        await asyncio.sleep(0)
        if self.away or self._chance.random() < self.faults.unavailable:
            raise CatalogUnavailable("the catalog doesn't answer: it was told not to")

    def _commit(self, before: Topology, nodes: Mapping[str, Node], keyspaces: Mapping[str, Keyspace]) -> int:
        try:
            after = Topology(before.incarnation, before.epoch + 1, nodes, keyspaces).check()
        except InvalidTopology as error:
            raise Rejected(str(error)) from error
        self.store.put(after)
        return after.epoch
