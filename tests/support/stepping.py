"""Cancelling a coroutine at each of its awaits in turn, instead of hoping to hit the bad one."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Generator
from typing import Any


class When(enum.Enum):
    """The two moments at which a cancellation meets an await."""

    WAITING = "while it waits"
    ANSWERED = "as its answer arrives"


class Stepped:
    """Awaits something, and cancels the present task at its suspension number ``at``, counted from 0."""

    def __init__(self, work: Awaitable[Any], at: int, when: When) -> None:
        self._work = work
        self._at = at
        self._when = when
        self.cancelled = False  # whether there was such a suspension

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        suspensions = 0
        send = steps.send
        argument: Any = None
        while True:
            try:
                waits_for = send(argument)
            except StopIteration as end:
                return end.value
            if suspensions == self._at:
                self._cancel(waits_for)
            suspensions += 1
            try:
                argument = yield waits_for
            except BaseException as error:
                send, argument = steps.throw, error
            else:
                send = steps.send

    def _cancel(self, waits_for: asyncio.Future[Any] | None) -> None:
        self.cancelled = True
        task = asyncio.current_task()
        assert task is not None
        if waits_for is None or self._when is When.WAITING:
            task.cancel()
        else:
            waits_for.add_done_callback(lambda _: task.cancel())


async def cancelled_at(work: Awaitable[Any], at: int, when: When) -> bool:
    """Run ``work`` with a cancellation at one of its awaits; False when it has fewer."""
    stepped = Stepped(work, at, when)

    async def run() -> None:
        await stepped

    task = asyncio.create_task(run())
    await asyncio.wait((task,))
    if not task.cancelled():
        task.result()
    return stepped.cancelled
