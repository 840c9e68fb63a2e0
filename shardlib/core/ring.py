"""The consistent-hash ring: for each bucket, the nodes in the order in which it would rather lie on them.

DESIGN. The ring is uhashring's, built once per plan and never asked per request: what it decides is stored, bucket by
bucket, in the topology. It ranks choices and nothing else; how much each node may hold is the planner's business.

What uhashring leaves to its user is fixed here: weights may be fractions (uhashring repeats points a whole number of
times, so a weight becomes a number of points), the hash is SHA-256 (its default, MD5, fails on FIPS systems), nodes are
added in the order of their names (of two equal points it keeps the last), buckets are hashed under texts that no node's
point can have, and ``range()``, which copies the ring at each call, isn't used. Its ketama mode isn't either: it moves
keys between nodes that a change of weight doesn't concern.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect
from collections.abc import Container, Iterable, Iterator
from itertools import chain

from uhashring import HashRing

from shardlib.core.topology import Node
from shardlib.errors import Rejected

POINTS = 160  # per unit of weight, uhashring's default
MAX_POINTS = 16_000  # per node: beyond a weight of 100 the ring no longer tells nodes apart, and shares still do
_CIRCLE = 2**64


def point_of(text: str) -> int:
    """Return where a text lies on the circle of 2**64 points."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


class Ring:
    """The ring of one keyspace over some nodes; it never changes. Nodes of weight 0 aren't on it."""

    __slots__ = ("_keyspace", "_names", "_points", "nodes")

    def __init__(self, keyspace: str, nodes: Iterable[Node]) -> None:
        """Place the nodes; the order in which they come has no meaning.

        Raises Rejected for two nodes of one name and for a weight that isn't a finite number from 0.
        """
        weights = weights_of(nodes)
        points = {name: min(max(1, round(POINTS * weight)), MAX_POINTS) for name, weight in weights.items() if weight}
        ring = HashRing({name: {"vnodes": number} for name, number in sorted(points.items())}, hash_fn=point_of)
        placed: list[tuple[int, str]] = ring.get_points()
        self.nodes = frozenset(points)
        self._keyspace = keyspace
        self._points = [point for point, _ in placed]
        self._names = [name for _, name in placed]

    def __repr__(self) -> str:
        return f"<ring of {self._keyspace}: {len(self.nodes)} nodes, {len(self._points)} points>"

    def walk(self, bucket: int, among: Container[str]) -> Iterator[tuple[int, str]]:
        """Yield (distance, node) for each point once around, clockwise from the bucket; nodes repeat.

        A node's first distance says how high it ranks with the bucket, and compares between buckets too. ``among``
        is asked at each point, so it may shrink on the way.
        """
        # A node's points are named "name-0", "name-1", ...: none ends in a colon and a number.
        start = point_of(f"{self._keyspace}:{bucket}")
        points, names = self._points, self._names
        first = bisect(points, start)
        for index in chain(range(first, len(points)), range(first)):
            if names[index] in among:
                yield (points[index] - start) % _CIRCLE, names[index]

    def preference(self, bucket: int) -> list[str]:
        """Return all nodes, the one where the bucket would rather lie first."""
        return list(dict.fromkeys(name for _, name in self.walk(bucket, self.nodes)))


def weights_of(nodes: Iterable[Node]) -> dict[str, float]:
    """Return name -> weight; raise Rejected for two nodes of one name or a weight that can't be one."""
    weights: dict[str, float] = {}
    for node in nodes:
        if node.name in weights:
            raise Rejected(f"there are two nodes named {node.name!r}")
        if not (math.isfinite(node.weight) and node.weight >= 0):
            raise Rejected(f"{node.name!r} has the weight {node.weight}: it must be a number from 0")
        weights[node.name] = float(node.weight)
    return weights
