"""Tokens: where a node's log stands, asked once per node and loop turn for all who want to know."""

from __future__ import annotations

import asyncio
from time import monotonic

from shardlib.calls import Call, Desk, Place
from shardlib.core.tokens import Token
from shardlib.sql import load

_SQL = load("owned")


class Positions:
    """The questions that are being gathered; each is sent at the end of the loop turn in which it was first asked.

    The position is asked for *after* the write was acknowledged, so it lies behind its commit record. (RETURNING gives
    one before it; the insert position can point where an idle replica never gets.)
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._gathering: dict[str, asyncio.Task[tuple[str, int, int]]] = {}

    async def token(self, place: Place) -> Token:
        """Return a token of everything that was acknowledged for this place before now."""
        while True:
            view = self._desk.watcher.view
            node = view.spaces[place.keyspace].owners[place.buckets[0]].name
            answered_by, timeline, lsn = await asyncio.shield(self._question(node, place))
            if answered_by == node:
                since = view.topology.keyspaces[place.keyspace].since.get(place.buckets[0])
                return Token(place.keyspace, place.buckets[0], since.epoch if since else 0, node, timeline, lsn)

    def _question(self, node: str, place: Place) -> asyncio.Task[tuple[str, int, int]]:
        task = self._gathering.get(node)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(node, place), name=f"position of {node}")
            self._gathering[node] = task
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _ask(self, node: str, place: Place) -> tuple[str, int, int]:
        """Ask for all who wait: within the patience of all, and whoever answers if the first one's bucket moves."""
        await asyncio.sleep(0)
        del self._gathering[node]  # from here on a new question is needed: this one is being sent
        call = Call(self._desk, place, "fetchrow", _SQL["flush_position"], (), monotonic() + self._desk.call_seconds)
        row = await call.run()
        return call.answered_by[0], row["timeline"], row["lsn"]
