"""What happens inside, as frozen records: metrics, logs and traces hang here.

An Observer gets each event in the event loop and must not block. Requests that go well make no event, so that they
cost nothing; ``Cluster.health()`` has the counters.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TopologyChanged:
    """A newer snapshot is in use."""

    incarnation: int
    epoch: int
    source: str  # "catalog" or "file"


@dataclass(frozen=True, slots=True)
class CatalogLost:
    """The catalog didn't answer; requests go on with the last snapshot."""

    reason: str


@dataclass(frozen=True, slots=True)
class CatalogFound:
    """The catalog answers again."""


@dataclass(frozen=True, slots=True)
class SnapshotNotSaved:
    """The snapshot file can't be written: this process couldn't start again while the catalog is down."""

    reason: str


@dataclass(frozen=True, slots=True)
class BreakerOpened:
    """An endpoint is left alone until its monitor gets an answer."""

    node: str
    endpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class BreakerClosed:
    """An endpoint answers again."""

    node: str
    endpoint: str


@dataclass(frozen=True, slots=True)
class PrimaryChanged:
    """A node's primary is another endpoint than before, or None is known."""

    node: str
    endpoint: str | None
    timeline: int


@dataclass(frozen=True, slots=True)
class Rerouted:
    """A request was sent to a node that doesn't own its bucket, or can't say so, and is routed again."""

    keyspace: str
    bucket: int
    node: str
    reason: str


@dataclass(frozen=True, slots=True)
class OutcomeLost:
    """A write was sent and no answer came."""

    keyspace: str
    bucket: int
    node: str


Event = (
    TopologyChanged
    | CatalogLost
    | CatalogFound
    | SnapshotNotSaved
    | BreakerOpened
    | BreakerClosed
    | PrimaryChanged
    | Rerouted
    | OutcomeLost
)


class Observer(Protocol):
    """Anything with a method that takes one event."""

    def observe(self, event: Event, /) -> None:
        """Take note of the event; an exception from here reaches the event loop's handler, not the request."""


class Silence:
    """The observer that is there when nobody asked for one."""

    def observe(self, event: Event, /) -> None:
        """Ignore it."""


class Guarded:
    """Hands events to another observer, and its exceptions to the event loop's handler."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def observe(self, event: Event, /) -> None:
        """Pass it on."""
        try:
            self._observer.observe(event)
        except Exception as error:  # anything: it is somebody else's code, in the middle of a request
            context = {"message": f"an observer failed on {type(event).__name__}", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
