"""How an import comes along, on one line of a terminal; nothing where there is none."""

from __future__ import annotations

import sys
from time import monotonic
from typing import TextIO

from service.bulk.checkpoint import Tally
from service.bulk.lines import Position

_INTERVAL_SECONDS = 0.2


class Progress:
    """Redraws its line a few times a second."""

    def __init__(self, total_bytes: int | None, start: Position, out: TextIO = sys.stderr) -> None:
        self._total = total_bytes
        self._start = start
        self._out = out
        self._began = monotonic()
        self._rows_before: int | None = None
        self._shown = 0.0
        self._on = out.isatty()

    def show(self, position: Position, tally: Tally) -> None:
        """Say how far it is."""
        now = monotonic()
        if self._rows_before is None:
            self._rows_before = tally.rows
        if not self._on or now - self._shown < _INTERVAL_SECONDS:
            return
        self._shown = now
        rate = (tally.rows - self._rows_before) / max(now - self._began, 0.001)
        parts = [f"{tally.rows:,} rows", f"{rate:,.0f}/s", f"{tally.rejected:,} rejected"]
        self._out.write(f"\r\x1b[K{' · '.join([*parts, *self._left(position, now)])}")
        self._out.flush()

    def close(self) -> None:
        """Clear the line."""
        if self._on and self._shown:
            self._out.write("\r\x1b[K")
            self._out.flush()

    def _left(self, position: Position, now: float) -> list[str]:
        done = position.bytes - self._start.bytes
        if not self._total or done <= 0:
            return []
        seconds = (self._total - position.bytes) * (now - self._began) / done
        return [f"{position.bytes / self._total:.0%}", f"{int(seconds) // 60}:{int(seconds) % 60:02} left"]
