"""Every statement of the library, in ``.sql`` files: named, described, read once.

A file of statements holds blocks of ``-- name: some_name``, one ``-- `` line that describes it, and the statement. A
schema script (``*_schema.sql``, ``node*.sql``) is run whole and may be run again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

_BLOCK = re.compile(r"^-- name: (?P<name>\w+)\n-- (?P<about>.+)\n(?P<text>(?:(?!-- name: ).*\n?)*)", re.MULTILINE)


@cache
def load(mechanism: str) -> Mapping[str, str]:
    """Return the statements of ``<mechanism>.sql`` by name; ValueError when two share one."""
    found: dict[str, str] = {}
    for block in _BLOCK.finditer(_read(f"{mechanism}.sql")):
        if block["name"] in found:
            raise ValueError(f"{mechanism}.sql: two statements are named {block['name']}")
        found[block["name"]] = block["text"].strip().rstrip(";")
    return MappingProxyType(found)


@cache
def scripts(prefix: str) -> tuple[str, ...]:
    """Return the schema scripts whose file name starts with ``prefix``, in the order of their names."""
    names = sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(".sql"))
    return tuple(_read(name) for name in names if name.startswith(prefix))


def quote_identifier(name: str) -> str:
    """Return ``name`` as an SQL identifier; ValueError for what Postgres would cut or refuse."""
    if not name or "\0" in name or len(name.encode()) > 63:
        raise ValueError(f"not a name for Postgres (1 to 63 bytes): {name!r}")
    return '"' + name.replace('"', '""') + '"'


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
