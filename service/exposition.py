"""The fleet as Prometheus metrics: counters add up over workers, dead ones included; ages and lags are the worst."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from service import VERSION
from service.fleet import COUNTERS, Fleet, WorkerState
from service.metrics import BOUNDS, total

_COUNTED = {
    "opened": "Connections opened.",
    "lost": "Connections lost.",
    "overdue": "Connections given up because their statement went past its deadline.",
    "refused": "Requests refused: too many wait, or the breaker is open.",
}


def exposition(fleet: Fleet) -> bytes:
    """Return all metrics in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fleet(fleet))
    return generate_latest(registry)


class _Fleet(Collector):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    @override
    def collect(self) -> Iterable[Metric]:
        """Yield every family."""
        yield _gauge("service_info", "Which version this is.", ("version",), [((VERSION,), 1)])
        yield _durations(self._fleet.workers)
        yield from _workers(self._fleet)
        yield from _cluster(self._fleet)
        yield from _endpoints(self._fleet)


def _durations(workers: Iterable[WorkerState]) -> Metric:
    family = HistogramMetricFamily(
        "service_request_seconds", "How long requests took, by operation and status.", labels=("operation", "status")
    )
    for entry in total(part for worker in workers for part in worker.durations()):
        running, buckets = 0, []
        for bound, number in zip((*map(str, BOUNDS), "+Inf"), entry.buckets, strict=True):
            running += number
            buckets.append((bound, running))
        family.add_metric((entry.operation, str(entry.status)), buckets, entry.seconds)
    return family


def _workers(fleet: Fleet) -> Iterator[Metric]:
    views = fleet.worker_views()
    serving = sum(view.status == "serving" for view in views)
    yield _gauge("service_workers", "Worker processes that serve.", (), [((), serving)])
    yield _gauge("service_workers_wanted", "Worker processes that should serve.", (), [((), len(views))])
    yield _gauge("service_requests_in_flight", "Requests under way.", (), [((), sum(v.in_flight for v in views))])
    label = ("worker",)
    by_seat = [((str(worker.index),), worker) for worker in fleet.workers]
    yield _counter("service_worker_restarts", "Workers that had to be replaced.", label,
                   [(at, worker.restarts) for at, worker in by_seat])  # fmt: skip
    yield _counter("service_worker_cpu_seconds", "Processor time.", label,
                   [(at, worker.cpu_seconds()) for at, worker in by_seat])  # fmt: skip
    alive = [(at, worker.report) for at, worker in by_seat if worker.report]
    yield _gauge("service_worker_resident_bytes", "Memory.", label, [(at, one.resident_bytes) for at, one in alive])
    yield _gauge("service_worker_loop_late_seconds", "How late the event loop came round when it was last asked.",
                 label, [(at, one.late_seconds) for at, one in alive])  # fmt: skip


def _cluster(fleet: Fleet) -> Iterator[Metric]:
    seen = [report.cluster for report in fleet.reports()]
    if not seen:
        return
    epoch = min(one.epoch for one in seen)
    age = max(one.snapshot_age_seconds for one in seen)
    answers = min(one.catalog_answers for one in seen)
    yield _gauge("shardlib_topology_epoch", "The oldest snapshot in use.", (), [((), epoch)])
    yield _gauge("shardlib_snapshot_age_seconds", "Since the catalog last confirmed it.", (), [((), age)])
    yield _gauge("shardlib_catalog_up", "Whether the catalog answers.", (), [((), int(answers))])


def _endpoints(fleet: Fleet) -> Iterator[Metric]:
    nodes = list(fleet.nodes())
    up = [((node.name,), {"down": 0.0, "partly": 0.5, "up": 1.0}[node.status]) for node in nodes]
    yield _gauge("shardlib_node_up", "1: every worker can write there; 0: none can.", ("node",), up)
    labels = ("node", "address", "role")
    seats = [((node.name, one.address, one.role), one) for node in nodes for one in node.endpoints]
    yield _gauge("shardlib_endpoint_usable_workers", "Workers that may send requests there.", labels,
                 [(at, one.usable_by) for at, one in seats])  # fmt: skip
    yield _gauge("shardlib_replica_lag_seconds", "How far behind it may be.", labels,
                 [(at, one.lag_seconds) for at, one in seats if one.lag_seconds is not None])  # fmt: skip
    yield _gauge("shardlib_pool_waiting", "Requests that wait for a connection.", labels,
                 [(at, one.waiting) for at, one in seats])  # fmt: skip
    states = [((*at, state), getattr(one, state)) for at, one in seats for state in ("idle", "busy")]
    yield _gauge("shardlib_pool_connections", "Connections.", (*labels, "state"), states)
    sums: dict[tuple[str, str, str], int] = defaultdict(int)
    for worker in fleet.workers:
        for key, number in worker.counted().items():
            sums[key] += number
    for name in COUNTERS:
        rows = [((node, address), n) for (node, address, counter), n in sorted(sums.items()) if counter == name]
        yield _counter(f"shardlib_pool_{name}", _COUNTED[name], ("node", "address"), rows)


def _gauge(name: str, about: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def _counter(name: str, about: str, labels: tuple[str, ...], rows: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = CounterMetricFamily(name, about, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family
