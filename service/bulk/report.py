"""The rows that weren't imported: NDJSON with line number, reason and field, and never the value, which is personal."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec


class Rejection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a line wasn't imported. ``reason`` is one of a few stable words, ``detail`` is for people."""

    line: int
    reason: str
    detail: str
    field: str = ""


class Report:
    """The file of rejections, cut to what a checkpoint vouches for and then only added to."""

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        self.path = path
        self._keep = keep_bytes

    def __enter__(self) -> Self:
        self._file = self.path.open("r+b" if self._keep and self.path.exists() else "wb")
        self._file.truncate(self._keep)
        self._file.seek(0, os.SEEK_END)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rejections: list[Rejection]) -> int:
        """Write rejections in the order of their lines, durably; return how long the report is now."""
        for rejection in sorted(rejections, key=lambda each: each.line):
            self._file.write(msgspec.json.encode(rejection) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()
