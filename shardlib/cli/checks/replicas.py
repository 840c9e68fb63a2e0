"""A node's replicas: do they stream, how far are they, do they follow the right primary?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic

from shardlib.cli.checks.findings import Finding, Row, error, warning
from shardlib.core.topology import Node
from shardlib.errors import NodeUnavailable
from shardlib.pg.inspect import Look, looking_at
from shardlib.sql import load

SQL = load("doctor")
CATCH_UP_SECONDS = 2.0  # for a replica to replay what its primary had when we began
POLL_SECONDS = 0.05
MOST_KEPT_BYTES = 1 << 30  # of log, by a slot that nobody reads


async def check_replicas(node: Node, primary: Look, password: str | None) -> list[Finding]:
    """Look at each replica, and at the slots that replicas have left."""
    findings = list(judge_slots(node.name, await primary.rows(SQL["idle_slots"])))
    facts = await primary.row(SQL["node"])
    position = await primary.row(SQL["position"])
    looks = (_check_replica(node, url, (facts["timeline"], position["lsn"]), password) for url in node.replicas)
    return findings + [finding for found in await asyncio.gather(*looks) for finding in found]


def judge_slots(where: str, rows: list[Row]) -> Iterator[Finding]:
    """Judge the slots that nobody reads: they keep log until the disk is full."""
    for row in rows:
        if row["kept_bytes"] > MOST_KEPT_BYTES:
            what = f"nobody reads the slot {row['name']}, which keeps {row['kept_bytes'] >> 20} MB of log"
            yield warning(where, what, "start its replica, or pg_drop_replication_slot before the disk is full")


async def _check_replica(node: Node, url: str, goal: tuple[int, int], password: str | None) -> list[Finding]:
    where = f"{node.name} replica {url.rpartition('@')[2].partition('/')[0]}"
    until = monotonic() + CATCH_UP_SECONDS
    try:
        async with looking_at(url, password) as look:
            row = await look.row(SQL["replayed"])
            while row["in_recovery"] and row["lsn"] < goal[1] and monotonic() < until:
                await asyncio.sleep(POLL_SECONDS)
                row = await look.row(SQL["replayed"])
    except NodeUnavailable as reason:
        advice = f"start it, or forget it: shardctl nodes set {node.name} --replica (those that stay) or --no-replicas"
        return [error(where, f"it can't be looked at: {reason}", advice)]
    return list(judge_replica(where, node.name, row, goal))


def judge_replica(where: str, node: str, row: Row, goal: tuple[int, int]) -> Iterator[Finding]:
    """Judge a replica by its primary's timeline and position of a while ago."""
    timeline, position = goal
    if row["name"] != node:
        advice = f"correct its address: shardctl nodes set {node} --replica URL"
        yield error(where, f"it is a database of {row['name']}", advice)
    elif not row["in_recovery"]:
        yield error(where, "it isn't a replica: it takes writes", "rebuild it from the primary, or correct its address")
    elif row["timeline"] != timeline:
        advice = "rebuild it from the primary, or with pg_rewind: it followed another one"
        yield error(where, f"it is on timeline {row['timeline']}, its primary on {timeline}", advice)
    elif row["paused"]:
        yield warning(where, "its replay is paused", "SELECT pg_wal_replay_resume()")
    elif not row["receiving"]:
        advice = "look at its log: is its slot there, does its password fit, is the primary's address right?"
        yield error(where, "it doesn't stream from its primary", advice)
    elif row["lsn"] < position:
        behind = f"{(position - row['lsn']) / 1e6:.1f} MB and more than {CATCH_UP_SECONDS:.0f} s"
        yield warning(where, f"it is behind its primary by {behind}", "is it too slow, or held up by a long query?")
