"""An import that dies at a chosen point, for tests to start.

    python -m tests.service.dying_import POINT BATCH SIGNAL FILE [options of import]

imports in batches of BATCH_LINES, and sends itself SIGNAL at that point of that batch (counted from 1).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from service.bulk import checkpoint, importing
from service.bulk.commands import import_command
from service.bulk.load import Loader
from service.bulk.report import Report
from shardlib.bulk import BulkClaims

BATCH_LINES = 100
# Each point of a batch, in their order: before or after a step that is called once per batch.
POINTS: Mapping[str, tuple[Any, str, str]] = {
    "before-claim": (BulkClaims, "claim", "before"),
    "before-write": (BulkClaims, "claim", "after"),
    "after-write": (Loader, "_settle", "before"),
    "before-report": (Report, "add", "before"),
    "before-checkpoint": (checkpoint, "save", "before"),
    "after-checkpoint": (checkpoint, "save", "after"),
}


def die_at(when: str, batch: int, signal_number: int) -> None:
    """Have this process send itself a signal at a point of a batch."""
    owner, name, side = POINTS[when]
    step: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def die() -> None:
        nonlocal calls
        calls += 1
        if calls == batch:
            os.kill(os.getpid(), signal_number)

    async def awaited(*args: Any, **options: Any) -> Any:
        if side == "before":
            die()
        answer = await step(*args, **options)
        if side == "after":
            die()
        return answer

    def called(*args: Any, **options: Any) -> Any:
        if side == "before":
            die()
        answer = step(*args, **options)
        if side == "after":
            die()
        return answer

    setattr(owner, name, awaited if owner in (BulkClaims, Loader) else called)


if __name__ == "__main__":
    point, nth, number, *rest = sys.argv[1:]
    importing.BATCH_LINES = BATCH_LINES
    die_at(point, int(nth), int(number))
    import_command(rest)
