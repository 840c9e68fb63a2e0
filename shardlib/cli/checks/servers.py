"""One server, as each role reaches it: versions, settings, what the roles may do."""

from __future__ import annotations

import time
from collections.abc import Iterator

from shardlib.cli.checks.findings import Finding, Row, error, names, warning
from shardlib.errors import NodeUnavailable
from shardlib.pg.inspect import Look, looking_at
from shardlib.sql import load

SQL = load("doctor")
OLDEST_VERSION = 170_000  # failover slots, which a move through a failover needs
MOST_SKEW_SECONDS = 30.0  # far below the day after which tokens of claims are refused
MOST_IDLE_SECONDS = 60.0  # a transaction that idles as long holds up moves and vacuum
FEWEST_SLOTS = 4  # a move takes two, and a replica or two come and go
_SCRAM = "scram-sha-256"
_NOT_A_PASSWORD = "shardctl doctor tries whether any password will do"  # noqa: S105


def judge_server(where: str, row: Row, asked_at: float) -> Iterator[Finding]:
    """Judge a primary's versions and settings."""
    if row["in_recovery"]:
        yield error(where, "it is a standby, not a primary", "promote it, or correct its address: shardctl nodes set")
    if row["version"] < OLDEST_VERSION:
        yield error(where, f"Postgres {row['version'] // 10_000} is too old", "use Postgres 17 or later")
    if row["encoding"] != "UTF8":
        yield error(where, f"the database's encoding is {row['encoding']}", "create it anew with encoding UTF8")
    if row["wal_level"] != "logical":
        yield error(where, f"wal_level is {row['wal_level']}", "set wal_level = logical and restart: moves need it")
    if (stored := row["password_encryption"]) != _SCRAM:
        yield warning(where, f"password_encryption is {stored}", f"set it to {_SCRAM}")
    if abs(skew := row["clock"] - asked_at) > MOST_SKEW_SECONDS:
        yield error(where, f"its clock is {skew:+.0f} s off this machine's", "keep the time by NTP: claims rely on it")


def judge_application(where: str, row: Row, owned: list[str]) -> Iterator[Finding]:
    """Judge what the application's role could do."""
    if row["superuser"]:
        yield error(where, f"the application is {row['role']}, a superuser", "give it a role of its own: no SUPERUSER")
    elif owned:
        listed = ", ".join(names(owned))
        advice = "let the administrator own tables, and grant no TRUNCATE: a moving bucket can't be fenced otherwise"
        yield error(where, f"the application owns or may truncate {listed}", advice)


def judge_administrator(where: str, server: Row, rights: Row) -> Iterator[Finding]:
    """Judge what the administrator's role can do: enough for moves, and no more."""
    if server["superuser"]:
        yield warning(where, f"the administrator is {server['role']}, a superuser", "nothing here needs one")
        return
    needed = {
        "replication": "ALTER ROLE {role} REPLICATION",
        "create_subscription": "GRANT pg_create_subscription TO {role}",
        "monitor": "GRANT pg_monitor TO {role}",
        "signal_backend": "GRANT pg_signal_backend TO {role}",
        "replication_role": "GRANT SET ON PARAMETER session_replication_role TO {role}",
    }
    missing = [mend.format(role=server["role"]) for right, mend in needed.items() if not rights[right]]
    if missing:
        yield error(where, f"{server['role']} lacks rights that moves need", "; ".join(missing))


def judge_room(where: str, row: Row) -> Iterator[Finding]:
    """Judge whether there is room for moves and replicas."""
    for what in ("slots", "senders"):
        if row[what] < FEWEST_SLOTS:
            setting = "max_replication_slots" if what == "slots" else "max_wal_senders"
            yield warning(where, f"{row[what]} free replication {what}", f"raise {setting}")
    if row["lost_slots"]:
        yield error(
            where, f"{row['lost_slots']} replication slots have lost log", "rebuild what used them, then drop them"
        )
    if row["idle_seconds"] > MOST_IDLE_SECONDS:
        advice = "set idle_in_transaction_session_timeout; pg_stat_activity says whose it is"
        yield warning(where, f"a transaction has been idle for {row['idle_seconds']:.0f} s", advice)
    if row["prepared"]:
        yield warning(
            where, f"{row['prepared']} prepared transactions", "commit or roll them back: a fence waits for them"
        )


async def check_application(where: str, look: Look, findings: list[Finding]) -> Row:
    """Check a primary as the application sees it; return what it said of itself."""
    server = await look.row(SQL["server"])
    findings += judge_server(where, server, time.time())
    findings += judge_application(where, server, [row["name"] for row in await look.rows(SQL["owns"])])
    return server


async def check_administrator(where: str, look: Look, findings: list[Finding]) -> Row:
    """Check a primary as the administrator sees it; return what it said of itself."""
    server = await look.row(SQL["server"])
    findings += judge_administrator(where, server, await look.row(SQL["mover"]))
    if not server["in_recovery"]:
        findings += judge_room(where, await look.row(SQL["room"]))
    return server


async def check_password(where: str, url: str) -> list[Finding]:
    """Check that a wrong password is refused."""
    try:
        async with looking_at(url, _NOT_A_PASSWORD):
            return [error(where, "it lets anybody in, whatever the password", "use scram-sha-256 in pg_hba.conf")]
    except NodeUnavailable:
        return []
