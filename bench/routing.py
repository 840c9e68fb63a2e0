"""What routing costs without any I/O, and that it doesn't grow with the number of nodes or buckets."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from random import Random
from uuid import UUID

from bench.harness import Comparison, Goal, compared, report, setting, within
from shardlib.core.keys import Key, hash_named
from shardlib.core.route import ReplicaView, choose, wish_for
from shardlib.core.tokens import Token
from shardlib.core.topology import Keyspace, Node, Since, Topology

REPEATS, CALLS = 60, 5000
SMALL, LARGE = (3, 4096), (1000, 65_536)  # (nodes, buckets)
GROWTH = Goal(1.2, "at most")
KEYS: dict[str, Key] = {
    "uuid_tail": UUID("0190a5c3-7f5e-7cc1-9d51-3f2b8c4d5e6f"),
    "int": 8_123_456_789,
    "str": "1:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
BUDGET_US = {"uuid_tail": 1.0, "int": 3.5}
ROUTE_BUDGET_US = 5.0


def topology(nodes: int, buckets: int, hash_name: str) -> Topology:
    """Make a snapshot in which every hundredth bucket has moved once."""
    names = [f"node{number}" for number in range(1, nodes + 1)]
    dice = Random(1)
    owners = tuple(dice.choice(names) for _ in range(buckets))
    since = {bucket: Since(5, owners[bucket], 1, 1 << 24) for bucket in range(0, buckets, 100)}
    entries = {name: Node(name, f"postgresql://{name}/app") for name in names}
    return Topology(1, 9, entries, {"users": Keyspace("users", hash_name, owners, since)})


def best_us(*calls: Callable[[], object]) -> list[float]:
    """Return the microseconds of each call: the best of many repeats in turns, since noise only ever adds."""
    taken = [[timeit.timeit(call, number=CALLS) for call in calls] for _ in range(REPEATS)]
    return [min(column) / CALLS * 1e6 for column in zip(*taken, strict=True)]


def owner_look_up(hash_name: str, size: tuple[int, int]) -> Callable[[], object]:
    keyspace = topology(*size, hash_name).keyspace("users")
    bucket_of, key, mask, owners = hash_named(hash_name).bucket, KEYS[hash_name], keyspace.mask, keyspace.owners
    return lambda: owners[bucket_of(key, mask)]


def full_route(size: tuple[int, int]) -> Callable[[], object]:
    """Route a read with a token to one of two replicas, as ``Reader`` does."""
    snapshot = topology(*size, "uuid_tail")
    key, bucket_of = KEYS["uuid_tail"], hash_named("uuid_tail").bucket
    replicas = [ReplicaView(True, 1, 1 << 30, 99.9, 1.0, load) for load in (3, 2)]
    home = snapshot.keyspace("users")
    token = Token("users", bucket_of(key, home.mask), 0, home.owners[bucket_of(key, home.mask)], 1, 1 << 28)

    def route() -> tuple[str, int | None]:
        keyspace = snapshot.keyspace("users")
        bucket = bucket_of(key, keyspace.mask)
        node = keyspace.owners[bucket]
        wish = wish_for(1.0, 1, node, keyspace.since.get(bucket), token)
        return node, choose(replicas, wish, 100.0, 0.4)

    assert route()[1] is not None
    return route


async def main() -> None:
    """Run all and write the report."""
    results: list[Comparison] = []
    makers: dict[str, Callable[[tuple[int, int]], Callable[[], object]]] = {
        f"{name}: key to node": lambda size, name=name: owner_look_up(name, size)  # type: ignore[misc]
        for name in KEYS
    }
    budgets = {f"{name}: key to node": budget for name, budget in BUDGET_US.items()}
    makers["replica read with token"], budgets["replica read with token"] = full_route, ROUTE_BUDGET_US
    for name, make in makers.items():
        small, large = best_us(make(SMALL), make(LARGE))
        if name in budgets:
            results.append(within(f"{name}, vs budget", "us", small, budgets[name]))
        results.append(compared(f"{name}, 1000 nodes vs 3", "us", [large], [small], GROWTH))
    report("routing", results, setting())
