"""``shardctl doctor``: what is wrong, where, and what to do about it."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator

import click

from shardlib import admin
from shardlib.cli.catalog import run
from shardlib.cli.checks.findings import Finding, Level, error
from shardlib.cli.checks.nodes import Errand, check_node
from shardlib.cli.checks.servers import SQL, check_password, judge_application
from shardlib.cli.checks.tables import judge_alike
from shardlib.cli.failures import FOUND_SOMETHING, PASSWORDS
from shardlib.cli.output import json_option, show
from shardlib.cli.settings import Settings
from shardlib.cli.values import without_password
from shardlib.core.keys import hash_named
from shardlib.core.topology import Topology
from shardlib.errors import NodeUnavailable, ShardlibError, UnknownName
from shardlib.pg.inspect import looking_at
from shardlib.pg.link import Credentials


@click.command("doctor")
@click.option("--rows", "count_rows", is_flag=True, help="Also read all rows, and count those on wrong nodes.")
@json_option
@click.pass_context
def command(ctx: click.Context, count_rows: bool, as_json: bool) -> None:
    """Look for what is wrong in the catalog, on every node and replica; change nothing.

    Looks at reachability as each role, formats, versions and settings, what the roles may do, replicas, attached
    tables, the agreement of Python and SQL on buckets. Exit code 1: something was found.
    """
    topology, findings = run(_examine(ctx.obj, count_rows))
    document = {
        "well": not findings,
        "epoch": topology.epoch if topology else None,
        "nodes": sorted(topology.nodes) if topology else [],
        "rows_counted": count_rows,
        "findings": findings,
    }
    show(as_json, document, _text(topology, findings))
    if findings:
        ctx.exit(FOUND_SOMETHING)


async def _examine(settings: Settings, count_rows: bool) -> tuple[Topology | None, list[Finding]]:
    credentials = Credentials.from_environment()
    url, admin_url = settings.need_catalog(), settings.need_admin_catalog()
    findings = [
        *await _check_catalog(url, credentials.application, "the application"),
        *await _check_catalog(admin_url, credentials.admin, "the administrator"),
        *await check_password("catalog", url),
    ]
    topology = await _read(settings, findings)
    if topology is not None:
        errand = Errand(topology, credentials, count_rows)
        reports = await asyncio.gather(*(check_node(node, errand) for _name, node in sorted(topology.nodes.items())))
        findings += [finding for report in reports for finding in report.findings]
        findings += judge_alike({report.node: report.tables for report in reports if report.tables is not None})
    return topology, sorted(findings, key=lambda finding: finding.level is not Level.ERROR)


async def _read(settings: Settings, findings: list[Finding]) -> Topology | None:
    """Return the topology by whichever role can read it."""
    ways = ((admin.view_topology, settings.need_catalog()), (admin.read_topology, settings.need_admin_catalog()))
    for read, url in ways:
        try:
            topology = await read(url)
        except ShardlibError as reason:
            trouble = reason
            continue
        findings += judge_topology(topology)
        return topology
    if not findings:
        findings.append(error("catalog", str(trouble), "shardctl init makes a database the catalog, or upgrades it"))
    return None


async def _check_catalog(url: str, password: str | None, whose: str) -> list[Finding]:
    try:
        async with looking_at(url, password) as look:
            row = await look.row(SQL["server"])
            owned = [owned["name"] for owned in await look.rows(SQL["owns"])]
            await look.row(SQL["catalog"])
    except NodeUnavailable as reason:
        return [error("catalog", f"{whose} can't read {without_password(url)}: {reason}", PASSWORDS)]
    return list(judge_application("catalog", row, owned)) if whose == "the application" else []


def judge_topology(topology: Topology) -> Iterator[Finding]:
    """Judge what the catalog holds."""
    if not topology.nodes:
        yield error("catalog", "there are no nodes", "shardctl nodes add NAME --url URL")
    elif not topology.keyspaces:
        yield error("catalog", "there are no keyspaces", "shardctl create-keyspace NAME --hash HASH")
    for name, space in sorted(topology.keyspaces.items()):
        try:
            hash_named(space.hash)
        except UnknownName as reason:
            yield error("catalog", f"keyspace {name}: {reason}", "register it, or use the version that knows it")


def _text(topology: Topology | None, findings: list[Finding]) -> str:
    looked = f"the catalog and {len(topology.nodes)} nodes, epoch {topology.epoch}" if topology else "the catalog"
    if not findings:
        return f"All is well: {looked}."
    parts = [f"Looked at {looked}: {len(findings)} found."]
    for found in findings:
        advice = textwrap.indent(textwrap.fill(found.advice, 96), "    ")
        parts.append(f"{found.level.upper():<8}{found.where}: {found.what}\n{advice}")
    return "\n\n".join(parts)
