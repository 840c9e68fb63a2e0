"""What is known of the cluster from here, as frozen values: for readiness checks, metrics and people."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

from shardlib.ports import Pool
from shardlib.watch import Watcher, now


@dataclass(frozen=True, slots=True)
class EndpointHealth:
    """One address of a node. ``broken`` says why its breaker is open; empty: it is closed."""

    address: str
    role: str  # "primary", "replica" or "unknown"
    broken: str
    lag_seconds: float | None  # of a replica, as an upper bound
    idle: int
    busy: int
    waiting: int
    opened: int
    lost: int
    overdue: int
    refused: int

    @property
    def usable(self) -> bool:
        """Whether requests are sent there."""
        return not self.broken and self.role != "unknown"


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """One node. It is ``writable`` while a primary is known whose breaker is closed."""

    name: str
    timeline: int
    endpoints: tuple[EndpointHealth, ...]

    @property
    def writable(self) -> bool:
        """Whether requests for its keys can be served."""
        return any(endpoint.role == "primary" and endpoint.usable for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class ClusterHealth:
    """The snapshot's age in seconds (since the catalog last confirmed it), and all nodes."""

    incarnation: int
    epoch: int
    snapshot_age_seconds: float
    catalog_answers: bool
    nodes: tuple[NodeHealth, ...]


def health_of(watcher: Watcher) -> ClusterHealth:
    """Return what is known now. Does no I/O."""
    view = watcher.view
    nodes = tuple(
        NodeHealth(name, node.timeline(), tuple(_endpoint(pool, pool is node.primary) for pool in node.all_pools()))
        for name, node in sorted(view.nodes.items())
    )
    age = now() - view.confirmed_at
    return ClusterHealth(view.topology.incarnation, view.epoch, age, watcher.catalog_answers, nodes)


def _endpoint(pool: Pool, is_primary: bool) -> EndpointHealth:
    role = "primary" if is_primary else "replica" if pool.view.usable else "unknown"
    lag = monotonic() - pool.view.current_as_of if role == "replica" else None
    counters = pool.counters
    return EndpointHealth(
        address=pool.name,
        role=role,
        broken=pool.broken,
        lag_seconds=lag,
        idle=len(pool.idle),
        busy=len(pool.busy),
        waiting=pool.waiting,
        opened=counters.opened,
        lost=counters.lost,
        overdue=counters.overdue,
        refused=counters.refused,
    )
