"""Counting requests, cheaply, and adding up what several processes counted.

DESIGN. On the request path a count is one look-up and a few integer additions; names, labels and text exist only in the
supervisor, at a scrape. A worker's counts are a plain value that travels over its control socket; those of a worker
that died are kept, so a counter never goes back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from msgspec import Struct, field

BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
Labels = tuple[str, int]  # (operation, status)


class Durations(Struct):
    """How long the requests of one operation and status took."""

    operation: str
    status: int
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, other: Durations) -> None:
        """Count what another process counted."""
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.seconds += other.seconds


class Counts:
    """What one process counts."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._durations: dict[Labels, Durations] = {}

    def observe(self, operation: str, status: int, seconds: float) -> None:
        """Count one request."""
        entry = self._durations.get((operation, status))
        if entry is None:
            entry = self._durations[operation, status] = Durations(operation, status)
        entry.buckets[bisect_left(BOUNDS, seconds)] += 1
        entry.seconds += seconds

    def durations(self) -> list[Durations]:
        """Return the counts so far."""
        return list(self._durations.values())


def total(parts: Iterable[Durations]) -> list[Durations]:
    """Return the sum over processes."""
    sums: dict[Labels, Durations] = {}
    for part in parts:
        key = (part.operation, part.status)
        sums.setdefault(key, Durations(part.operation, part.status)).add(part)
    return list(sums.values())
