"""``shardctl doctor``: what is wrong, where, and what to do about it."""

from __future__ import annotations

import asyncio
import textwrap

import click

from shardlib.cli.catalog import read_catalog, run
from shardlib.cli.checks.findings import Finding, Level, error
from shardlib.cli.checks.nodes import Errand, check_node, judge_tables_alike
from shardlib.cli.checks.servers import check_password
from shardlib.cli.failures import FOUND_SOMETHING
from shardlib.cli.output import json_option, show
from shardlib.cli.settings import Settings
from shardlib.core.topology import Topology
from shardlib.errors import NodeUnavailable
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
        "epoch": topology.epoch,
        "nodes": sorted(topology.nodes),
        "rows_counted": count_rows,
        "findings": findings,
    }
    show(as_json, document, _text(topology, findings))
    if findings:
        ctx.exit(FOUND_SOMETHING)


async def _examine(settings: Settings, count_rows: bool) -> tuple[Topology, list[Finding]]:
    topology = await read_catalog(settings)
    errand = Errand(topology, Credentials.from_environment(), count_rows)
    reports = await asyncio.gather(*(check_node(node, errand) for _name, node in sorted(topology.nodes.items())))
    findings = await _check_catalog(settings, topology)
    findings += [finding for report in reports for finding in report.findings]
    findings += judge_tables_alike(reports)
    return topology, sorted(findings, key=lambda finding: finding.level is not Level.ERROR)


async def _check_catalog(settings: Settings, topology: Topology) -> list[Finding]:
    findings = await check_password("catalog", settings.catalog)
    try:
        async with looking_at(settings.need_admin_catalog(), Credentials.from_environment().admin):
            pass
    except NodeUnavailable as reason:
        advice = "set SHARDLIB_ADMIN_PASSWORD[_FILE], or give --admin-catalog"
        findings.append(error("catalog", f"it can't be entered as the administrator: {reason}", advice))
    if not topology.nodes:
        findings.append(error("catalog", "there are no nodes", "shardctl nodes add NAME --url URL"))
    elif not topology.keyspaces:
        findings.append(error("catalog", "there are no keyspaces", "shardctl create-keyspace NAME --hash HASH"))
    return findings


def _text(topology: Topology, findings: list[Finding]) -> str:
    looked = f"the catalog and {len(topology.nodes)} nodes, epoch {topology.epoch}"
    if not findings:
        return f"All is well: {looked}."
    parts = [f"Looked at {looked}: {len(findings)} found."]
    for found in findings:
        advice = textwrap.indent(textwrap.fill(found.advice, 96), "    ")
        parts.append(f"{found.level.upper():<8}{found.where}: {found.what}\n{advice}")
    return "\n\n".join(parts)
