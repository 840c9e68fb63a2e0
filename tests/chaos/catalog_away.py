"""The catalog is stopped under load: what do requests notice?

    python -m tests.chaos.catalog_away [SECONDS]

Prints rates and durations, and exits 1 on any error, or if the median read takes more than 2.2 times as long: while the
catalog is away each read of a primary costs a second statement. What it is compared with runs at the same time, in the
same process and on the same nodes: clients whose lease is so long that they don't notice.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from time import monotonic

from shardlib.testing.initial import environment
from shardlib.testing.plugin import private_servers
from tests.chaos.load import Request, Summary, under_load, until
from tests.pg.stage import KEYSPACE, Stage, gone_stale, is_fresh
from tests.support.waiting import wait_for

LEASE_SECONDS = 3.0
NEVER_SECONDS = 86_400.0
CLIENTS = 8  # per node, of each of the two kinds
MOST = 2.2


@dataclass(frozen=True)
class Findings:
    """What was seen while the catalog was away, by those whose lease had run out and by the others."""

    reads: Summary
    other_reads: Summary
    writes: Summary
    other_writes: Summary
    errors: list[str]  # of all, from first to last
    fresh_after: float  # seconds

    @property
    def reads_ratio(self) -> float:
        """The median read, in multiples of the others'."""
        return self.reads.milliseconds(50) / self.other_reads.milliseconds(50)

    @property
    def writes_ratio(self) -> float:
        """The median write, in multiples of the others'."""
        return self.writes.milliseconds(50) / self.other_writes.milliseconds(50)

    def __str__(self) -> str:
        return "\n".join(
            (
                f"reads:        {self.reads}; p50 ratio {self.reads_ratio:.2f}",
                f"  the others: {self.other_reads}",
                f"writes:       {self.writes}; p50 ratio {self.writes_ratio:.2f}",
                f"  the others: {self.other_writes}",
                f"{len(self.errors)} errors in all; fresh again {self.fresh_after:.2f} s after the catalog was back",
            )
        )


async def take_away(stage: Stage, seconds: float, lease_seconds: float) -> Findings:
    """Stop the catalog under load for so many seconds after the lease has run out."""
    catalog = stage.databases.servers.catalog
    async with (
        stage.databases.connect(keyspace=KEYSPACE, lease_seconds=lease_seconds) as cluster,
        stage.databases.connect(keyspace=KEYSPACE, lease_seconds=NEVER_SECONDS) as other,
        under_load(cluster, CLIENTS) as load,
        under_load(other, CLIENTS, beside=CLIENTS) as other_load,
    ):
        await wait_for(lambda: min(len(load.requests), len(other_load.requests)) > 100)
        await asyncio.to_thread(catalog.stop)
        await gone_stale(cluster, lease_seconds)
        began = monotonic()
        await until(began + seconds)
        ended = monotonic()
        await asyncio.to_thread(catalog.start)
        back = monotonic()
        await wait_for(lambda: is_fresh(cluster, lease_seconds))
        fresh = monotonic()
        await wait_for(lambda: any(request.began > fresh for request in load.requests))
    return Findings(
        reads=load.during(began, ended, is_read),
        other_reads=other_load.during(began, ended, is_read),
        writes=load.during(began, ended, is_write),
        other_writes=other_load.during(began, ended, is_write),
        errors=load.during(0, ended).errors + other_load.during(0, ended).errors,
        fresh_after=fresh - back,
    )


def is_read(request: Request) -> bool:
    return not request.wrote


def is_write(request: Request) -> bool:
    return request.wrote


async def main(seconds: float) -> bool:
    """Run it on servers of its own; return whether it is as it should be."""
    with private_servers(nodes=2, replicas=0) as databases, environment(databases.environment):
        stage = Stage(databases)
        await stage.prepare()
        found = await take_away(stage, seconds, LEASE_SECONDS)
    print(found)
    return not found.errors and found.reads_ratio <= MOST


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)))
