"""One session, opened, greeted and, when somebody changed its settings, reset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg

from shardlib.errors import FormatMismatch
from shardlib.sql import load

FORMATS = frozenset({1})  # of the bookkeeping; a router reads its own and the one before
_SQL = load("owned")
_SYNC_WAIT = "SyncRepWaitForLSN"  # the server's function that warns when it gives up; its words may be translated


class Link:
    """An open connection and what the node said when it was greeted.

    ``floor`` is the oldest epoch that may talk to the node, ``greeted`` the pool's epoch at the last greeting,
    ``deadline`` (time.monotonic() seconds) the end of what it is lent for. ``dirty`` asks for a reset before the next
    use; ``overdue`` says that the pool terminated it. ``sync_wait_cancelled``: Postgres warned that a commit is not on
    its standby.
    """

    __slots__ = (
        "connection",
        "deadline",
        "dirty",
        "floor",
        "greeted",
        "in_recovery",
        "instance",
        "opened_at",
        "overdue",
        "sync_wait_cancelled",
        "timeline",
    )

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection: Any = connection
        self.deadline = float("inf")
        self.dirty = self.overdue = self.sync_wait_cancelled = self.in_recovery = False
        self.floor = self.timeline = self.greeted = 0
        self.instance = 0.0
        self.opened_at = monotonic()
        self._listen()

    async def greet(self, epoch: int) -> None:
        """Read the node's floor, timeline, role and format; FormatMismatch for a format that isn't ours."""
        row = await self.connection.fetchrow(_SQL["greet"])
        if row is None or row["format"] not in FORMATS:
            found = "none" if row is None else row["format"]
            raise FormatMismatch(f"the node's bookkeeping has format {found}, this version reads {sorted(FORMATS)}")
        self.floor, self.timeline, self.instance = row["floor_epoch"], row["timeline"], row["instance"]
        self.in_recovery = row["in_recovery"]
        self.greeted = epoch

    async def reset(self) -> None:
        """Take back whatever its last user did to the session, temporary tables, roles and plans included.

        asyncpg's own reset leaves those; what it knows of the plans must be forgotten with them.
        """
        await self.connection.reset()
        await self.connection.execute("DISCARD ALL")
        self.connection._mark_stmts_as_closed()
        await self.greet(self.greeted)
        self._listen()
        self.dirty = self.sync_wait_cancelled = False

    def _listen(self) -> None:
        self.connection.add_log_listener(self._hear)

    def _hear(self, _connection: object, message: Any) -> None:
        if message.server_source_function == _SYNC_WAIT:
            self.sync_wait_cancelled = self.dirty = True  # dirty: whoever gives it back looks at it


@dataclass(frozen=True, slots=True)
class Credentials:
    """The passwords of the two roles; None leaves it to the URL, PGPASSFILE or PGPASSWORD."""

    application: str | None = None
    admin: str | None = None

    @classmethod
    def from_environment(cls) -> Credentials:
        """Read SHARDLIB_PASSWORD and SHARDLIB_ADMIN_PASSWORD, or the files that ..._FILE name."""
        return cls(_secret("SHARDLIB_PASSWORD"), _secret("SHARDLIB_ADMIN_PASSWORD"))

    def __repr__(self) -> str:
        return "Credentials(...)"


def _secret(name: str) -> str | None:
    if path := os.environ.get(f"{name}_FILE"):
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    return os.environ.get(name)


async def open_connection(
    url: str, password: str | None, application_name: str, seconds: float, statements: int = 256
) -> asyncpg.Connection:
    """Open a connection; ``statements`` bounds its cache of prepared statements."""
    return await asyncpg.connect(
        url,
        password=password,
        timeout=seconds,
        statement_cache_size=statements,
        server_settings={"application_name": application_name},
    )
