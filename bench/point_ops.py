"""Point reads, updates and inserts by key against asyncpg's pool and against held connections; multi-get of 100 keys.

All run in one process on the rows of one node: throughput with 16 tasks at once, latency with one.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from random import Random
from uuid import UUID

from bench.harness import Comparison, Goal, Measure, compared, report, setting, take_turns
from bench.peers.points import INSERT, READ, READ_MANY, UPDATE, Call, Held, Pooled
from bench.stage import Stage, servers, stage, version
from shardlib import Cluster

WORKERS = 16
ROUNDS, PER_WORKER = 20, 200
LATENCY_ROUNDS, LATENCY_CALLS = 40, 200
MULTI_GET_ROUNDS, MULTI_GET_CALLS, MULTI_GET_KEYS = 30, 40, 100

Caller = Callable[[str, int], Call]  # (statement, worker) -> what runs it


def ours(cluster: Cluster) -> Caller:
    """Return our way to run a statement, of which the first argument is the key."""
    def calls(query: str, _worker: int) -> Call:
        if query is READ:
            return lambda key: cluster.shard(key, keyspace="users").fetchrow(query, key)
        return lambda key, *more: cluster.shard(key, keyspace="users").execute(query, key, *more)

    return calls


def throughput(caller: Caller, query: str, arguments: Sequence[Iterator[tuple[object, ...]]]) -> Measure:
    """Measure statements per second, one task for each iterator of arguments."""
    async def work(call: Call, mine: Iterator[tuple[object, ...]]) -> None:
        for _ in range(PER_WORKER):
            await call(*next(mine))

    async def measure() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(work(caller(query, number), mine) for number, mine in enumerate(arguments)))
        return len(arguments) * PER_WORKER / (time.perf_counter() - started)

    return measure


def latency(call: Call, arguments: Iterator[tuple[object, ...]], calls: int) -> Measure:
    """Measure the microseconds of a call, one after another: the median, which a busy neighbour hardly moves."""
    async def measure() -> float:
        taken = []
        for _ in range(calls):
            mine = next(arguments)
            started = time.perf_counter()
            await call(*mine)
            taken.append(time.perf_counter() - started)
        return statistics.median(taken) * 1e6

    return measure


def shuffled(keys: Sequence[UUID], seed: int) -> Iterator[tuple[object, ...]]:
    """Yield keys for ever, in an order of their own."""
    return cycle([(key,) for key in Random(seed).sample(keys, len(keys))])


def fresh(keys: Iterator[UUID]) -> Iterator[tuple[object, ...]]:
    """Yield rows to insert."""
    return ((key, "name", "mail@example.org") for key in keys)


async def compare_throughput(on: Stage, callers: dict[str, Caller]) -> list[Comparison]:
    """Compare reads, updates and inserts with both peers."""
    results = []
    for verb, query in (("read", READ), ("update", UPDATE), ("insert", INSERT)):
        arguments = [
            fresh(on.new_keys()) if query is INSERT else shuffled(on.keys, number) for number in range(WORKERS)
        ]
        contenders = {name: throughput(caller, query, arguments) for name, caller in callers.items()}
        taken = await take_turns(contenders, ROUNDS)
        results += [
            compared(f"{verb}, 16 tasks, vs asyncpg's pool", "/s", taken["ours"], taken["pool"], Goal(2.2)),
            compared(f"{verb}, 16 tasks, vs held", "/s", taken["ours"], taken["held"], Goal(0.88)),
        ]
    return results


async def compare_latency(on: Stage, callers: dict[str, Caller]) -> list[Comparison]:
    """Compare one task's reads and updates with a held connection's."""
    results = []
    for verb, query in (("read", READ), ("update", UPDATE)):
        arguments = shuffled(on.keys, 0)
        contenders = {name: latency(caller(query, 0), arguments, LATENCY_CALLS) for name, caller in callers.items()}
        taken = await take_turns(contenders, LATENCY_ROUNDS)
        results.append(
            compared(f"{verb}, 1 task, vs held", "us", taken["ours"], taken["held"], Goal(1.10, "at most"))
        )
    return results


async def compare_multi_get(on: Stage, held: Held) -> Comparison:
    """Compare a multi-get from all nodes with one node's ``= ANY``."""
    def batches(keys: Sequence[UUID]) -> Iterator[tuple[object, ...]]:
        return cycle([(keys[at:at + MULTI_GET_KEYS],) for at in range(0, len(keys) - MULTI_GET_KEYS, MULTI_GET_KEYS)])

    async def many(keys: Sequence[UUID]) -> object:
        return await on.cluster.fetch_many(READ_MANY, keys, keyspace="users")

    contenders = {
        "ours": latency(many, batches(on.keys_everywhere), MULTI_GET_CALLS),
        "any": latency(held.calls(READ_MANY, 0), batches(on.keys), MULTI_GET_CALLS),
    }
    taken = await take_turns(contenders, MULTI_GET_ROUNDS)
    name = f"{MULTI_GET_KEYS} keys of 3 nodes vs = ANY on one"
    return compared(name, "us", taken["ours"], taken["any"], Goal(2.0, "at most"))


@asynccontextmanager
async def peers(on: Stage) -> AsyncIterator[tuple[Pooled, Held]]:
    """Open both peers; close them."""
    async with AsyncExitStack() as stack:
        pooled = await Pooled.open(on.url, WORKERS)
        stack.push_async_callback(pooled.close)
        held = await Held.open(on.url, WORKERS)
        stack.push_async_callback(held.close)
        yield pooled, held


async def main() -> None:
    """Run all and write the report."""
    with servers() as started:
        async with stage(started, pool_size=WORKERS) as on, peers(on) as (pooled, held):
            callers = {"ours": ours(on.cluster), "pool": pooled.calls, "held": held.calls}
            results = await compare_throughput(on, callers)
            results += await compare_latency(on, {name: callers[name] for name in ("ours", "held")})
            results.append(await compare_multi_get(on, held))
            postgres = await version(started)
            report("point_ops", results, setting(postgres=postgres, rows=len(on.keys_everywhere), fsync="off"))
