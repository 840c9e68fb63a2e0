"""How far an import has come, on disk after each batch: written aside, flushed, renamed over the last one.

DESIGN. A checkpoint saves time and decides nothing: a row that is imported twice is found to be there. So one that
doesn't fit (another file, a cluster that doesn't have the users that it names) is dropped, never trusted.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from service.bulk.lines import Position

FORMAT = 1


class Tally(msgspec.Struct):
    """What became of the lines so far."""

    created: int = 0
    present: int = 0
    reasons: dict[str, int] = {}

    @property
    def rejected(self) -> int:
        """How many rows were rejected."""
        return sum(self.reasons.values())

    @property
    def rows(self) -> int:
        """How many lines were dealt with, blank ones not counted."""
        return self.created + self.present + self.rejected


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """All lines before ``position`` are dealt with; ``rejected_bytes`` of the report belong to them."""

    format: int = FORMAT
    position: Position
    tally: Tally
    rejected_bytes: int
    witnesses: tuple[str, ...] = ()  # ids of users who are there, if this is the cluster that it was taken with


def load(path: Path) -> Checkpoint | None:
    """Return the checkpoint, or None where there is none that this version reads."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Checkpoint)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    return found if found.format == FORMAT else None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint, so that a crash leaves the old one or the new one."""
    aside = path.with_name(path.name + ".new")
    with aside.open("wb") as file:
        file.write(msgspec.json.encode(checkpoint))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Forget it; the import is done."""
    path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
