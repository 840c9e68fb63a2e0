"""One absolute deadline for everything below it.

DESIGN. A deadline is taken once, where the caller knows how long an answer is worth waiting for, and read wherever
something waits. It is a context variable and an ``asyncio.timeout``, so it also ends what isn't ours. What it cut off
is remembered: a write that was under way when time was up is *unknown*, everything else is known not to have
happened.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from time import monotonic
from types import TracebackType

from shardlib.errors import DeadlineExceeded, OutcomeUnknown

_current: ContextVar[deadline | None] = ContextVar("shardlib_deadline", default=None)
current_deadline = _current.get


class deadline:  # noqa: N801  # it reads as a verb, as asyncio.timeout does
    """Bound everything below to ``seconds`` from now: ``async with shardlib.deadline(2.0): ...``.

    The earlier one counts where two are nested. Raises OutcomeUnknown when it cut a write off, else DeadlineExceeded:
    the call that was cut off has changed nothing, those before it have their answers. A deadline or
    ``asyncio.timeout`` of somebody else cancels as always.
    """

    __slots__ = ("_seconds", "_timeout", "_token", "at", "outer", "write_cut_off")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.outer: deadline | None = None  # the one around it, which may be the one that is up
        self.at = float("inf")  # time.monotonic() seconds
        self.write_cut_off = False

    async def __aenter__(self) -> deadline:
        self.outer = _current.get()
        self.at = monotonic() + self._seconds
        if self.outer is not None and self.outer.at < self.at:
            self.at = self.outer.at
        self._token = _current.set(self)
        self._timeout = asyncio.timeout(self._seconds)
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            if self.write_cut_off:
                raise OutcomeUnknown(f"no answer to a write within {self._seconds} s") from late
            raise DeadlineExceeded(f"no answer within {self._seconds} s") from late


def deadline_or(seconds: float) -> float:
    """Return the deadline in force, or ``seconds`` from now: a point on ``time.monotonic()``."""
    set_by_caller = _current.get()
    return monotonic() + seconds if set_by_caller is None else set_by_caller.at


def note_write_cut_off() -> None:
    """Remember that a write was under way when the caller was cancelled."""
    around = _current.get()
    while around is not None:
        around.write_cut_off = True
        around = around.outer
