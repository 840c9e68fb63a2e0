"""Calls shardctl as a script does: arguments in, exit code and output out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from click.testing import CliRunner

from shardlib.cli import main


@dataclass(frozen=True)
class Said:
    """What a call printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document."""
        return json.loads(self.out)


def shardctl(*arguments: str) -> Said:
    """Run a command line in this process; an exception that would be a traceback fails the test."""
    result = CliRunner().invoke(main, arguments, prog_name="shardctl")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)
