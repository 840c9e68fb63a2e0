"""A local stack of its own: a directory in memory, an offset at which every port is free."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.local.layout import CATALOG, INTERNAL, SERVICE, VALKEY
from shardlib.testing import places, ports, processes
from tests.ops.people import REPOSITORY

PLAIN_PORTS = [CATALOG, *range(5401, 5405), *range(5411, 5415), VALKEY, SERVICE, INTERNAL]
COMMAND = [sys.executable, "-m", "ops.local"]


def free_offset() -> int:
    """Find an offset at which every port of a stack with four nodes is free, far from what people use."""
    for offset in random.sample(range(10_100, 22_000, 7), 1000):
        if all(ports.is_free(port + offset) for port in PLAIN_PORTS):
            return offset
    raise AssertionError("no offset with free ports")


@dataclass(frozen=True)
class Local:
    """The command line of a stack in a directory of its own."""

    directory: Path
    offset: int

    @property
    def environment(self) -> dict[str, str]:
        """What the command runs with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SHARDLIB_", "SERVICE_"))}
        mine = {"LOCAL_STATE_DIR": str(self.directory), "LOCAL_PORT_OFFSET": str(self.offset), "SERVICE_WORKERS": "1"}
        return {**kept, **mine}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; what it tells people can be read from its stderr."""
        return subprocess.Popen(
            [*COMMAND, *arguments], cwd=REPOSITORY, env=self.environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*COMMAND, *arguments], cwd=REPOSITORY, env={**self.environment, **environment}, text=True,
            capture_output=True, check=False, timeout=180,
        )

    def up(self) -> str:
        """Start the stack; return what the command said."""
        done = self.call("up")
        assert done.returncode == 0, done.stderr
        return done.stderr

    def pids(self) -> dict[str, int | None]:
        """Return each part's main process."""
        parts = json.loads(self.call("status", "--json").stdout)["parts"]
        return {part["name"]: part["pid"] for part in parts}

    def left(self) -> list[str]:
        """Describe every process that works in the stack's directory."""
        return [processes.command_line(pid) for pid in processes.working_below(self.directory)]


@pytest.fixture(scope="session")
def local_stack() -> Iterator[Local]:
    """Give a stack whatever state tests leave it in."""
    with places.place() as directory:
        yield Local(directory / "local", free_offset())


@pytest.fixture
def local(local_stack: Local) -> Local:
    """Give the stack, running."""
    if None in local_stack.pids().values():
        local_stack.up()
    return local_stack


@pytest.fixture
def stopped(local_stack: Local) -> Local:
    """Give the stack, at rest."""
    if local_stack.left():
        local_stack.call("down")
    return local_stack
