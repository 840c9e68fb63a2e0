"""Paced readers and writers, some for each node, and what became of each of their requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

from shardlib.cluster import Cluster
from shardlib.errors import ShardlibError
from tests.pg.stage import INSERT, RAISE, READ, keys_of

PER_SECOND = 25  # requests of each client, as in the test that other systems were put to


@dataclass(frozen=True, slots=True)
class Request:
    """One request: when it began and ended (time.monotonic() seconds), and the error's name, if any."""

    node: str
    wrote: bool
    began: float
    ended: float
    error: str

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


@dataclass
class Load:
    """Clients that each have one key; half of them read, half of them write."""

    cluster: Cluster
    clients: int  # per node
    requests: list[Request] = field(default_factory=list)
    over: bool = False

    async def client(self, node: str, key: int, wrote: bool) -> None:
        """Send requests at an even pace until it is over; a slow answer delays the next one."""
        home = self.cluster.shard(key)
        await home.execute(INSERT, key)
        due = monotonic()
        while not self.over:
            began, error = monotonic(), ""
            try:
                await (home.execute(RAISE, key) if wrote else home.fetchval(READ, key))
            except ShardlibError as failure:
                error = type(failure).__name__
            self.requests.append(Request(node, wrote, began, monotonic(), error))
            due = max(due + 1 / PER_SECOND, monotonic())
            await asyncio.sleep(due - monotonic())

    def during(self, began: float, ended: float, chosen: Callable[[Request], bool] = lambda _: True) -> Summary:
        """Sum up the requests that were begun in that time."""
        some = [request for request in self.requests if began <= request.began < ended and chosen(request)]
        return Summary(some, ended - began)


@dataclass(frozen=True)
class Summary:
    """Some requests of a stretch of time."""

    requests: Sequence[Request]
    seconds: float

    def __len__(self) -> int:
        return len(self.requests)

    @property
    def errors(self) -> list[str]:
        """The names of their errors."""
        return [request.error for request in self.requests if request.error]

    @property
    def rate(self) -> float:
        """Good answers per second."""
        return (len(self) - len(self.errors)) / self.seconds

    @property
    def slowest(self) -> float:
        """The longest took so many seconds."""
        return max((request.seconds for request in self.requests), default=0.0)

    def milliseconds(self, percent: float) -> float:
        """Return a percentile of their durations."""
        ordered = sorted(request.seconds for request in self.requests)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0

    def __str__(self) -> str:
        times = ", ".join(f"p{percent} {self.milliseconds(percent):.2f} ms" for percent in (50, 99))
        errors = f"{len(self.errors)} errors {sorted(set(self.errors))}"
        return f"{len(self):6} requests, {self.rate:7.1f}/s, {times}, {errors}"


@asynccontextmanager
async def under_load(cluster: Cluster, clients: int = 8, beside: int = 0) -> AsyncIterator[Load]:
    """Run so many clients per node, beside so many of another load."""
    load = Load(cluster, clients)
    running = [
        asyncio.ensure_future(load.client(node, key, wrote=bool(number % 2)))
        for node in cluster.topology.nodes
        for number, key in enumerate(keys_of(cluster, node, beside + clients)[beside:])
    ]
    try:
        yield load
    finally:
        load.over = True
        await asyncio.gather(*running)




async def until(moment: float) -> None:
    """Wait for a point on time.monotonic(): a stretch of time is what is measured here."""
    await asyncio.sleep(max(0.0, moment - monotonic()))
