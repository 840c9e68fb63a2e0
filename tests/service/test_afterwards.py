"""What follows an answer: whatever it raises is a line in the log and nothing else, and it ends with the process."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest
import structlog
from structlog.testing import capture_logs

import shardlib
from service import logs
from service.afterwards import Afterwards
from shardlib.deadlines import current_deadline
from tests.support.waiting import wait_for


async def _fail() -> None:
    raise ValueError("a bug")


async def test_a_bug_in_a_step_is_logged_with_what_is_bound_and_disturbs_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("info", pid=4711)
    afterwards = Afterwards(5.0)
    structlog.contextvars.bind_contextvars(of_a_request="x")
    afterwards.do(_fail)
    await afterwards.settle(5.0)
    (line,) = capsys.readouterr().out.splitlines()
    assert '"error":"ValueError"' in line
    assert '"pid":4711' in line
    assert "of_a_request" not in line
    assert "a bug" not in line


async def test_a_step_has_a_deadline_of_its_own() -> None:
    deadlines = []

    async def look() -> None:
        around = current_deadline()
        assert around is not None
        deadlines.append(around.at)

    afterwards = Afterwards(600.0)
    before = monotonic()
    async with shardlib.deadline(1.0):
        afterwards.do(look)
    await afterwards.settle(5.0)
    assert deadlines[0] >= before + 600.0


async def test_what_takes_too_long_to_settle_is_left_to_others() -> None:
    begun, left = asyncio.Event(), []

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.append(True)
            raise

    afterwards = Afterwards(600.0)
    afterwards.do(hang)
    await begun.wait()
    with capture_logs() as lines:
        await asyncio.wait_for(afterwards.settle(0.05), 30)
    assert left == [True]
    assert afterwards.under_way == 0
    assert [line["event"] for line in lines] == ["left to others"]
    await wait_for(lambda: len(asyncio.all_tasks()) == 1)
