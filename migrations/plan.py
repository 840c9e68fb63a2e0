"""What a database still needs: a pure function of the files and of its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from migrations.files import Migration, Phase, Refused
from migrations.lint import complaints


@dataclass(frozen=True, slots=True)
class Applied:
    """A row of a database's ledger. ``finished`` is False for one without a transaction that died half way."""

    number: int
    name: str
    checksum: str
    finished: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What to apply now, and what has to wait for another phase."""

    todo: tuple[Migration, ...]
    waiting: tuple[Migration, ...]


def plan(files: Sequence[Migration], ledger: Sequence[Applied], phase: Phase | None, level: int) -> Plan:
    """Return what a database needs in a phase (None: all of them).

    What other databases of its kind already have (``level``: their highest number) is applied whatever the phase, so a
    new node catches up. Beyond it the order of numbers holds: a phase ends where the other begins. Raises Refused
    when the ledger contradicts the files or a file breaks a rule.
    """
    done = check(files, ledger)
    pending = [migration for migration in files if migration.number > done]
    _check_rules(pending)
    if phase is None:
        return Plan(tuple(pending), ())
    todo = list(pending)
    for position, migration in enumerate(pending):
        if migration.number > level and migration.phase is not phase:
            todo = pending[:position]
            break
    waiting = pending[len(todo) :]
    if phase is Phase.POST and waiting and not todo:
        raise Refused(f"{waiting[0].name} comes before the code that post migrations follow: apply --phase pre first")
    return Plan(tuple(todo), tuple(waiting))


def check(files: Sequence[Migration], ledger: Sequence[Applied]) -> int:
    """Return the highest number that is applied; Refused when the ledger contradicts the files."""
    by_number = {migration.number: migration for migration in files}
    for expected, row in enumerate(ledger, start=1):
        if row.number != expected or not (row.finished or row is ledger[-1]):
            raise Refused(f"the ledger has {row.name} without all before it: somebody changed it by hand")
        if row.number not in by_number:
            raise Refused(f"{row.name} is applied, but not in this checkout: a newer one was here; use that")
        _check_same(by_number[row.number], row)
    return len([row for row in ledger if row.finished])


def _check_same(migration: Migration, row: Applied) -> None:
    if migration.name != row.name:
        raise Refused(f"number {row.number:04} was applied as {row.name}, here it is {migration.name}: renumber it")
    if row.finished and migration.checksum != row.checksum:
        raise Refused(
            f"{row.name} was changed after it was applied (applied: sha256 {row.checksum}, here: {migration.checksum});"
            " put the file back as it was and write the change as a new migration"
        )


def _check_rules(pending: Sequence[Migration]) -> None:
    said = [complaint for migration in pending for complaint in complaints(migration)]
    if said:
        raise Refused("; ".join(said))
