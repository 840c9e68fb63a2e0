"""All databases: the catalog, then one node as a canary, then the other nodes, a few at a time.

Everything is read and checked before anything is changed. After a failure nothing new is begun; what has begun ends,
and the result says which database has what, so that a second run goes on from there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from migrations import files, ledger
from migrations.files import Migration, Phase, Refused
from migrations.plan import Applied, Plan, check, plan
from migrations.run import run
from migrations.targets import Access, Kind, Target, locked

FILES = Path(__file__).parent
_FAILURES = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, Refused)


@dataclass(frozen=True, slots=True)
class State:
    """What a database has; ``problem`` says why that isn't known or can't be right."""

    target: Target
    ledger: tuple[Applied, ...]
    pending: tuple[str, ...]
    problem: str | None = None

    @property
    def level(self) -> int:
        """The highest number that is applied."""
        return max((row.number for row in self.ledger if row.finished), default=0)


@dataclass(frozen=True, slots=True)
class Step:
    """One migration applied to one database."""

    database: str
    migration: str
    seconds: float
    tries: int


@dataclass(slots=True)
class Result:
    """What a run did: ``failed`` says why it stopped, by database; ``waiting`` is what another phase comes before."""

    applied: list[Step] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The databases and the files for each kind of them."""

    access: Access
    targets: tuple[Target, ...]
    files: dict[Kind, tuple[Migration, ...]]

    @classmethod
    async def find(cls, access: Access, directory: Path = FILES) -> Fleet:
        """Read the files and ask the catalog for the nodes."""
        found = {kind: files.read(directory / kind.value) for kind in Kind}
        return cls(access, (access.catalog, *await access.nodes()), found)

    async def states(self) -> tuple[State, ...]:
        """Return what each database has, in the order of the targets."""
        return tuple(await asyncio.gather(*(self._state(target) for target in self.targets)))

    async def apply(
        self, phase: Phase | None, *, canary: str | None, parallel: int, report: Callable[[Step], None]
    ) -> Result:
        """Bring all databases up to date; Refused before anything is changed when one of them can't be."""
        levels = self._check(await self.states(), phase)
        work = _Work(self, phase, levels, report)
        for group in self._groups(canary):
            await work.run_all(group, parallel)
            if work.result.failed:
                break
        return work.result

    def plans(self, states: Sequence[State], phase: Phase | None) -> dict[str, Plan]:
        """Return what each database would get."""
        levels = _levels(states)
        return {
            state.target.name: plan(self.files[state.target.kind], state.ledger, phase, levels[state.target.kind])
            for state in states
        }

    def _check(self, states: Sequence[State], phase: Phase | None) -> dict[Kind, int]:
        if broken := [f"{state.target.name}: {state.problem}" for state in states if state.problem]:
            raise Refused("nothing was changed; " + "; ".join(broken))
        self.plans(states, phase)
        return _levels(states)

    def _groups(self, canary: str | None) -> list[list[Target]]:
        catalog = [target for target in self.targets if target.kind is Kind.CATALOG]
        nodes = [target for target in self.targets if target.kind is Kind.NODE]
        first = [target for target in nodes if target.name == canary] if canary else nodes[:1]
        if canary and not first:
            raise Refused(f"no node {canary}; there are: {', '.join(node.name for node in nodes)}")
        return [catalog, first, [node for node in nodes if node not in first]]

    async def _state(self, target: Target) -> State:
        rows: tuple[Applied, ...] = ()
        try:
            async with self.access.session(target) as connection:
                rows = await ledger.read(connection)
            done = check(self.files[target.kind], rows)
        except _FAILURES as error:
            return State(target, rows, (), say(error))
        return State(target, rows, tuple(m.name for m in self.files[target.kind] if m.number > done))


@dataclass(slots=True)
class _Work:
    """A run in progress."""

    fleet: Fleet
    phase: Phase | None
    levels: dict[Kind, int]
    report: Callable[[Step], None]
    result: Result = field(default_factory=Result)

    async def run_all(self, targets: Sequence[Target], parallel: int) -> None:
        slots = asyncio.Semaphore(parallel)
        async with asyncio.TaskGroup() as tasks:
            for target in targets:
                tasks.create_task(self._run_one(target, slots))

    async def _run_one(self, target: Target, slots: asyncio.Semaphore) -> None:
        async with slots:
            if self.result.failed:
                return
            try:
                await self._bring_up_to_date(target)
            except _FAILURES as error:
                self.result.failed[target.name] = say(error)

    async def _bring_up_to_date(self, target: Target) -> None:
        async with self.fleet.access.session(target) as connection, locked(connection):
            await ledger.create(connection)
            rows = await ledger.read(connection)  # again, under the lock: another runner may have been here
            todo = plan(self.fleet.files[target.kind], rows, self.phase, self.levels[target.kind])
            self.result.waiting.update(migration.name for migration in todo.waiting)
            for migration in todo.todo:
                if self.result.failed:
                    return
                started = time.monotonic()
                tries = await _run(connection, migration)
                step = Step(target.name, migration.name, time.monotonic() - started, tries)
                self.result.applied.append(step)
                self.report(step)


async def _run(connection: asyncpg.Connection, migration: Migration) -> int:
    try:
        return await run(connection, migration)
    except asyncpg.PostgresError as error:
        error.add_note(f"in {migration.name}")
        raise


def _levels(states: Sequence[State]) -> dict[Kind, int]:
    return {kind: max((s.level for s in states if s.target.kind is kind), default=0) for kind in Kind}


def say(error: BaseException) -> str:
    """Return an error as a line: what Postgres said, with its detail and hint, and where."""
    parts = [str(error) or type(error).__name__, *getattr(error, "__notes__", ())]
    return "; ".join(line for part in parts for line in part.splitlines())
