"""How much each node should hold: by weight, as far as pins and regions let it.

DESIGN. Water-filling. What may lie anywhere is poured over all nodes until it stands at one level (load per unit of
weight). A node whose pinned load stands above that level keeps it and gets nothing more; a region whose own load stands
above it is a basin of its own, levelled within. Both lower the level for the rest, so they are looked for again until
none is left; each round settles at least one node or region, so it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True, slots=True)
class Seat:
    """A node as the planner sees it; ``pinned`` is the load that can't leave it."""

    name: str
    weight: float  # above 0
    region: str = ""
    pinned: float = 0.0


def fair_shares(seats: Iterable[Seat], free: float, bound: Mapping[str, float]) -> dict[str, float]:
    """Return name -> the load that node should hold, its pinned load included.

    ``free`` is the load that may lie on any node, ``bound`` that which must stay in a region (which must have a seat);
    both without what is pinned. The order of the seats has no meaning.
    """
    basins: dict[str, list[Seat]] = {}
    for seat in sorted(seats, key=lambda seat: seat.name):
        basins.setdefault(seat.region, []).append(seat)
    own = {region: bound.get(region, 0.0) + fsum(each.pinned for each in basin) for region, basin in basins.items()}
    apart: dict[str, float] = {}
    while True:
        common = [seat for basin in basins.values() for seat in basin]
        shares = _level(common, free + fsum(own[region] for region in basins))
        full = [region for region in basins if fsum(shares[each.name] for each in basins[region]) < own[region]]
        full = [region for region in full if bound.get(region, 0.0) > 0 and len(basins) > 1]
        if not full:
            return apart | shares
        for region in full:
            apart |= _level(basins.pop(region), own[region])


def _level(seats: list[Seat], load: float) -> dict[str, float]:
    """Share ``load`` by weight, nobody getting less than what is pinned to it."""
    settled: dict[str, float] = {}
    left = list(seats)
    while left:
        level = (load - fsum(settled.values())) / fsum(seat.weight for seat in left)
        above = {seat.name: seat.pinned for seat in left if seat.pinned > seat.weight * level}
        if not above:
            return settled | {seat.name: seat.weight * level for seat in left}
        settled |= above
        left = [seat for seat in left if seat.name not in above]
    return settled
