"""Where the servers of tests keep their data, and how what a killed test run left behind goes away.

DESIGN. Memory (/dev/shm) is preferred: tests make and drop databases of 300 files all the time, and ext4, which
avoids the inodes of files deleted a moment ago, needs half a millisecond for each file that is made again.
A place is locked by its owner for as long as that lives; a place without a living owner is cleared by the next run.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from shardlib.testing import processes

MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it, by mkdtemp
WANTED_BYTES = 4 * 2**30
PREFIX = "shardlib-test-"


def root() -> Path:
    """Choose the directory for places: SHARDLIB_TEST_DIR, or memory if there is plenty, or the temporary directory."""
    named = os.environ.get("SHARDLIB_TEST_DIR")
    if named:
        return Path(named).absolute()
    roomy = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= WANTED_BYTES
    return MEMORY if roomy else Path(tempfile.gettempdir())


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """Make a directory for servers; at the end, end every process that works in it and remove it."""
    base = root()
    sweep(base)
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    with (made / "owner").open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        try:
            yield made
        finally:
            clear(made)


def sweep(base: Path) -> None:
    """Clear the places of ours whose owner has died."""
    for found in base.glob(PREFIX + "*"):
        with contextlib.suppress(OSError), (found / "owner").open() as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear(found)


def clear(directory: Path) -> None:
    """End every process that works below the directory, and remove it."""
    processes.send(processes.working_below(directory), signal.SIGCONT)
    processes.end(lambda: processes.working_below(directory), signal.SIGQUIT)
    shutil.rmtree(directory, ignore_errors=True)
