"""Which bucket should lie on which node, starting from where they lie now.

DESIGN. The ring decides where a bucket goes when it must go; present owners decide whether it must. First what has no
choice: pinned buckets go to their node, buckets of leaving nodes and of the wrong region lose theirs. Those that have
none are placed by the ring. Then loads are brought into their bands (balance.py). A band is the fair share and what
makes max/mean and mean/min 1.02, or one bucket where that is more: shares of whole buckets can't always be nearer.

What can't be done isn't chased: a bucket larger than a band, a region without a node. The plan goes as far as it can
and says what is left. It depends on nothing but its arguments, not even on the order of the nodes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

from shardlib.core.balance import Band, Board, Edge
from shardlib.core.ring import Ring, weights_of
from shardlib.core.shares import Seat, fair_shares
from shardlib.core.topology import Node
from shardlib.errors import Rejected, UnknownName

TOLERANCE = 1 - 1 / 1.02  # of the fair share, to both sides: what mean/min <= 1.02 allows; max/mean allows a bit more


@dataclass(frozen=True, slots=True)
class Goal:
    """What the cluster should look like.

    A node of weight 0, or one that isn't named, gives up all buckets but those pinned to it. ``sizes`` are bytes by
    bucket; without them, or when all are 0, buckets are counted.
    """

    nodes: Sequence[Node]
    sizes: Sequence[int] | None = None
    pins: Mapping[int, str] = field(default_factory=dict)  # bucket -> the node it must lie on, whatever its region
    regions: Mapping[int, str] = field(default_factory=dict)  # bucket -> the region whose nodes alone may hold it


class Reason(enum.Enum):
    """Why a bucket moves."""

    NEW = "it has no owner yet"
    PIN = "it is pinned to another node"
    LEAVING = "its node is leaving"
    REGION = "its node is in another region"
    BALANCE = "its node holds more than others"


@dataclass(frozen=True, slots=True)
class BucketMove:
    """One bucket that should lie elsewhere; ``source`` is None for a bucket without an owner."""

    bucket: int
    source: str | None
    target: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class Share:
    """A node's load (bytes or buckets) before and after, what it should be, and how much it may differ."""

    node: str
    fair: float
    slack: float
    before: float
    after: float

    @property
    def balanced(self) -> bool:
        """Whether the load lies in the band afterwards."""
        band = Band(self.fair, self.slack)
        return band.below(Edge.LOWER) <= self.after <= band.above(Edge.UPPER)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where each bucket should lie, and what that takes.

    ``moved`` and ``needed`` are in ``unit``: what the moves carry, and what must move at least so that each node gets
    its exact fair share. ``problems`` are sentences about what can't be had.
    """

    owners: tuple[str, ...]
    moves: tuple[BucketMove, ...]
    shares: tuple[Share, ...]
    unit: str  # "bytes" or "buckets"
    moved: float
    needed: float
    problems: tuple[str, ...]

    def explain(self) -> str:
        """Return the plan in words and a table, for people."""
        lines = [
            f"{len(self.moves):,} of {len(self.owners):,} buckets move: {self.moved:,.0f} {self.unit}, "
            f"where exact shares would need {self.needed:,.0f}",
            f"{'node':<24} {'share':>16} {'before':>16} {'after':>16} {'off':>8}",
        ]
        for each in self.shares:
            off = f"{each.after / each.fair - 1:+.1%}" if each.fair else ""
            lines.append(f"{each.node:<24} {each.fair:>16,.1f} {each.before:>16,.0f} {each.after:>16,.0f} {off:>8}")
        return "\n".join([*lines, *self.problems])


def plan(keyspace: str, owners: Sequence[str | None], goal: Goal) -> Plan:
    """Return the placement that serves the goal with the fewest moves; None owns the buckets of an empty cluster.

    Raises Rejected when a bucket without an owner has no node that may hold it, and for numbers that make no sense.
    """
    _check(owners, goal)
    seats = {node.name: node for node in goal.nodes if node.weight > 0}
    counted = goal.sizes is None or not any(goal.sizes)
    sizes: Sequence[int] = (1,) * len(owners) if counted or goal.sizes is None else goal.sizes
    start = _start(owners, goal, seats)
    bands = _bands(start, seats, sizes, goal.regions)
    board = Board(Ring(keyspace, goal.nodes), bands, sizes, goal.regions)
    for bucket, node in start.fixed.items():
        if node in seats:
            board.fix(bucket, node)
    for bucket, node in start.kept.items():
        board.keep(bucket, node)
    board.place(start.homeless)
    board.balance()

    placed = {**start.fixed, **board.home}
    after = tuple(placed[bucket] for bucket in range(len(owners)))
    moves = tuple(
        BucketMove(bucket, source, target, _reason(bucket, source, goal, seats))
        for bucket, (source, target) in enumerate(zip(owners, after, strict=True))
        if source != target
    )
    shares = _shares(owners, after, sizes, bands)
    return Plan(
        owners=after,
        moves=moves,
        shares=shares,
        unit="buckets" if counted else "bytes",
        moved=sum(sizes[move.bucket] for move in moves),
        needed=_needed(owners, start, sizes, bands),
        problems=(*start.problems, *_off_balance(shares, after, sizes)),
    )


@dataclass(frozen=True, slots=True)
class _Start:
    """What is settled before anything is chosen."""

    fixed: Mapping[int, str]  # bucket -> the node that it must go to or stay on
    kept: Mapping[int, str]  # bucket -> its present node, which it may leave for balance
    homeless: Sequence[int]
    problems: Sequence[str]


def _check(owners: Sequence[str | None], goal: Goal) -> None:
    names = weights_of(goal.nodes).keys()
    if goal.sizes is not None and (len(goal.sizes) != len(owners) or min(goal.sizes, default=0) < 0):
        raise Rejected(f"there must be a size from 0 for each of the {len(owners)} buckets")
    for bucket in (*goal.pins, *goal.regions):
        if not 0 <= bucket < len(owners):
            raise Rejected(f"there is no bucket {bucket} to pin or to keep in a region")
    if strangers := sorted(set(goal.pins.values()) - names):
        raise UnknownName(f"buckets are pinned to unknown nodes: {', '.join(strangers)}")


def _start(owners: Sequence[str | None], goal: Goal, seats: Mapping[str, Node]) -> _Start:
    regions = {node.region for node in seats.values()}
    fixed: dict[int, str] = {}
    kept: dict[int, str] = {}
    homeless: list[int] = []
    nowhere: dict[str | None, list[int]] = {}
    for bucket, owner in enumerate(owners):
        region = goal.regions.get(bucket)
        if bucket in goal.pins:
            fixed[bucket] = goal.pins[bucket]
        elif not seats or (region is not None and region not in regions):
            nowhere.setdefault(region, []).append(bucket)
            if owner is not None:
                fixed[bucket] = owner
        elif owner is not None and owner in seats and region in (None, seats[owner].region):
            kept[bucket] = owner
        else:
            homeless.append(bucket)
    problems = [_no_node(region, buckets) for region, buckets in nowhere.items()]
    if any(owners[bucket] is None for buckets in nowhere.values() for bucket in buckets):
        raise Rejected("; ".join(problems))
    return _Start(fixed, kept, homeless, problems)


def _no_node(region: str | None, buckets: Sequence[int]) -> str:
    where = "no node" if region is None else f"no node in region {region!r}"
    return f"{where} may take {len(buckets)} bucket(s), among them {buckets[0]}: they stay where they are"


def _bands(
    start: _Start, seats: Mapping[str, Node], sizes: Sequence[int], regions: Mapping[int, str]
) -> dict[str, Band]:
    pinned = dict.fromkeys(seats, 0)
    for bucket, node in start.fixed.items():
        if node in seats:
            pinned[node] += sizes[bucket]
    free = 0
    bound: dict[str, float] = {}
    for bucket in (*start.kept, *start.homeless):
        if (region := regions.get(bucket)) is None:
            free += sizes[bucket]
        else:
            bound[region] = bound.get(region, 0) + sizes[bucket]
    chairs = [Seat(name, node.weight, node.region, pinned[name]) for name, node in seats.items()]
    one_bucket = fsum(sizes) / max(1, len(sizes))
    return {
        name: Band(fair, max(TOLERANCE * fair, one_bucket), seats[name].region)
        for name, fair in fair_shares(chairs, free, bound).items()
    }


def _reason(bucket: int, source: str | None, goal: Goal, seats: Mapping[str, Node]) -> Reason:
    if source is None:
        return Reason.NEW
    if bucket in goal.pins:
        return Reason.PIN
    if source not in seats:
        return Reason.LEAVING
    if goal.regions.get(bucket) not in (None, seats[source].region):
        return Reason.REGION
    return Reason.BALANCE


def _loads(owners: Sequence[str | None], sizes: Sequence[int]) -> dict[str, int]:
    loads: dict[str, int] = {}
    for owner, size in zip(owners, sizes, strict=True):
        if owner is not None:
            loads[owner] = loads.get(owner, 0) + size
    return loads


def _shares(
    owners: Sequence[str | None], after: Sequence[str], sizes: Sequence[int], bands: Mapping[str, Band]
) -> tuple[Share, ...]:
    """Return the shares of all nodes that hold or held anything or should; a leaving node's is what is left on it."""
    was, now = _loads(owners, sizes), _loads(after, sizes)
    shares = []
    for name in sorted({*bands, *was, *now}):
        band = bands.get(name, Band(now.get(name, 0), 1))
        shares.append(Share(name, band.fair, band.slack, was.get(name, 0), now.get(name, 0)))
    return tuple(shares)


def _needed(owners: Sequence[str | None], start: _Start, sizes: Sequence[int], bands: Mapping[str, Band]) -> float:
    """Return what must move at least: pins to their nodes, and to each node what it lacks of its exact share."""
    staying: dict[str, int] = {}
    coming: dict[str, int] = {}
    for bucket, node in (*start.fixed.items(), *start.kept.items()):
        side = staying if owners[bucket] == node else coming
        side[node] = side.get(node, 0) + sizes[bucket]
    lacking = {name: band.fair - staying.get(name, 0) for name, band in bands.items()}
    return fsum(max(coming.get(name, 0), lacking.get(name, 0)) for name in sorted({*lacking, *coming}))


def _off_balance(shares: Sequence[Share], after: Sequence[str], sizes: Sequence[int]) -> list[str]:
    problems = []
    for share in shares:
        if share.balanced:
            continue
        large = [b for b, node in enumerate(after) if node == share.node and sizes[b] > share.fair + share.slack]
        why = f"bucket {large[0]} alone is more than it may hold" if large else "no bucket that may move would fit"
        problems.append(f"{share.node} stays {share.after / share.fair - 1:+.1%} off its share: {why}")
    return problems
