"""Running imports and exports as an operator does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from bench.people.__main__ import lines
from service.__main__ import main
from service.settings import Settings
from shardlib.testing.databases import TestCluster

SECONDS = 60


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


def variables(cluster: TestCluster, settings: Settings) -> dict[str, str]:
    """Return the environment in which programs reach the cluster."""
    return {
        **cluster.environment,
        "SERVICE_IDENTIFIER_KEYS": settings.identifier_keys,
        "SERVICE_CURSOR_KEY": settings.cursor_key,
    }


def run(cluster: TestCluster, settings: Settings, *arguments: str | Path) -> Ran:
    """Run ``python -m service ARGUMENTS``, in this process."""
    words = list(map(str, arguments))
    result = CliRunner().invoke(main, words, env=variables(cluster, settings), catch_exceptions=False)
    return Ran(result.exit_code, result.stdout, result.stderr)


def run_apart(
    cluster: TestCluster, settings: Settings, module: str, *arguments: str | int | Path, stdin: bytes = b""
) -> Ran:
    """Run ``python -m MODULE ARGUMENTS`` in a process of its own."""
    environment = {**os.environ, **variables(cluster, settings)}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=environment, input=stdin, capture_output=True, timeout=SECONDS, check=False)
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def run_dying(cluster: TestCluster, settings: Settings, *arguments: str | int | Path) -> Ran:
    """Run an import that ends early; see ``dying_import`` for the arguments."""
    return run_apart(cluster, settings, "tests.service.dying_import", *arguments)
