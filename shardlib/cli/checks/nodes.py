"""One node: its servers, its bookkeeping against the catalog's, its replicas."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from shardlib.cli.checks.findings import Finding, Row, error, names, warning
from shardlib.cli.checks.keyspaces import check_hashes, check_rows
from shardlib.cli.checks.servers import SQL, check_administrator, check_application, check_password
from shardlib.core.topology import Node, Topology
from shardlib.errors import NodeUnavailable
from shardlib.pg.inspect import Look, looking_at
from shardlib.pg.link import FORMATS, Credentials

MOST_LAG_BYTES = 64 << 20


@dataclass(slots=True)
class NodeReport:
    """What was found on a node, and what its nodes have to have in common."""

    node: str
    findings: list[Finding] = field(default_factory=list)
    attached: dict[str, tuple[str, str]] | None = None  # table -> keyspace, key column; None: it couldn't be asked
    unattached: list[str] = field(default_factory=list)


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
        report.findings += await check_application(node.name, look)
        if not (await look.row(SQL["has_bookkeeping"]))[0]:
            advice = f"run shardctl nodes add {node.name} --url {node.url} again"
            report.findings.append(error(node.name, "it has no bookkeeping of shardlib's", advice))
            return
        await _check_bookkeeping(report, look, errand)

    async def as_administrator(look: Look) -> None:
        report.findings += await check_administrator(node.name, look)
        await _check_replicas(report, node, look, passwords.application)

    await _reached(report, node.url, passwords.application, "as the application", as_application)
    await _reached(report, node.admin_url or node.url, passwords.admin, "as the administrator", as_administrator)
    report.findings += await check_password(node.name, node.url)
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
        advice = f"try: psql {url}  (passwords: SHARDLIB_PASSWORD[_FILE], SHARDLIB_ADMIN_PASSWORD[_FILE], PGPASSFILE)"
        report.findings.append(error(report.node, f"it can't be looked at {whose}: {reason}", advice))


async def _check_bookkeeping(report: NodeReport, look: Look, errand: Errand) -> None:
    name, topology = report.node, errand.topology
    row, foreign = await look.row(SQL["node"]), await look.row(SQL["foreign_buckets"])
    report.findings += judge_bookkeeping(name, row, foreign[0], topology)
    known = {row["name"]: (row["hash"], row["buckets"]) for row in await look.rows(SQL["keyspaces"])}
    report.findings += judge_keyspaces(name, known, topology)
    attached = await look.rows(SQL["attached"])
    report.findings += judge_attached(name, attached)
    report.attached = {row["table_name"]: (row["keyspace"], row["key_column"]) for row in attached}
    report.unattached = [row["name"] for row in await look.rows(SQL["unattached"])]
    report.findings += await check_hashes(name, look, topology)
    if (pending := (await look.row(SQL["pending_claims"]))[0]) > 0:
        report.findings.append(warning(name, f"{pending} claims that nobody finished", "run Unique.sweep now and then"))
    if errand.count_rows:
        report.findings += await check_rows(name, look, topology, [dict(row) for row in attached if row["there"]])


def judge_bookkeeping(where: str, row: Row, foreign: int, topology: Topology) -> Iterator[Finding]:
    """Judge what the node says of itself against the catalog."""
    if row is None:
        yield error(where, "its bookkeeping is empty", "run shardctl nodes add again")
        return
    if row["name"] != where:
        advice = "the address leads to another node's database: shardctl nodes set"
        yield error(where, f"the database calls itself {row['name']}", advice)
    if row["format"] not in FORMATS:
        advice = "upgrade shardctl, or the bookkeeping with shardctl nodes add"
        yield error(where, f"its bookkeeping has format {row['format']}, this version reads {sorted(FORMATS)}", advice)
    if row["floor_epoch"] > topology.epoch:
        advice = "was the catalog restored from a backup? Its epoch must be raised above every node's floor"
        yield error(
            where, f"it talks to epoch {row['floor_epoch']} or later, the catalog is at {topology.epoch}", advice
        )
    if foreign and not any(space.moving for space in topology.keyspaces.values()):
        advice = "a move that was left half way, perhaps: rows of them are ignored, scans cost more"
        yield warning(where, f"{foreign} buckets on its foreign list while nothing moves", advice)


def judge_keyspaces(where: str, known: dict[str, tuple[str, int]], topology: Topology) -> Iterator[Finding]:
    """Judge the node's keyspaces against the catalog's."""
    wanted = {space.name: (space.hash, space.buckets) for space in topology.keyspaces.values()}
    if missing := sorted(wanted.keys() - known.keys()):
        yield error(
            where, f"it doesn't know {', '.join(missing)}", "run shardctl nodes add again: it installs keyspaces"
        )
    for name in sorted(wanted.keys() & known.keys()):
        if wanted[name] != known[name]:
            advice = "rows would be taken for another bucket's: don't move anything, restore the right catalog"
            yield error(where, f"keyspace {name} is {known[name]} here and {wanted[name]} in the catalog", advice)


def judge_attached(where: str, rows: list[Row]) -> Iterator[Finding]:
    """Judge the attached tables."""
    for row in rows:
        if not row["there"]:
            yield error(where, f"table {row['table_name']} is attached, and isn't there", "migrate, or detach it")
        elif not row["identity_has_key"]:
            advice = f"have {row['key_column']} in the primary key, or set REPLICA IDENTITY"
            yield error(where, f"the replica identity of {row['table_name']} lacks its key: it can't move", advice)


async def _check_replicas(report: NodeReport, node: Node, primary: Look, password: str | None) -> None:
    streaming = await primary.rows(SQL["streaming"])
    if len(streaming) < len(node.replicas):
        advice = "look at the replica's log; is its slot there, does its password fit?"
        what = f"{len(streaming)} of {len(node.replicas)} replicas stream from it"
        report.findings.append(error(node.name, what, advice))
    for url in node.replicas:
        where = f"{node.name} replica {url.rpartition('@')[2].partition('/')[0]}"
        timeline = await primary.row(SQL["node"])
        position = await primary.row(SQL["position"])
        try:
            async with looking_at(url, password) as look:
                behind = position["lsn"] - (replayed := await look.row(SQL["replayed"]))["lsn"]
                report.findings += judge_replica(where, replayed, behind, timeline["timeline"] if timeline else 0)
        except NodeUnavailable as reason:
            advice = f"start it, or forget it: shardctl nodes set {node.name} --no-replicas"
            report.findings.append(error(where, f"it can't be looked at: {reason}", advice))


def judge_replica(where: str, row: Row, behind: int, timeline: int) -> Iterator[Finding]:
    """Judge a replica by its primary."""
    if not row["in_recovery"]:
        yield error(where, "it isn't a replica: it takes writes", "rebuild it from the primary, or correct its address")
    elif row["timeline"] != timeline:
        yield error(
            where, f"it is on timeline {row['timeline']}, the primary on {timeline}", "rebuild it, or pg_rewind"
        )
    elif row["paused"]:
        yield warning(where, "its replay is paused", "SELECT pg_wal_replay_resume()")
    elif behind > MOST_LAG_BYTES:
        yield warning(where, f"it is {behind >> 20} MB behind", "is it too slow, or held up by a long query?")


def judge_tables_alike(reports: list[NodeReport]) -> Iterator[Finding]:
    """Judge whether all nodes have the same tables attached in the same way, and leave the same ones out."""
    asked = [report for report in reports if report.attached is not None]
    if not asked:
        return
    model = max(asked, key=lambda report: len(report.attached or ()))
    for report in asked:
        differing = sorted({name for name, _how in (model.attached or {}).items() ^ (report.attached or {}).items()})
        if differing:
            what = f"its attached tables differ from {model.node}'s: {', '.join(names(differing))}"
            yield error(report.node, what, "apply the migrations to all nodes: python -m migrations status")
    if model.unattached:
        advice = "SELECT shardlib.attach(...) for those that belong to a keyspace: others stay where they are"
        yield warning(model.node, f"tables in no keyspace: {', '.join(names(model.unattached))}", advice)
