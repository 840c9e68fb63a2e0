"""Free TCP ports for servers of tests, safe with several test runs at once.

DESIGN. "Bind port 0 and use what came" picks from the kernel's range for outgoing connections, where any passing
client may take it again before the server binds it, or while the server restarts. So ports come from below that
range, and each one taken is held by a lock on a file until this process ends, by whatever death.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

FIRST, LAST = 15_000, 30_000
_held: list[int] = []  # file descriptors: closing one would give its port back


class NoFreePort(RuntimeError):
    """Every port of the range is taken."""


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _reserve(port: int, directory: Path) -> bool:
    handle = os.open(directory / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    _held.append(handle)
    return True


def take(count: int) -> list[int]:
    """Reserve that many free ports until this process ends."""
    directory = Path(tempfile.gettempdir()) / f"shardlib-ports-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found: list[int] = []
    for port in random.sample(range(FIRST, LAST), LAST - FIRST):
        if len(found) == count:
            return found
        if is_free(port) and _reserve(port, directory):
            found.append(port)
    raise NoFreePort(f"no {count} free ports between {FIRST} and {LAST}")
