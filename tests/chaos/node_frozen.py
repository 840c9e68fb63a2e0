"""One node of two stops answering, all its processes at once: what do requests for the other one notice?

    python -m tests.chaos.node_frozen [SECONDS]

Prints rates and durations before, during and after, and exits 1 unless the other node kept 0.9 of its rate with a p99
of at most 1.5 times what it was, the frozen one's requests ended within their deadline, and all healed by itself.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from time import monotonic

from shardlib.observe import BreakerOpened
from shardlib.testing.initial import environment
from shardlib.testing.plugin import private_servers
from tests.chaos.load import Load, Request, Summary, under_load, until
from tests.pg.stage import KEYSPACE, Heard, Stage
from tests.support.waiting import wait_for

FROZEN, OTHER = "node1", "node2"
CALL_SECONDS = 2.0
HEAL_SECONDS = 10.0


@dataclass
class Watch(Heard):
    """Notes when the breaker of a node opened."""

    opened_at: float = float("inf")

    def observe(self, event: object, /) -> None:
        """Look for the first opening."""
        if isinstance(event, BreakerOpened):
            self.opened_at = min(self.opened_at, monotonic())


@dataclass(frozen=True)
class Findings:
    """What was seen."""

    before: Summary  # of the other node
    during: Summary
    waiting: Summary  # requests for the frozen node, before its breaker opened
    refused: Summary  # and after
    opened_after: float  # seconds
    healed_after: float

    @property
    def rate_kept(self) -> float:
        """The other node's rate, of what it was."""
        return self.during.rate / self.before.rate

    @property
    def p99_grew(self) -> float:
        """The other node's p99, in multiples of what it was."""
        return self.during.milliseconds(99) / self.before.milliseconds(99)

    def __str__(self) -> str:
        return "\n".join(
            (
                f"the other node before: {self.before}",
                f"the other node during: {self.during}",
                f"  it kept {self.rate_kept:.3f} of its rate; its p99 grew {self.p99_grew:.2f} times",
                f"the frozen one, breaker closed ({self.opened_after:.2f} s): {self.waiting}",
                f"the frozen one, breaker open: {self.refused}; the slowest {1000 * self.refused.slowest:.1f} ms",
                f"  slowest {self.waiting.slowest:.2f} s of {CALL_SECONDS} s; healed in {self.healed_after:.2f} s",
            )
        )


async def freeze(stage: Stage, seconds: float, steady: float) -> Findings:
    """Freeze a node under load for so many seconds, after a steady stretch of this length."""
    server, watch = stage.servers(FROZEN).primary, Watch()
    options = {"keyspace": KEYSPACE, "call_seconds": CALL_SECONDS, "observer": watch}
    async with stage.databases.connect(**options) as cluster, under_load(cluster) as load:
        await wait_for(lambda: len(load.requests) > 100)
        began = monotonic()
        await until(began + steady)
        server.freeze()
        frozen = monotonic()
        try:
            await until(frozen + seconds)
        finally:
            server.thaw()
        thawed = monotonic()
        await wait_for(lambda: answered_since(load, thawed), HEAL_SECONDS)
        healed = monotonic()
    return sum_up(load, began, frozen, thawed, healed, watch.opened_at)


def answered_since(load: Load, moment: float) -> bool:
    """Tell whether each client of the frozen node has had a good answer to a request begun since."""
    good = [request for request in load.requests if request.began > moment and is_frozen(request) and not request.error]
    return len(good) >= 2 * load.clients


def is_frozen(request: Request) -> bool:
    return request.node == FROZEN


def sum_up(load: Load, began: float, frozen: float, thawed: float, healed: float, opened_at: float) -> Findings:
    opened = min(opened_at, thawed)
    return Findings(
        before=load.during(began, frozen, lambda request: not is_frozen(request)),
        during=load.during(frozen, thawed, lambda request: not is_frozen(request)),
        waiting=load.during(frozen, opened, is_frozen),
        refused=load.during(opened, thawed, is_frozen),
        opened_after=opened - frozen,
        healed_after=healed - thawed,
    )


async def main(seconds: float) -> bool:
    """Run it on servers of its own; return whether it is as it should be."""
    with private_servers(nodes=2, replicas=0) as databases, environment(databases.environment):
        stage = Stage(databases)
        await stage.prepare()
        found = await freeze(stage, seconds, steady=min(seconds, 20.0))
    print(found)
    in_time = found.waiting.slowest <= CALL_SECONDS + 0.25 and found.refused.milliseconds(99) <= 10
    return found.rate_kept >= 0.9 and found.p99_grew <= 1.5 and in_time and not found.during.errors


if __name__ == "__main__":
    sys.exit(not asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 45.0)))
