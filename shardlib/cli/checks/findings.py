"""What is wrong, where, and what to do about it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

Row = Any  # of a statement in doctor.sql


class Level(enum.StrEnum):
    """How bad it is."""

    ERROR = "error"  # requests fail, or data isn't safe
    WARNING = "warning"  # it works, and will hurt later


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    level: Level
    where: str
    what: str
    advice: str


def error(where: str, what: str, advice: str) -> Finding:
    """Return a finding that can't wait."""
    return Finding(Level.ERROR, where, what, advice)


def warning(where: str, what: str, advice: str) -> Finding:
    """Return a finding that can."""
    return Finding(Level.WARNING, where, what, advice)


def names(found: Iterable[str], most: int = 5) -> Iterator[str]:
    """Yield names for a message, the first few of many."""
    every = list(found)
    yield from every[:most]
    if len(every) > most:
        yield f"{len(every) - most} more"
