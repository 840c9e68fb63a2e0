"""Where nodes differ: tables, columns, constraints, indexes, triggers, functions, types, grants, attached tables.

All nodes are of one schema; a difference is a migration that somebody ran by hand, an index build that died, or a
migration that only some nodes have. Triggers of a fence belong to a move in progress and are left out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from migrations.targets import Access, Target

_OBJECTS = (Path(__file__).parent / "digest.sql").read_text(encoding="utf-8")
_ATTACHED = "SELECT table_name, keyspace, key_column FROM shardlib.attached_table"
_FENCE = "shardlib_fence"

Schema = Mapping[tuple[str, str], str]  # (kind, name) -> definition


@dataclass(frozen=True, slots=True)
class Difference:
    """An object that isn't the same everywhere: its definitions, each with its nodes; None where it is missing."""

    kind: str
    name: str
    variants: tuple[tuple[str | None, tuple[str, ...]], ...]  # the most common first


async def read(access: Access, target: Target) -> Schema:
    """Return every object of a database that must be the same on all nodes."""
    async with access.session(target) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        rows = [tuple(row) for row in await connection.fetch(_OBJECTS)]
        rows += await _attached(connection)
    return {(kind, name): text for kind, name, text in rows if not (kind == "trigger" and _FENCE in name)}


async def read_all(access: Access, targets: Sequence[Target]) -> dict[str, Schema]:
    """Return the schema of each database by its name."""
    schemas = await asyncio.gather(*(read(access, target) for target in targets))
    return {target.name: schema for target, schema in zip(targets, schemas, strict=True)}


def digest(schema: Schema) -> str:
    """Return SHA-256 over a schema: equal when no object differs."""
    lines = (f"{kind}\0{name}\0{text}\0" for (kind, name), text in sorted(schema.items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def compare(schemas: Mapping[str, Schema]) -> tuple[Difference, ...]:
    """Return what isn't the same on all nodes, in the order of kind and name."""
    objects = sorted({key for schema in schemas.values() for key in schema})
    found = []
    for kind, name in objects:
        variants: dict[str | None, list[str]] = {}
        for node, schema in schemas.items():
            variants.setdefault(schema.get((kind, name)), []).append(node)
        if len(variants) > 1:
            ranked = sorted(variants.items(), key=lambda variant: -len(variant[1]))
            found.append(Difference(kind, name, tuple((text, tuple(nodes)) for text, nodes in ranked)))
    return tuple(found)


async def _attached(connection: Any) -> list[tuple[str, str, str]]:
    if await connection.fetchval("SELECT to_regclass('shardlib.attached_table')") is None:
        return []
    rows = await connection.fetch(_ATTACHED)
    return [("attached table", row["table_name"], f"{row['keyspace']} by {row['key_column']}") for row in rows]
