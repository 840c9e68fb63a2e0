"""What /proc says about processes: who lives in a directory, who holds a port, who is really gone.

A pid from a file may be anybody's by now, so a process is recognised by its working directory, in which a postmaster
and all its backends stay, and by its program (``recognise``). Processes of other users can't be seen and are treated
as absent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

LISTEN = "0A"


def is_alive(pid: int) -> bool:
    """Tell whether the process still runs; one that only waits to be reaped doesn't."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def pids() -> Iterator[int]:
    """Walk over all process ids of the moment."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def working_directory(pid: int) -> str | None:
    """Read where a process works; None when it is gone or not ours to look at."""
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return None


def lives_in(pid: int, directory: Path) -> bool:
    """Tell whether a process runs and works in exactly this directory: whether a pid from a file is still ours."""
    return working_directory(pid) == os.path.realpath(directory) and is_alive(pid)


def working_in(directory: Path) -> list[int]:
    """List the live processes whose working directory is exactly this one."""
    wanted = os.path.realpath(directory)
    return [pid for pid in pids() if working_directory(pid) == wanted and is_alive(pid)]


def working_below(directory: Path) -> list[int]:
    """List the live processes that work in this directory or anywhere below it."""
    root = os.path.realpath(directory)
    found = []
    for pid in pids():
        place = working_directory(pid)
        if place is not None and (place == root or place.startswith(root + os.sep)) and is_alive(pid):
            found.append(pid)
    return found


def send(pids_to_signal: Iterable[int], what: signal.Signals) -> None:
    """Signal each process; one that has gone meanwhile is fine."""
    for pid in pids_to_signal:
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            continue


def wait_gone(pids_to_await: Iterable[int], seconds: float) -> list[int]:
    """Wait until the processes have ended; return those that still run when the time is up."""
    until = time.monotonic() + seconds
    left = [pid for pid in pids_to_await if is_alive(pid)]
    while left and time.monotonic() < until:
        time.sleep(0.005)
        left = [pid for pid in left if is_alive(pid)]
    return left


def end(find: Callable[[], list[int]], how: signal.Signals, seconds: float = 5.0) -> None:
    """Signal the processes that ``find`` finds until it finds none; by SIGKILL after some seconds."""
    until = time.monotonic() + seconds
    while left := find():
        send(left, how if time.monotonic() < until else signal.SIGKILL)
        wait_gone(left, 1.0)


def remove_shared_memory(segment: int) -> None:
    """Remove a System V segment, as a crash of the machine would; fine when there is none."""
    ctypes.CDLL(None).shmctl(segment, 0, None)


def command_line(pid: int) -> str:
    """Return what a process was started as, cut to a readable length; "?" when it can't be read."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return "?"
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:120] or "?"


def listening_inodes(port: int) -> set[str]:
    """Find the sockets that listen on a TCP port, of IPv4 and IPv6."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return inodes


def listener(port: int) -> int | None:
    """Return the pid of a process that listens on a TCP port; None when there is none that we may see."""
    inodes = listening_inodes(port)
    return next((pid for pid in pids() if inodes and holds_any(pid, inodes)), None)


def holds_any(pid: int, inodes: set[str]) -> bool:
    """Tell whether a process has one of these sockets open."""
    try:
        links = os.scandir(f"/proc/{pid}/fd")
    except OSError:
        return False
    with links:
        return any(read_link(entry.path) in inodes for entry in links)


def read_link(path: str) -> str:
    """Read a link, or nothing when it has gone."""
    try:
        return os.readlink(path)
    except OSError:
        return ""
