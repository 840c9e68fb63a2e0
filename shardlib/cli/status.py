"""``shardctl status``: what the nodes say of themselves."""

from __future__ import annotations

import asyncio
import math
from time import monotonic
from typing import Any

import click

import shardlib
from shardlib.cli.catalog import owned, run
from shardlib.cli.failures import FOUND_SOMETHING
from shardlib.cli.output import duration, json_option, show, table
from shardlib.cli.settings import Settings
from shardlib.core.topology import Topology
from shardlib.stats import ClusterHealth, EndpointHealth, NodeHealth

PATIENCE_SECONDS = 1.5  # for replicas to show how far behind they are; of a stopped one it will never be known
POLL_SECONDS = 0.05


@click.command("status")
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show nodes, replicas, keyspaces and the epoch. Exit code 1: a node or a replica doesn't serve."""
    topology, health = run(_look(ctx.obj))
    ill = [
        f"{node.name} {end.address}: {_state(end)}" for node in health.nodes for end in node.endpoints if not end.usable
    ]
    document = _document(topology, health)
    document["well"] = not ill
    lines = [
        f"epoch {topology.epoch}, incarnation {topology.incarnation}",
        _node_table(topology, health),
        _keyspace_table(topology),
        f"Not serving: {'; '.join(ill)}. shardctl doctor says more." if ill else "All endpoints serve.",
    ]
    show(as_json, document, "\n\n".join(line for line in lines if line))
    if ill:
        ctx.exit(FOUND_SOMETHING)


async def _look(settings: Settings) -> tuple[Topology, ClusterHealth]:
    async with shardlib.connect(settings.need_catalog(), application_name="shardctl", pool_size=1) as cluster:
        health, until = cluster.health(), monotonic() + PATIENCE_SECONDS
        while not _is_complete(health) and monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
            health = cluster.health()
        return cluster.topology, health


def _is_complete(health: ClusterHealth) -> bool:
    """Return whether each replica's lag is known: it takes a second look to tell."""
    return not any(end.lag_seconds == math.inf for node in health.nodes for end in node.endpoints)


def _document(topology: Topology, health: ClusterHealth) -> dict[str, Any]:
    return {
        "epoch": topology.epoch,
        "incarnation": topology.incarnation,
        "nodes": [_node_document(topology, node) for node in health.nodes],
        "keyspaces": [
            {"name": space.name, "hash": space.hash, "buckets": space.buckets, "moving": len(space.moving)}
            for _name, space in sorted(topology.keyspaces.items())
        ],
    }


def _node_document(topology: Topology, node: NodeHealth) -> dict[str, Any]:
    entry = topology.nodes[node.name]
    plain = [
        {
            "address": end.address,
            "role": end.role,
            "usable": end.usable,
            "broken": end.broken,
            "lag_seconds": None if end.lag_seconds == math.inf else end.lag_seconds,
        }
        for end in node.endpoints
    ]
    return {
        "name": node.name,
        "writable": node.writable,
        "timeline": node.timeline,
        "weight": entry.weight,
        "region": entry.region,
        "zone": entry.zone,
        "buckets": owned(topology, node.name),
        "endpoints": plain,
    }


def _node_table(topology: Topology, health: ClusterHealth) -> str:
    spaces = sorted(topology.keyspaces)
    rows: list[list[object]] = []
    for node in health.nodes:
        counts = owned(topology, node.name)
        for number, end in enumerate(node.endpoints):
            shares = [counts[name] if number == 0 else "" for name in spaces]
            lag = duration(end.lag_seconds) or ("" if end.role == "primary" else None)
            rows.append([node.name if number == 0 else "", end.address, end.role, _state(end), lag, *shares])
    heads = [name.upper() for name in spaces]
    return (
        table(["NODE", "ADDRESS", "ROLE", "STATE", "LAG", *heads], rows, right=("LAG", *heads)) if rows else "no nodes"
    )


def _keyspace_table(topology: Topology) -> str:
    rows = [
        [space.name, space.hash, space.buckets, len(space.moving)]
        for _name, space in sorted(topology.keyspaces.items())
    ]
    return table(["KEYSPACE", "HASH", "BUCKETS", "MOVING"], rows, right=("BUCKETS", "MOVING")) if rows else ""


def _state(end: EndpointHealth) -> str:
    if end.broken:
        return end.broken
    return "serves" if end.usable else "no answer yet"
