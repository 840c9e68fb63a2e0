"""A worker's seat is filled again whatever went wrong with it: nothing ends the loop that fills it but a stop."""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from service import supervisor
from service.fleet import WorkerState
from service.reports import Report
from service.supervisor import Slot
from shardlib import ClusterHealth
from tests.service.process import PATIENCE_SECONDS, is_alive
from tests.support.waiting import wait_for

_SPAWN = asyncio.create_subprocess_exec
_SILENT = "import time; time.sleep(600)"
_BABBLING = """
import socket, sys, time
wire = socket.socket(fileno=int(sys.argv[1]))
for answer in map(bytes.fromhex, sys.argv[2:]):
    wire.recv(1)
    wire.sendall(answer)
time.sleep(600)
"""
_REPORT = msgspec.msgpack.encode(Report(1, False, 0, 0.0, 0, 0.0, [], ClusterHealth(0, 0, 0.0, True, ())))


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(4) + data


@asynccontextmanager
async def _seat(stuck_seconds: float = 30.0) -> AsyncIterator[WorkerState]:
    """Run a slot, and stop it in the end."""
    state = WorkerState(0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        slot = Slot(0, listening, state, stuck_seconds)
        task = asyncio.create_task(slot.run())
        try:
            yield state
        finally:
            slot.stop()
            await asyncio.wait_for(task, PATIENCE_SECONDS)


def _worker(script: str, *arguments: str) -> Callable[..., Any]:
    """Return what starts a script in the worker's place, with the number of its control socket in front."""

    async def spawn(*command: str, **options: Any) -> Process:
        return await _SPAWN(sys.executable, "-c", script, command[-1], *arguments, **options)

    return spawn


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
async def test_a_worker_that_cannot_be_forked_is_tried_again(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    refusals = [OSError(number, "fork"), OSError(number, "fork")]
    start = _worker(_SILENT)

    async def spawn(*command: str, **options: Any) -> Process:
        if refusals:
            raise refusals.pop()
        process: Process = await start(*command, **options)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spawn)
    async with _seat() as state:
        await wait_for(lambda: state.pid and is_alive(state.pid), PATIENCE_SECONDS)
        assert state.restarts == 2


@pytest.mark.parametrize("nonsense", [b"\xff" * 8, _frame(b"\xc1"), _frame(b"\x01")])
async def test_a_worker_that_reports_nonsense_is_replaced(monkeypatch: pytest.MonkeyPatch, nonsense: bytes) -> None:
    monkeypatch.setattr(supervisor, "REPORT_SECONDS", 0.05)
    monkeypatch.setattr(supervisor, "ANSWER_SECONDS", 0.1)
    answers = (_frame(_REPORT), nonsense)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", _worker(_BABBLING, *(one.hex() for one in answers)))
    async with _seat(stuck_seconds=0.5) as state:
        await wait_for(lambda: state.restarts, PATIENCE_SECONDS)
        await wait_for(lambda: state.report, PATIENCE_SECONDS)  # its successor's
