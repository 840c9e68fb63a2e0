"""What a test of migrations works on: fresh databases, and a directory of migrations to fill."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrations.fleet import Fleet, Result, State
from migrations.targets import Access, Target

NODES = ("node1", "node2", "node3")


@dataclass(frozen=True)
class Bench:
    """What a test of migrations works on."""

    access: Access
    directory: Path

    def write(self, files: Mapping[str, str]) -> None:
        """Write migrations, ``{"node/0001_pre_x": "SELECT 1"}``."""
        for name, text in files.items():
            path = self.directory / f"{name}.sql"
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")

    async def fleet(self) -> Fleet:
        return await Fleet.find(self.access, self.directory)

    async def apply(self, **options: Any) -> Result:
        defaults = {"phase": None, "canary": None, "parallel": 4, "report": lambda _step: None}
        return await (await self.fleet()).apply(**{**defaults, **options})

    async def states(self) -> dict[str, State]:
        return {state.target.name: state for state in await (await self.fleet()).states()}

    async def levels(self) -> dict[str, int]:
        return {name: state.level for name, state in (await self.states()).items() if name != "catalog"}

    async def target(self, name: str) -> Target:
        return next(target for target in (await self.fleet()).targets if target.name == name)

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[Any]:
        """Open an administrator's session on a database, by its name."""
        async with self.access.session(await self.target(name)) as connection:
            yield connection

    async def execute(self, name: str, *statements: str) -> None:
        async with self.session(name) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def fetchval(self, name: str, query: str) -> Any:
        async with self.session(name) as connection:
            return await connection.fetchval(query)
