"""One command at a time changes the stack; the next one waits and says for whom."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from ops.local.layout import Refusal

WAIT_SECONDS = 120.0
POLL_SECONDS = 0.1


@contextlib.contextmanager
def alone(directory: Path, say: Callable[[str], None], seconds: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the stack's lock; wait for it so long, then raise Refusal. A holder that dies lets go of it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "lock").open("a+", encoding="ascii") as handle:
        if not _try(handle):
            say(f"another command (pid {_holder(handle)}) is changing the stack; waiting for it")
            _wait(handle, seconds)
        handle.seek(0)
        handle.truncate()
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def _try(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: TextIO) -> str:
    handle.seek(0)
    return handle.read() or "?"


def _wait(handle: TextIO, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not _try(handle):
        if time.monotonic() > until:
            raise Refusal(f"pid {_holder(handle)} has been changing the stack for more than {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
