"""The catalog is stopped under load: what do requests notice?

    python -m tests.chaos.catalog_away [SECONDS]

Prints rates and durations before and during, and exits 1 on any error, or if the median read takes more than 2.2 times
as long as before: while it is away each read of a primary costs a second statement.
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
MOST = 2.2


@dataclass(frozen=True)
class Findings:
    """What was seen."""

    reads_before: Summary
    reads_during: Summary
    writes_before: Summary
    writes_during: Summary
    errors: list[str]  # from first to last
    fresh_after: float  # seconds

    @property
    def reads_ratio(self) -> float:
        """The median read, in multiples of what it was."""
        return self.reads_during.milliseconds(50) / self.reads_before.milliseconds(50)

    @property
    def writes_ratio(self) -> float:
        """The median write, in multiples of what it was."""
        return self.writes_during.milliseconds(50) / self.writes_before.milliseconds(50)

    def __str__(self) -> str:
        return "\n".join(
            (
                f"reads before:  {self.reads_before}",
                f"reads during:  {self.reads_during}; p50 ratio {self.reads_ratio:.2f}",
                f"writes before: {self.writes_before}",
                f"writes during: {self.writes_during}; p50 ratio {self.writes_ratio:.2f}",
                f"{len(self.errors)} errors in all; fresh again {self.fresh_after:.2f} s after the catalog was back",
            )
        )


async def take_away(stage: Stage, seconds: float, lease_seconds: float) -> Findings:
    """Stop the catalog under load for so many seconds after the lease has run out."""
    catalog = stage.databases.servers.catalog
    connected = stage.databases.connect(keyspace=KEYSPACE, lease_seconds=lease_seconds)
    async with connected as cluster, under_load(cluster) as load:
        await wait_for(lambda: len(load.requests) > 100)
        began = monotonic()
        await until(began + min(seconds, 20.0))
        stopped = monotonic()
        await asyncio.to_thread(catalog.stop)
        await gone_stale(cluster, lease_seconds)
        stale = monotonic()
        await until(stale + seconds)
        ended = monotonic()
        await asyncio.to_thread(catalog.start)
        back = monotonic()
        await wait_for(lambda: is_fresh(cluster, lease_seconds))
        fresh = monotonic()
        await wait_for(lambda: any(request.began > fresh for request in load.requests))
    return Findings(
        reads_before=load.during(began, stopped, is_read),
        reads_during=load.during(stale, ended, is_read),
        writes_before=load.during(began, stopped, is_write),
        writes_during=load.during(stale, ended, is_write),
        errors=load.during(began, float("inf")).errors,
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
