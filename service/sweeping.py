"""Settles the claims that dead processes left behind, so that nobody has to want a value to find it free."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from shardlib import Unique
from shardlib.errors import ShardlibError

log = structlog.get_logger()


@asynccontextmanager
async def sweeping(unique: Unique, every_seconds: float) -> AsyncIterator[None]:
    """Sweep in the background until the block is left; any number of processes may do so at the same time."""
    task = asyncio.get_running_loop().create_task(_sweep(unique, every_seconds), name="sweep")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _sweep(unique: Unique, every_seconds: float) -> None:
    while True:
        await asyncio.sleep(every_seconds * random.uniform(0.5, 1.5))  # workers that start together part
        try:
            swept = await unique.sweep()
        except ShardlibError as error:
            log.info("sweep put off", error=type(error).__name__)
        except Exception as error:  # a bug, or a table that isn't as expected: whatever it is, it may pass
            log.error("sweep failed", exc_info=error)
        else:
            if swept.confirmed or swept.freed:
                log.info("swept claims", confirmed=swept.confirmed, freed=swept.freed)
