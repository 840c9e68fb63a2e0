"""Steps that follow an answer: worth doing soon, by somebody, and no reason to fail a request that has succeeded.

DESIGN. A write that is committed must be answered as such, even if what tidies up behind it meets a node that is down.
So such steps run in tasks of their own, outside the request's deadline. What is left out here (the process dies, too
many steps wait) has to be something that whoever comes next does anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context

import structlog

import shardlib
from shardlib.errors import ShardlibError

MAX_WAITING = 1000
log = structlog.get_logger()


class Afterwards:
    """The steps of one process that are under way."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds  # for each step
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, step: Callable[[], Awaitable[None]]) -> None:
        """Begin a step, unless too many are under way."""
        if len(self._tasks) >= MAX_WAITING:
            log.warning("left to others", reason="too many steps are under way")
            return
        task = asyncio.get_running_loop().create_task(self._one(step), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Return when all steps have ended; each has its deadline."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _one(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            async with shardlib.deadline(self._seconds):
                await step()
        except ShardlibError as error:
            log.info("left to others", error=type(error).__name__)
