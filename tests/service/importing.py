"""Running imports and exports as an operator does, and an import that dies at a chosen point.

    python -m tests.service.importing WHEN BATCH SIGNAL FILE [options of import]

imports in batches of BATCH_LINES, and sends itself SIGNAL at that point of that batch (counted from 1).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.people.__main__ import lines
from service.bulk import checkpoint, importing
from service.bulk.commands import import_command
from service.bulk.report import Report
from service.settings import Settings
from shardlib.bulk import BulkClaims
from shardlib.testing.databases import TestCluster

BATCH_LINES = 100
SECONDS = 60
# Each point of a batch, in their order: before or after a step that is called once per batch.
POINTS: Mapping[str, tuple[Any, str, str]] = {
    "before-claim": (BulkClaims, "claim", "before"),
    "before-write": (BulkClaims, "claim", "after"),
    "before-confirm": (BulkClaims, "confirm", "before"),
    "before-report": (Report, "add", "before"),
    "before-checkpoint": (checkpoint, "save", "before"),
    "after-checkpoint": (checkpoint, "save", "after"),
}


@dataclass(frozen=True)
class Ran:
    """What a program did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, one JSON document."""
        return json.loads(self.out)


@dataclass(frozen=True)
class People:
    """An input file, and what should become of it."""

    path: Path
    good: list[dict[str, Any]]
    faulty: list[int]  # line numbers


def make_people(path: Path, count: int, bad: int = 0, seed: int = 1) -> People:
    """Write users to a file."""
    good: list[dict[str, Any]] = []
    faulty: list[int] = []
    with path.open("wb") as file:
        for number, (fault, line) in enumerate(lines(count, bad, seed), start=1):
            file.write(line + b"\n")
            if fault is None:
                good.append(json.loads(line))
            else:
                faulty.append(number)
    return People(path, good, faulty)


def run(cluster: TestCluster, settings: Settings, *arguments: str | Path, stdin: bytes = b"") -> Ran:
    """Run ``python -m ARGUMENTS`` with the cluster in its environment."""
    environment = {
        **os.environ,
        **cluster.environment,
        "SERVICE_IDENTIFIER_KEYS": settings.identifier_keys,
        "SERVICE_CURSOR_KEY": settings.cursor_key,
    }
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=SECONDS, check=False)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


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

    setattr(owner, name, awaited if owner is BulkClaims else called)


if __name__ == "__main__":
    point, nth, number, *rest = sys.argv[1:]
    importing.BATCH_LINES = BATCH_LINES
    die_at(point, int(nth), int(number))
    import_command(rest)
