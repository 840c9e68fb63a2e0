"""Steps that follow an answer: worth doing soon, by somebody, and no reason to fail a request that has succeeded.

DESIGN. A write that is committed must be answered as such, even if what tidies up behind it meets a node that is down.
So such steps run in tasks of their own, outside the request's deadline. What is left out here (the process dies, too
many steps wait) has to be something that whoever comes next does anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from time import monotonic

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
        self._context = copy_context()  # the process's: what is bound for its logs, but no request's deadline

    @property
    def under_way(self) -> int:
        """How many steps haven't ended."""
        return len(self._tasks)

    def do(self, step: Callable[[], Awaitable[None]]) -> None:
        """Begin a step, unless too many are under way."""
        if len(self._tasks) >= MAX_WAITING:
            log.warning("left to others", reason="too many steps are under way")
            return
        task = asyncio.get_running_loop().create_task(self._one(step), context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self, seconds: float) -> None:
        """Let the steps end for so long, and leave the others undone."""
        ends = monotonic() + seconds
        while self._tasks and monotonic() < ends:
            await asyncio.wait(self._tasks, timeout=ends - monotonic())
        left = tuple(self._tasks)
        if left:
            log.warning("left to others", reason="the process ends", steps=len(left))
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _one(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            async with shardlib.deadline(self._seconds):
                await step()
        except ShardlibError as error:
            log.info("left to others", error=type(error).__name__)
        except Exception as error:  # a bug is no reason to fail anybody, but one to be told of
            log.error("left to others", exc_info=error)
