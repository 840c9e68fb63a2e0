"""``shardctl nodes``: list, add, change and remove nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import click

from shardlib import admin
from shardlib.cli.catalog import owned, read_catalog, run
from shardlib.cli.failures import NotAllowed
from shardlib.cli.output import json_option, show, table
from shardlib.cli.settings import ADMIN_ROLE, Settings, as_role
from shardlib.cli.values import ADDRESS, NODE_NAME, WEIGHT
from shardlib.core.topology import Node, Topology

_ABOUT = {
    "--admin-url": "The primary, directly, as its owner; else --url as shardlib_admin.",
    "--replication-url": "The primary, as the other nodes reach it; else --admin-url.",
    "--replica": "A streaming replica, as the application reaches it; one option for each.",
    "--weight": "The share of buckets that it should hold, relative to the other nodes.",
    "--region": "Where it is, for placement and for reads nearby.",
    "--zone": "Where it is within the region.",
}


def _described(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that ``add`` and ``set`` share, none of them required."""
    kinds: dict[str, dict[str, Any]] = {
        "--admin-url": {"type": ADDRESS, "metavar": "URL"},
        "--replication-url": {"type": ADDRESS, "metavar": "URL"},
        "--replica": {"type": ADDRESS, "metavar": "URL", "multiple": True, "default": None},
        "--weight": {"type": WEIGHT, "metavar": "NUMBER"},
        "--region": {"metavar": "NAME"},
        "--zone": {"metavar": "NAME"},
    }
    for option, kind in reversed(kinds.items()):
        function = click.option(option, help=_ABOUT[option], **kind)(function)
    return function


@click.group("nodes")
def command() -> None:
    """List, add, change and remove nodes.

    A node is one Postgres primary and its streaming replicas. Addresses look like postgresql://shardlib@host:5432/app
    and carry no password.
    """


@command.command("list")
@json_option
@click.pass_obj
def list_nodes(settings: Settings, as_json: bool) -> None:
    """List the nodes of the catalog; whether they answer is what status says."""
    _show_all(run(read_catalog(settings)), as_json)


@command.command("add")
@click.argument("name", type=NODE_NAME)
@click.option("--url", type=ADDRESS, metavar="URL", required=True, help="The primary, as the application reaches it.")
@_described
@json_option
@click.pass_obj
def add(settings: Settings, /, name: str, as_json: bool, **given: Any) -> None:
    """Add node NAME: install the bookkeeping in its database, then enter it in the catalog. It owns no bucket yet.

    The database must exist and belong to the administrator's role. For a node that is there already this upgrades or
    repairs the bookkeeping; what isn't given stays.
    """
    url = settings.need_admin_catalog()
    known = run(admin.read_topology(url)).nodes.get(name)
    node = known or Node(name, given["url"], admin_url=as_role(given["url"], ADMIN_ROLE))
    if known not in (None, replace(node, **_given(given))):
        raise NotAllowed(f"there is a node {name} with other properties: shardctl nodes set changes them")
    node = replace(node, **_given(given))
    topology = run(admin.add_node(url, node, overwrite=False))
    show(as_json, _document(topology, node), f"{name} is in the catalog (epoch {topology.epoch}); see shardctl doctor")


@command.command("set")
@click.argument("name", type=NODE_NAME)
@click.option("--url", type=ADDRESS, metavar="URL", help="The primary, as the application reaches it.")
@_described
@click.option("--no-replicas", is_flag=True, help="Forget all its replicas.")
@json_option
@click.pass_obj
def change(settings: Settings, /, name: str, no_replicas: bool, as_json: bool, **given: Any) -> None:
    """Change what the catalog knows of node NAME. Only what is given changes; --replica replaces the whole list."""
    changes = _given(given) | ({"replicas": ()} if no_replicas else {})
    if no_replicas and given["replica"]:
        raise click.UsageError("--no-replicas or --replica, not both")
    if not changes:
        raise click.UsageError("nothing to change: give at least one option")
    url = settings.need_admin_catalog()
    if name not in run(admin.read_topology(url)).nodes:
        raise NotAllowed(f"there is no node {name}: shardctl nodes list shows them")
    topology = run(admin.set_node(url, name, changes))
    show(as_json, _document(topology, topology.nodes[name]), f"{name} is changed (epoch {topology.epoch})")


@command.command("remove")
@click.argument("name", type=NODE_NAME)
@json_option
@click.pass_obj
def remove(settings: Settings, name: str, as_json: bool) -> None:
    """Forget node NAME, which must own no bucket. Its database stays as it is."""
    topology = run(admin.remove_node(settings.need_admin_catalog(), name))
    show(as_json, {"removed": name, "epoch": topology.epoch}, f"{name} is forgotten (epoch {topology.epoch})")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of a node that the command line names."""
    named = {name: value for name, value in options.items() if value is not None and value != ()}
    return {"replicas" if name == "replica" else name: value for name, value in named.items()}


def _document(topology: Topology, node: Node) -> dict[str, Any]:
    return {**asdict(node), "buckets": owned(topology, node), "epoch": topology.epoch}


def _show_all(topology: Topology, as_json: bool) -> None:
    nodes = [topology.nodes[name] for name in sorted(topology.nodes)]
    documents = [{**asdict(node), "buckets": owned(topology, node)} for node in nodes]
    rows = [
        (
            node.name,
            sum(owned(topology, node).values()),
            f"{node.weight:g}",
            node.region or None,
            node.zone or None,
            node.url,
            " ".join(node.replicas) or None,
        )
        for node in nodes
    ]
    headers = ("node", "buckets", "weight", "region", "zone", "url", "replicas")
    text = table(headers, rows, right=("buckets", "weight")) if rows else "No nodes: shardctl nodes add"
    show(as_json, {"epoch": topology.epoch, "nodes": documents}, text)
