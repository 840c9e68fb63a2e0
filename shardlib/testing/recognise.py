"""Which program a process runs: somebody's shell may stand in a server's directory, and must not die with the server.

A process that is ending has given up its memory, and with it the knowledge of its program; as nothing can harm it any
more, it passes for any, so that whoever waits for a server's end waits for it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from shardlib.testing.programs import CHILD

Recogniser = Callable[[int], bool]


def program(name: str) -> Recogniser:
    """Recognise a program by its file's name."""
    return lambda pid: _executable(pid) in (name, "") or _is_starting(pid)


def module(name: str, *commands: str) -> Recogniser:
    """Recognise ``python -m name COMMAND``, for some commands."""

    def recognises(pid: int) -> bool:
        words = _words(pid)
        started = words[1:3] == ["-m", name] and len(words) > 3 and words[3] in commands
        return started or not _executable(pid) or _is_starting(pid)

    return recognises


def _executable(pid: int) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)")
    except OSError:
        return ""


def _is_starting(pid: int) -> bool:
    """Tell whether it is about to become one of our programs."""
    return str(CHILD) in _words(pid)[:4]


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []
