"""The migration files: NNNN_{pre|post}_what.sql, numbered without a gap, with directives in their head.

``pre`` expands the schema before the new code runs, ``post`` contracts it when no old code is left. Directives are
comments in the first lines: ``-- tx: off``, ``-- lock_timeout: 2s``, ``-- statement_timeout: 60s``. The checksum is
that of the text with line ends and trailing blanks normalised: an applied file stays as it is.
"""

from __future__ import annotations

import enum
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from migrations.statements import Statement, split

_NAME = re.compile(r"(?P<number>\d{4})_(?P<phase>pre|post)_(?P<what>[a-z0-9][a-z0-9_]*)\.sql")
_DIRECTIVE = re.compile(r"--\s*(?P<key>[a-z_]+):\s*(?P<value>\S+)")
_DURATION = re.compile(r"0|\d+(ms|s|min|h)")


class Refused(Exception):
    """The files, or what the databases have of them, aren't as they must be; nothing was changed."""


class Phase(enum.Enum):
    """When a migration is applied: before the new code, or after the last of the old."""

    PRE = "pre"
    POST = "post"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    phase: Phase
    name: str  # the file's, without .sql
    text: str
    in_transaction: bool
    lock_timeout: str
    statement_timeout: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the normalised text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def statements(self) -> tuple[Statement, ...]:
        return split(self.text)


def read(directory: Path) -> tuple[Migration, ...]:
    """Return the migrations of a directory in order; Refused names the file that is out of place."""
    found = [_parse(path.name, path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.sql"))]
    for expected, migration in enumerate(found, start=1):
        if migration.number != expected:
            raise Refused(f"{directory.name}/{migration.name}.sql should have number {expected:04}: no gap, no double")
    return tuple(found)


def _parse(filename: str, raw: str) -> Migration:
    name = _NAME.fullmatch(filename)
    if name is None:
        raise Refused(f"{filename}: the name of a migration is NNNN_pre_what.sql or NNNN_post_what.sql")
    text = "\n".join(line.rstrip() for line in raw.splitlines()).strip() + "\n"
    directives = _directives(filename, text)
    in_transaction = directives.get("tx", "on") == "on"
    return Migration(
        number=int(name["number"]),
        phase=Phase(name["phase"]),
        name=filename.removesuffix(".sql"),
        text=text,
        in_transaction=in_transaction,
        # Without a transaction a concurrent index waits for old snapshots, and nobody queues behind it meanwhile.
        lock_timeout=directives.get("lock_timeout", "2s" if in_transaction else "60s"),
        statement_timeout=directives.get("statement_timeout", "60s" if in_transaction else "0"),
    )


def _directives(filename: str, text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if directive := _DIRECTIVE.fullmatch(line):
            _check_directive(filename, directive["key"], directive["value"])
            found[directive["key"]] = directive["value"]
    return found


def _check_directive(filename: str, key: str, value: str) -> None:
    known = {"tx": re.compile("on|off"), "lock_timeout": _DURATION, "statement_timeout": _DURATION}
    if key not in known or not known[key].fullmatch(value):
        raise Refused(f"{filename}: {key}: {value} isn't tx: on|off, lock_timeout: 2s or statement_timeout: 60s")
