"""Looks at one endpoint, a few times a second, on a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic

import asyncpg

from shardlib.pg.errors import refused_to_connect
from shardlib.pg.link import Link
from shardlib.sql import load

INTERVAL_SECONDS = 0.25  # what a replica's lag is known to; four tiny statements a second and endpoint
ANSWER_SECONDS = 1.0  # a server that takes longer for so little is not to be waited for
_SQL = load("owned")


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a server said of itself; ``asked_at`` is on time.monotonic()."""

    asked_at: float
    in_recovery: bool
    timeline: int
    lsn: int
    instance: float


class Monitor:
    """The background task that watches an endpoint until it is closed."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Awaitable[Link]],
        seen: Callable[[Sighting], None],
        failed: Callable[[str], None],
    ) -> None:
        self.looked = asyncio.Event()  # set after the first answer or failure
        self._connect = connect
        self._seen = seen
        self._failed = failed
        self._link: Link | None = None
        self._noted = 1  # the latest timeline whose beginning the node was told to remember; the first has none
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"monitor of {name}")

    async def close(self) -> None:
        """Stop looking."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                await self._look()
                self.looked.set()
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            self._hang_up()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if self._link is None:
                    self._link = await self._connect()
                asked_at = monotonic()
                row = await self._link.connection.fetchrow(_SQL["observe"])
                if not row["in_recovery"] and row["timeline"] > self._noted:
                    await self._note_branch(self._link)
                    self._noted = row["timeline"]
        except Exception as error:  # whatever a driver raises: the endpoint gave no answer
            self._hang_up()
            self._failed(refused_to_connect(error))
            return
        self._seen(Sighting(asked_at, row["in_recovery"], row["timeline"], row["lsn"], row["instance"]))

    async def _note_branch(self, link: Link) -> None:
        """Before anybody here knows the new timeline: a token of an older one is checked against its beginning."""
        try:
            await link.connection.execute(_SQL["note_branch"])
        except asyncpg.PostgresError:
            self._hang_up()  # read-only, say: then the present position is all that tokens are checked against
            self._link = await self._connect()

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.connection.terminate()
            self._link = None
