"""Move buckets between nodes until each node's load lies in its band: the greedy part of a plan.

DESIGN. Every node has a band around its fair share. The fullest node gives, nodes that lack take; which bucket goes,
and to which of the takers, the ring decides: the pair that lies nearest on it. The phases below say who may give and
take, strictest first, and are repeated until none of them moves anything. Each move brings down the sum of what lies
outside the bands, so that ends, and planning again from the result moves nothing. In the first two phases nobody is
carried past its fair share, so each byte moved is one that had to; the others are for the last bucket, when fair shares
aren't whole buckets.

Placing by the ring alone under a tight bound, at every change, cascades: one bucket pushes out the next, between nodes
that have nothing to do with the change.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from shardlib.core.ring import Ring

_ROUNDING = 1e-9  # of a share: two loads this close are one

Walk = Iterator[tuple[int, str]]


class Edge(enum.Enum):
    """A height of a node's load, in slacks above its fair share."""

    LOWER = -1
    FAIR = 0
    UPPER = 1


@dataclass(frozen=True, slots=True)
class Band:
    """What a node should hold, and by how much it may differ."""

    fair: float
    slack: float  # above 0
    region: str = ""

    def above(self, edge: Edge) -> float:
        """Return the load at that edge and a little more: the least that counts as above it."""
        return self.fair + edge.value * self.slack + (self.fair + self.slack) * _ROUNDING

    def below(self, edge: Edge) -> float:
        """Return the load at that edge and a little less: the most that counts as below it."""
        return self.fair + edge.value * self.slack - (self.fair + self.slack) * _ROUNDING

    def pressure(self, load: float) -> float:
        """Return how full a node is: 0 at its fair share, 1 and -1 at the edges of the band."""
        return (load - self.fair) / self.slack


@dataclass(frozen=True, slots=True)
class Phase:
    """Who may give (loads above an edge, leaving at least another) and take (below one, filled to at most another)."""

    gives_above: Edge
    keeps: Edge
    takes_below: Edge
    fills_to: Edge


BALANCING = (
    Phase(gives_above=Edge.FAIR, keeps=Edge.FAIR, takes_below=Edge.LOWER, fills_to=Edge.FAIR),
    Phase(gives_above=Edge.UPPER, keeps=Edge.FAIR, takes_below=Edge.FAIR, fills_to=Edge.FAIR),
    Phase(gives_above=Edge.UPPER, keeps=Edge.LOWER, takes_below=Edge.FAIR, fills_to=Edge.UPPER),
    Phase(gives_above=Edge.FAIR, keeps=Edge.LOWER, takes_below=Edge.LOWER, fills_to=Edge.UPPER),
)


class Board:
    """Where each bucket lies while a plan is being made."""

    def __init__(
        self, ring: Ring, bands: Mapping[str, Band], sizes: Sequence[float], regions: Mapping[int, str]
    ) -> None:
        """Start with empty nodes; a bucket in ``regions`` may only lie on nodes of that region."""
        self.ring = ring
        self.bands = bands
        self.sizes = sizes
        self.regions = regions
        self.load = dict.fromkeys(sorted(bands), 0.0)
        self.home: dict[int, str] = {}
        self._held: dict[str, set[int]] = {name: set() for name in bands}
        self._fixed: set[int] = set()
        self._strays: set[int] = set()  # buckets that move in any case: to send them elsewhere costs nothing

    def keep(self, bucket: int, node: str) -> None:
        """Let a bucket begin on a node."""
        self.home[bucket] = node
        self._held[node].add(bucket)
        self.load[node] += self.sizes[bucket]

    def fix(self, bucket: int, node: str) -> None:
        """Let a bucket begin, and end, on a node."""
        self.keep(bucket, node)
        self._fixed.add(bucket)

    def place(self, strays: Iterable[int]) -> None:
        """Find nodes for buckets that lie nowhere, the largest first; for each there must be one it may lie on.

        This is consistent hashing with bounded loads (arXiv 1608.01350), the bound at the fair share, then at the
        band's edge; what is larger goes where it weighs least.
        """
        self._strays.update(strays)
        bound = self._strays & self.regions.keys()  # first, while their region still has room
        for buckets in (bound, self._strays - bound):
            self._place(buckets)

    def balance(self) -> None:
        """Move buckets until every load lies in its band, or nothing can be moved that helps."""
        moved = True
        while moved:
            moved = False
            for phase in BALANCING:
                moved |= self._shift(phase)

    def allows(self, bucket: int, node: str) -> bool:
        """Return whether the bucket's region lets it lie there."""
        region = self.regions.get(bucket)
        return region is None or region == self.bands[node].region

    def _place(self, buckets: Iterable[int]) -> None:
        left = set(buckets)
        for edge in (Edge.FAIR, Edge.UPPER):
            takers = Takers(self, below=edge, fill_to=edge)
            offers = Offers(takers, left, lambda bucket: -self.sizes[bucket])
            while found := offers.best():
                self.keep(*found)
                takers.changed(found[1])
            left -= self.home.keys()
        for bucket in sorted(left, key=lambda bucket: (-self.sizes[bucket], bucket)):
            self.keep(bucket, self._least_pressed(bucket))

    def _least_pressed(self, bucket: int) -> str:
        size = self.sizes[bucket]
        return min(
            (name for name in self.load if self.allows(bucket, name)),
            key=lambda name: self.bands[name].pressure(self.load[name] + size),
        )

    def _movable(self, node: str, spare: float) -> Iterator[int]:
        """Yield the buckets of at most that size that may leave the node and would make it lighter."""
        return (bucket for bucket in self._held[node] - self._fixed if 0 < self.sizes[bucket] <= spare)

    def _cost(self, bucket: int) -> float:
        """Return what moving a bucket costs, for comparison: those that move anyway come first."""
        return 0.0 if bucket in self._strays else 1.0

    def _shift(self, phase: Phase) -> bool:
        """Do one phase; return whether anything moved."""
        takers = Takers(self, below=phase.takes_below, fill_to=phase.fills_to)
        full = [name for name, load in self.load.items() if load > self.bands[name].above(phase.gives_above)]
        queue = [(-self.bands[name].pressure(self.load[name]), name) for name in full]
        heapify(queue)
        offers: dict[str, Offers] = {}
        moved = False
        while queue and takers.open:
            name = heappop(queue)[1]
            band = self.bands[name]
            spare = self.load[name] - band.below(phase.keeps)
            if name not in offers:
                offers[name] = Offers(takers, self._movable(name, spare), self._cost)
            found = offers[name].best(spare)
            if found is None:
                continue
            self._move(*found)
            takers.changed(found[1])
            moved = True
            if self.load[name] > band.above(phase.gives_above):
                heappush(queue, (-band.pressure(self.load[name]), name))
        return moved

    def _move(self, bucket: int, node: str) -> None:
        giver = self.home[bucket]
        self._held[giver].remove(bucket)
        self.load[giver] -= self.sizes[bucket]
        self.keep(bucket, node)
        self._strays.add(bucket)


class Takers:
    """The nodes that may take in a phase; what one takes only ever closes it, so no list is searched twice."""

    def __init__(self, board: Board, *, below: Edge, fill_to: Edge) -> None:
        """Open the nodes whose load is below an edge; none is filled beyond the other."""
        self.board = board
        self.open: set[str] = set()
        self._below = {name: band.below(below) for name, band in board.bands.items()}
        self._top = {name: band.above(fill_to) for name, band in board.bands.items()}
        self._gaps: dict[str | None, list[tuple[float, str]]] = {}  # by region, None: all; the largest first
        for name, load in board.load.items():
            if load < self._below[name]:
                self.open.add(name)
                for region in (None, board.bands[name].region):
                    self._gaps.setdefault(region, []).append((load - self._top[name], name))
        for gaps in self._gaps.values():
            heapify(gaps)

    def accept(self, bucket: int, node: str) -> bool:
        """Return whether the node takes the bucket now."""
        return (
            node in self.open
            and self.board.load[node] + self.board.sizes[bucket] <= self._top[node]
            and self.board.allows(bucket, node)
        )

    def changed(self, node: str) -> None:
        """Close the node if it no longer lacks anything."""
        if self.board.load[node] >= self._below[node]:
            self.open.discard(node)

    def nearest(self, bucket: int, walk: Walk) -> tuple[int, str] | None:
        """Return the next (distance, node) on the walk that takes the bucket."""
        if self.board.sizes[bucket] > self._widest(self.board.regions.get(bucket)):
            return None  # no use in walking around the ring
        return next((step for step in walk if self.accept(bucket, step[1])), None)

    def _widest(self, region: str | None) -> float:
        gaps = self._gaps.get(region, [])
        while gaps:
            gap, node = gaps[0]
            now = self.board.load[node] - self._top[node]
            if node in self.open and gap == now:
                return -gap
            heappop(gaps)
            if node in self.open:
                heappush(gaps, (now, node))
        return -1.0


class Offers:
    """Buckets that may go, each with the nearest node that takes it; the cheapest and nearest pair first."""

    def __init__(self, takers: Takers, buckets: Iterable[int], cost: Callable[[int], float]) -> None:
        """Look for a taker for each bucket."""
        self._takers = takers
        self._queue: list[tuple[float, int, int, str, Walk]] = []
        for bucket in buckets:
            self._offer(cost(bucket), bucket, takers.board.ring.walk(bucket, takers.open))

    def best(self, spare: float = float("inf")) -> tuple[int, str] | None:
        """Take out the best (bucket, node) of at most that size, None when there is none.

        What is too large is dropped for good: what its node can spare only becomes less.
        """
        while self._queue:
            cost, _, bucket, node, walk = heappop(self._queue)
            if self._takers.board.sizes[bucket] > spare:
                continue
            if self._takers.accept(bucket, node):
                return bucket, node
            self._offer(cost, bucket, walk)
        return None

    def _offer(self, cost: float, bucket: int, walk: Walk) -> None:
        if found := self._takers.nearest(bucket, walk):
            heappush(self._queue, (cost, found[0], bucket, found[1], walk))
