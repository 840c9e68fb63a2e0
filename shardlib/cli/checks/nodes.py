"""One node: its servers, its bookkeeping against the catalog's, its tables, its replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from shardlib.cli.checks.findings import Finding, Row, error, warning
from shardlib.cli.checks.keyspaces import check_hashes, check_rows, check_spread, judge_keyspaces
from shardlib.cli.checks.replicas import check_replicas
from shardlib.cli.checks.servers import SQL, check_administrator, check_application, check_password
from shardlib.cli.checks.tables import Shape, judge_attached, judge_rights, shapes
from shardlib.cli.failures import PASSWORDS
from shardlib.core.topology import Node, Topology
from shardlib.errors import NodeUnavailable
from shardlib.pg.inspect import Look, looking_at
from shardlib.pg.link import FORMATS, Credentials

MOST_FOREIGN = 5  # buckets that a message names


@dataclass(slots=True)
class NodeReport:
    """What was found on a node, its tables, and which database each role reached (system identifier, name)."""

    node: str
    findings: list[Finding] = field(default_factory=list)
    tables: Mapping[str, Shape] | None = None  # None: it couldn't be asked
    reached: set[tuple[int, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Errand:
    """What every check needs to know."""

    topology: Topology
    credentials: Credentials
    count_rows: bool


async def check_node(node: Node, errand: Errand) -> NodeReport:
    """Look at a node as the application, as the administrator, and at its replicas."""
    report = NodeReport(node.name)
    passwords = errand.credentials

    async def as_application(look: Look) -> None:
        server = await check_application(node.name, look, report.findings)
        report.reached.add((server["system"], server["database"]))
        if not (await look.row(SQL["has_bookkeeping"]))[0]:
            advice = f"run shardctl nodes add {node.name} --url {node.url} again"
            report.findings.append(error(node.name, "it has no bookkeeping of shardlib's", advice))
            return
        await _check_bookkeeping(report, look, errand, server)

    async def as_administrator(look: Look) -> None:
        server = await check_administrator(node.name, look, report.findings)
        report.reached.add((server["system"], server["database"]))
        await _check_contents(report, node, look, errand)

    _, _, open_door = await asyncio.gather(
        _reached(report, node.url, passwords.application, "the application", as_application),
        _reached(report, node.admin_url or node.url, passwords.admin, "the administrator", as_administrator),
        check_password(node.name, node.url),
    )
    report.findings += open_door
    if len(report.reached) > 1:
        advice = f"correct them: shardctl nodes set {node.name} --url URL --admin-url URL"
        report.findings.append(error(node.name, "its url and its admin_url lead to different databases", advice))
    return report


async def _reached(
    report: NodeReport,
    url: str,
    password: str | None,
    whose: str,
    check: Callable[[Look], Coroutine[Any, Any, None]],
) -> None:
    try:
        async with looking_at(url, password) as look:
            await check(look)
    except NodeUnavailable as reason:
        advice = (
            f"is it running, is the address right (shardctl nodes set {report.node}), and the password? {PASSWORDS}"
        )
        report.findings.append(error(report.node, f"{whose} can't look at {url}: {reason}", advice))


async def _check_bookkeeping(report: NodeReport, look: Look, errand: Errand, server: Row) -> None:
    name, topology = report.node, errand.topology
    row = await look.row(SQL["node"])
    foreign = await look.rows(SQL["foreign_buckets"])
    report.findings += judge_bookkeeping(name, row, topology)
    report.findings += judge_foreign(name, foreign, topology)
    known = {row["name"]: row for row in await look.rows(SQL["keyspaces"])}
    report.findings += judge_keyspaces(name, known, topology)
    report.findings += await check_hashes(name, look, topology, known)
    attached = await look.rows(SQL["attached"])
    report.findings += judge_attached(name, attached, topology)
    if not server["superuser"]:
        report.findings += judge_rights(name, server["role"], attached)
    report.tables = shapes(attached)


async def _check_contents(report: NodeReport, node: Node, look: Look, errand: Errand) -> None:
    """Check replicas, and what only those who may read every table can."""
    if not (await look.row(SQL["has_bookkeeping"]))[0]:
        return
    report.findings += await check_replicas(node, look, errand.credentials.application)
    if (pending := (await look.row(SQL["pending_claims"]))[0]) > 0:
        advice = "whoever made them died: shardlib.Unique settles each when its value is claimed again"
        report.findings.append(warning(node.name, f"{pending} claims that nobody finished for ten minutes", advice))
    attached = await look.rows(SQL["attached"])
    report.findings += await check_spread(node.name, look, errand.topology, attached)
    if errand.count_rows:
        foreign = await look.rows(SQL["foreign_buckets"])
        report.findings += await check_rows(node.name, look, errand.topology, attached, foreign)


def judge_bookkeeping(where: str, row: Row, topology: Topology) -> Iterator[Finding]:
    """Judge what the node says of itself against the catalog."""
    if row is None:
        yield error(where, "its bookkeeping is empty", f"run shardctl nodes add {where} again")
        return
    if row["name"] != where:
        advice = f"the address leads to another node's database: shardctl nodes set {where} --url URL"
        yield error(where, f"the database calls itself {row['name']}", advice)
    if row["format"] not in FORMATS:
        advice = "upgrade shardctl, or the bookkeeping with shardctl nodes add"
        yield error(where, f"its bookkeeping has format {row['format']}, this version reads {sorted(FORMATS)}", advice)
    if row["newest_epoch"] > topology.epoch:
        advice = "was the catalog restored from a backup? Its epoch must be raised above what every node has seen"
        floor = f"talks to epoch {row['floor_epoch']} or later and " if row["floor_epoch"] > topology.epoch else ""
        what = f"it {floor}has seen epoch {row['newest_epoch']}, the catalog is at {topology.epoch}"
        yield error(where, what, advice)


def judge_foreign(where: str, rows: list[Row], topology: Topology) -> Iterator[Finding]:
    """Judge the foreign list: it is empty at rest."""
    resting = [row for row in rows if (space := topology.keyspaces.get(row["keyspace"])) is None or not space.moving]
    if resting:
        listed = ", ".join(f"{row['keyspace']} {row['bucket']}" for row in resting[:MOST_FOREIGN])
        advice = "a move was left half way, perhaps: rows of them are ignored, scans cost more"
        yield warning(where, f"{len(resting)} buckets on its foreign list while nothing moves ({listed})", advice)
