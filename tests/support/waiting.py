"""Waiting for a condition instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.01


async def wait_for(condition: Callable[[], object | Awaitable[object]], seconds: float = 10.0) -> None:
    """Wait until the condition, a function or a coroutine function, is true; fail when the time is up."""
    until = time.monotonic() + seconds
    while not await _ask(condition):
        assert time.monotonic() < until, f"not true within {seconds} s: {condition}"
        await asyncio.sleep(POLL_SECONDS)


async def _ask(condition: Callable[[], object | Awaitable[object]]) -> object:
    answer = condition()
    return await answer if inspect.isawaitable(answer) else answer


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait in a test that isn't a coroutine."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not true within {seconds} s: {condition}"
        time.sleep(POLL_SECONDS)
