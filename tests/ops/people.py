"""Running Python as an ordinary user although the tests run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

NOBODY = 65534
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Nobody:
    """The user nobody, with a Python that it may run and a directory that is its own."""

    python: str
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        """A plain environment: what root has set isn't nobody's."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *site_packages()]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(
        self, *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run Python as nobody."""
        return subprocess.run(
            [self.python, *arguments], user=NOBODY, group=NOBODY, extra_groups=[], cwd=self.home, check=False,
            capture_output=True, text=True, timeout=seconds, env={**self.environment, **(environment or {})},
        )


def site_packages() -> list[str]:
    """Return where our packages are."""
    return [place for place in sys.path if place.endswith("site-packages")]


def nobody(home: Path) -> Nobody:
    """Give the user nobody a home; skip where we can't become nobody or it has no Python."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become an ordinary user")
    os.chown(home, NOBODY, NOBODY)
    for python in (sys.executable, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
        made = Nobody(python or "", home)
        if python and works(made):
            return made
    pytest.skip("needs a Python that an ordinary user may run")


def works(user: Nobody) -> bool:
    """Tell whether this Python runs as nobody, finds our packages, and is of our version."""
    question = "import sys, asyncpg, msgpack, shardlib, ops; print(sys.version_info[:2])"
    try:
        answer = user.run("-c", question)
    except PermissionError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == str(sys.version_info[:2])
