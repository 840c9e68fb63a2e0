"""What a migration may not contain, and what to write instead.

The rules hold back what has stopped a service somewhere: a table locked for the time of an index build or of a check of
all its rows, and what takes away a column that running code still reads.
"""

from __future__ import annotations

import re

from migrations.files import Migration, Phase
from migrations.statements import Statement

_TRANSACTION = re.compile(r"(begin|start|commit|end|rollback|abort|savepoint|release|prepare transaction)\b")
_NEEDS_TX_OFF = re.compile(r"(create|drop|reindex|refresh)\b.*\bconcurrently\b|vacuum\b")
_REPEATABLE = re.compile(
    r"create (unique )?index concurrently if not exists |drop index concurrently if exists |reindex\b.* concurrently "
    r"|vacuum\b|analyze\b|alter type \S+ add value if not exists |alter table \S+ validate constraint |do\b"
)
_CREATE_TABLE = re.compile(r"create (?:unlogged )?table (?:if not exists )?(?P<table>\S+?)(?: |\(|$)")
_CREATE_INDEX = re.compile(r"create (?:unique )?index (?!concurrently).*?\bon (?:only )?(?P<table>[^\s(]+)")
_ADD_CHECKED = re.compile(
    r"alter table (?:if exists )?(?:only )?(?P<table>\S+) .*\badd (?:constraint \S+ )?(?:check|foreign key)\b"
)
_REWRITES = re.compile(
    r"alter table (?:if exists )?(?:only )?(?P<table>\S+) .*\balter (?:column )?\S+ (?:set data )?type "
    r"(?!text\b|varchar\b)"
)
_TAKES_AWAY = re.compile(r"drop (table|schema|view|type)\b|alter table\b.*\b(drop column|rename)\b")
_SESSION_SETTING = re.compile(r"set (?!local\b|constraints\b)")


def complaints(migration: Migration) -> tuple[str, ...]:
    """Return what is wrong with a migration, a line each; nothing when it may be applied."""
    made = {found["table"] for s in migration.statements if (found := _CREATE_TABLE.match(s.bare))}
    said = [complaint for s in migration.statements for complaint in _complain(migration, s, made)]
    if not migration.statements:
        said.append("it holds no statement")
    return tuple(f"{migration.name}: {complaint}" for complaint in said)


def _complain(migration: Migration, statement: Statement, made: set[str]) -> list[str]:
    bare = statement.bare
    said = []
    if _TRANSACTION.match(bare):
        said.append(f"'{bare[:40]}': the runner makes the transaction")
    if _SESSION_SETTING.match(bare):
        said.append(f"'{bare[:40]}': use SET LOCAL, or a directive for a timeout")
    if migration.phase is Phase.PRE and _TAKES_AWAY.match(bare):
        said.append(f"'{bare[:40]}': running code may need it; take it away in a post migration")
    if migration.in_transaction:
        said.extend(_complain_of_locks(bare, made))
    elif not _REPEATABLE.match(bare):
        said.append(f"'{bare[:40]}': under tx: off a statement must be repeatable (IF NOT EXISTS, DO in batches)")
    return said


def _complain_of_locks(bare: str, made: set[str]) -> list[str]:
    said = []
    if _NEEDS_TX_OFF.match(bare):
        said.append(f"'{bare[:40]}': can't run in a transaction; give it a file of its own with -- tx: off")
    if (index := _CREATE_INDEX.match(bare)) and index["table"] not in made:
        said.append(f"index on {index['table']}: it holds up writes; build it CONCURRENTLY in a file with -- tx: off")
    if (added := _ADD_CHECKED.match(bare)) and added["table"] not in made and "not valid" not in bare:
        said.append(f"constraint on {added['table']}: add it NOT VALID, then VALIDATE it in the next migration")
    if (changed := _REWRITES.match(bare)) and changed["table"] not in made:
        said.append(
            f"type of a column of {changed['table']}: it may rewrite the table, which older snapshots then see "
            "empty; add a column, fill it in batches, take the old one away in a post migration"
        )
    return said
