"""Several calls at once: what becomes of the others when one fails, or when the caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shardlib.groups import all_of, all_or_none

TURNS = 20  # of the event loop, after which everything that could happen has happened


class Calls:
    """Calls that wait for a command, and how each ended."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.go_on = asyncio.Event()

    async def waits(self, name: str) -> str:
        """Answer when told to go on."""
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.ended[name] = "cancelled"
            raise
        self.ended[name] = "answered"
        return name

    async def fails(self, error: Exception) -> str:
        """Fail at once."""
        raise error


Together = Callable[[list[Coroutine[Any, Any, str]]], Coroutine[Any, Any, list[str]]]
both = pytest.mark.parametrize("together", [all_of, all_or_none])


async def settle() -> None:
    """Let everything happen that waits for nothing."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


@both
async def test_the_answers_come_in_the_order_of_the_calls(together: Together) -> None:
    calls = Calls()
    calls.go_on.set()
    assert await together([calls.waits("a"), calls.waits("b")]) == ["a", "b"]
    assert await together([calls.waits("a")]) == ["a"]


@pytest.mark.parametrize("leaves_early", [True, False])
async def test_when_one_fails_the_others_end_by_themselves(leaves_early: bool) -> None:
    calls = Calls()
    work = [calls.waits("a"), calls.fails(ValueError("first")), calls.fails(KeyError()), calls.waits("b")]
    together = asyncio.ensure_future(all_of(work))
    await settle()
    assert not together.done()
    assert calls.ended == {}
    if leaves_early:
        together.cancel()
        with pytest.raises(asyncio.CancelledError):
            await together
        assert calls.ended == {"a": "cancelled", "b": "cancelled"}
    else:
        calls.go_on.set()
        with pytest.raises(ValueError, match="first"):
            await together
        assert calls.ended == {"a": "answered", "b": "answered"}


async def test_all_or_none_ends_the_others_with_the_first_that_fails() -> None:
    calls = Calls()
    with pytest.raises(ValueError, match="first"):
        await all_or_none([calls.waits("a"), calls.fails(ValueError("first")), calls.waits("b")])
    assert calls.ended == {"a": "cancelled", "b": "cancelled"}


@both
async def test_a_caller_who_leaves_leaves_nothing_running(together: Together) -> None:
    calls = Calls()
    waiting = asyncio.ensure_future(together([calls.waits("a"), calls.waits("b")]))
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert calls.ended == {"a": "cancelled", "b": "cancelled"}
