"""All workers seen as one: what they counted together, and whether the service can do its work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic

from service.metrics import Durations, total
from service.reports import Report
from shardlib import ClusterHealth

COUNTERS = ("opened", "lost", "overdue", "refused")  # of an endpoint's pool
Endpoint = tuple[str, str]  # (node, address)
Counted = dict[tuple[str, str, str], int]  # (node, address, counter) -> number


@dataclass(slots=True)
class WorkerState:
    """One worker's seat: who sits there, what he last said, and what those before him counted."""

    index: int
    pid: int = 0
    report: Report | None = None
    reported_at: float = 0.0  # time.monotonic() seconds
    owing: bool = False  # was asked and hasn't answered
    restarts: int = 0
    past_durations: list[Durations] = field(default_factory=list)
    past_counted: Counted = field(default_factory=lambda: defaultdict(int))
    past_cpu_seconds: float = 0.0

    def heard(self, report: Report) -> None:
        """Take a report in."""
        self.report = report
        self.reported_at = monotonic()
        self.owing = False

    def died(self) -> None:
        """Keep what the worker counted up to its last report."""
        if self.report is not None:
            self.past_durations = self.durations()
            self.past_counted = self.counted()
            self.past_cpu_seconds = self.cpu_seconds()
        self.report, self.pid, self.owing = None, 0, False

    def durations(self) -> list[Durations]:
        """Return what this seat's workers counted, the dead ones included."""
        return total([*self.past_durations, *(self.report.durations if self.report else ())])

    def counted(self) -> Counted:
        """Return the pools' counters of this seat's workers, the dead ones included."""
        sums: Counted = defaultdict(int, self.past_counted)
        for node in self.report.cluster.nodes if self.report else ():
            for endpoint in node.endpoints:
                for name in COUNTERS:
                    sums[node.name, endpoint.address, name] += getattr(endpoint, name)
        return sums

    def cpu_seconds(self) -> float:
        """Return the processor time of this seat's workers."""
        return self.past_cpu_seconds + (self.report.cpu_seconds if self.report else 0.0)


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One address of a node, over all workers."""

    address: str
    role: str
    usable_by: int  # workers that may send requests there
    broken: str
    lag_seconds: float | None
    idle: int
    busy: int
    waiting: int


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, over all workers: "up", "partly" when some can't use it, or "down"."""

    name: str
    status: str
    timeline: int
    endpoints: list[EndpointView]


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker for people to look at."""

    index: int
    pid: int
    status: str  # "serving", "draining", "stuck" or "starting"
    restarts: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether requests should come here: "ready", "degraded" (some nodes down), "unready" or "draining"."""

    status: str
    nodes_up: int
    nodes: int

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send requests."""
        return self.status in ("ready", "degraded")


class Fleet:
    """The workers of one supervisor."""

    def __init__(self) -> None:
        self.draining = False
        self.workers: list[WorkerState] = []

    def add_worker(self, index: int) -> WorkerState:
        """Return the state of a new seat."""
        state = WorkerState(index)
        self.workers.append(state)
        return state

    def reports(self) -> list[Report]:
        """Return the last report of each worker that lives."""
        return [worker.report for worker in self.workers if worker.report is not None]

    def readiness(self) -> Readiness:
        """Return whether requests should come here."""
        nodes = list(self.nodes())
        up = sum(node.status != "down" for node in nodes)
        serving = any(view.status == "serving" for view in self.worker_views())
        if self.draining:
            status = "draining"
        elif not serving or (nodes and not up):
            status = "unready"
        else:
            status = "ready" if up == len(nodes) else "degraded"
        return Readiness(status, up, len(nodes))

    def worker_views(self) -> list[WorkerView]:
        """Return each worker for people to look at."""
        return [_worker_view(worker) for worker in self.workers]

    def nodes(self) -> Iterator[NodeView]:
        """Yield each node as the workers see it together."""
        seen = [report.cluster for report in self.reports()]
        for name in sorted({node.name for cluster in seen for node in cluster.nodes}):
            yield _node_view(name, seen)


def _worker_view(worker: WorkerState) -> WorkerView:
    report = worker.report
    if report is None:
        status = "starting"
    elif worker.owing:
        status = "stuck"
    else:
        status = "draining" if report.closing else "serving"
    return WorkerView(worker.index, worker.pid, status, worker.restarts, report.in_flight if report else 0)


def _node_view(name: str, seen: Iterable[ClusterHealth]) -> NodeView:
    nodes = [node for cluster in seen for node in cluster.nodes if node.name == name]
    writable = sum(node.writable for node in nodes)
    status = "down" if not writable else "up" if writable == len(nodes) else "partly"
    by_address = defaultdict(list)
    for node in nodes:
        for endpoint in node.endpoints:
            by_address[endpoint.address].append(endpoint)
    views = [
        EndpointView(
            address=address,
            role=max((one.role for one in same), key=("unknown", "replica", "primary").index),
            usable_by=sum(one.usable for one in same),
            broken=next((one.broken for one in same if one.broken), ""),
            lag_seconds=max((one.lag_seconds for one in same if one.lag_seconds is not None), default=None),
            idle=sum(one.idle for one in same),
            busy=sum(one.busy for one in same),
            waiting=sum(one.waiting for one in same),
        )
        for address, same in by_address.items()
    ]
    return NodeView(name, status, max(node.timeline for node in nodes), views)
