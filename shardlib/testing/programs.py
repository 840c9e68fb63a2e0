"""How programs are started here: under an identity that Postgres accepts, and tied to our own life where wanted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from shardlib.errors import ShardlibError

CHILD = Path(__file__).with_name("child.py")

# A child that shall die with its parent really dies with the *thread* that started it (man 2 prctl), so all are
# started by one thread that lives as long as the process.
_starter = ThreadPoolExecutor(1, thread_name_prefix="program-starter")


class EngineError(ShardlibError):
    """A program is missing, too old, or ended with an error; the message says which and what it said."""


@cache
def identity() -> str:
    """Choose how a Postgres program is started: see child.py."""
    if os.geteuid() != 0:
        return "self"
    probe = disguise("namespace", 0, ["/bin/true"])
    works = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    return "namespace" if works else "nobody"


def disguise(who: str, parent: int, command: list[str]) -> list[str]:
    """Wrap a command so that it runs as somebody else, or dies with its parent unless that is 0."""
    if who == "self" and parent == 0:
        return command
    return [sys.executable, "-I", "-S", str(CHILD), who, str(parent), *command]


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment without PGHOST and its kin, which would lead a program to another server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C", **(more or {})}


def finish(
    command: list[str], stdin: str = "", environment: Mapping[str, str] | None = None, *, who: str = "self"
) -> str:
    """Run a command to its end; return its output, or raise EngineError with its last lines."""
    done = subprocess.run(
        disguise(who, 0, command), input=stdin, capture_output=True, text=True, check=False,
        env=clean_environment(environment), cwd="/",
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise EngineError(f"{Path(command[0]).name} ended with {done.returncode}: {said}")
    return done.stdout


def launch(
    command: list[str],
    directory: Path,
    log: Path,
    *,
    who: str = "self",
    tied: bool,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server that works in ``directory``; a tied one dies with this process, even by SIGKILL.

    It is the leader of a session of its own, so that a Ctrl-C at the terminal doesn't reach it.
    """
    wrapped = disguise(who, os.getpid() if tied else 0, command)
    return _starter.submit(_launch, wrapped, directory, log, clean_environment(environment)).result()


def _launch(command: list[str], directory: Path, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=directory, env=environment,
            start_new_session=True,
        )


def settle() -> None:
    """Wait until no start is under way: what was launched by now can be found by its working directory."""
    _starter.submit(int).result()
