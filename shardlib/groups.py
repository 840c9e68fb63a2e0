"""Several calls at once, and what becomes of the others when one fails.

DESIGN. A call that is cancelled costs its connection: an answer may be on its way to it. So where every call ends soon
by itself, by a deadline, the others are left to end: a node that is down must not cost the healthy ones a connection
per call. Only a caller who leaves, and a failure of work without a bound, cancel what is under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(calls: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the answers in the order of the calls; when one fails, raise the first error after all have ended.

    Each call is bounded by a deadline of its own. When the caller is cancelled no call is left running.
    """
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await _answers(tasks)
    finally:
        await _end(tasks)


async def all_or_none(calls: list[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the answers in the order of the calls; the first that fails ends the others, as does a cancellation."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end(tasks)


async def _answers(tasks: Sequence[asyncio.Future[T]]) -> list[T]:
    try:
        return await asyncio.gather(*tasks)
    except Exception:
        await asyncio.wait(tasks)
        raise


async def _end(tasks: Sequence[asyncio.Future[T]]) -> None:
    """Cancel those that are still under way, and see them gone."""
    under_way = [task for task in tasks if not task.done()]
    for task in under_way:
        task.cancel()
    if under_way:
        await asyncio.gather(*under_way, return_exceptions=True)
