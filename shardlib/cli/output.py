"""Tables for people, JSON for scripts."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from typing import Any
from uuid import UUID

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], right: Sequence[str] = ()) -> str:
    """Return rows as aligned columns; those named in ``right`` are flush right, None is a dash."""
    cells = [list(headers), *([_text(value) for value in row] for row in rows)]
    widths = [max(_width(row[column]) for row in cells) for column in range(len(headers))]
    flush_right = [header in right for header in headers]
    return "\n".join("  ".join(map(_pad, row, widths, flush_right)).rstrip() for row in cells)


def show(as_json: bool, document: object, text: str) -> None:
    """Print the document for scripts or the text for people."""
    click.echo(json.dumps(document, default=_plain, ensure_ascii=False, indent=2) if as_json else text)


def duration(seconds: float | None) -> str | None:
    """Return a time span as people say it."""
    if seconds is None:
        return None
    if seconds == math.inf:
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _width(text: str) -> int:
    """Return the columns that a terminal needs: wide letters take two, combining marks none."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(unicodedata.combining(letter) > 0 for letter in text)


def _pad(text: str, width: int, flush_right: bool) -> str:
    blank = " " * (width - _width(text))
    return blank + text if flush_right else text + blank


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
