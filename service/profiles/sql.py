"""The statements of ``users.sql`` by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

_BLOCK = re.compile(r"^-- name: (?P<name>\w+)\n-- .+\n(?P<text>(?:(?!-- name: ).*\n?)*)", re.MULTILINE)


def _load(name: str) -> Mapping[str, str]:
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return MappingProxyType({block["name"]: block["text"].strip().rstrip(";") for block in _BLOCK.finditer(text)})


SQL = _load("users.sql")
