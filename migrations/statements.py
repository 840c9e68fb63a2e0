"""An SQL script cut into its statements, each with a bare form in which only its grammar is left.

Knows comments, quoted names, strings (E'' among them) and dollar quotes: enough to find the semicolons that end a
statement, and to look for keywords without being fooled by what stands in a string. Functions need dollar-quoted
bodies: BEGIN ATOMIC isn't understood.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<comment> --[^\n]* | /\*.*?\*/ )
      | (?P<string> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>(?:[A-Za-z_]\w*)?)\$.*?\$(?P=tag)\$ )
      | (?P<name> "(?:[^"]|"")*" )
      | (?P<end> ; )
      | (?P<space> \s+ )
      | (?P<word> \w+ )
      | (?P<other> . )""",
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its text, and the same in lower case without comments and with empty strings."""

    text: str
    bare: str


def split(script: str) -> tuple[Statement, ...]:
    """Return the statements of a script in order; pieces that hold only comments are left out."""
    found: list[Statement] = []
    text: list[str] = []
    bare: list[str] = []
    for token in _TOKEN.finditer(script):
        if token.lastgroup == "end":
            _close(found, text, bare)
        else:
            text.append(token[0])
            bare.append(_bare(token))
    _close(found, text, bare)
    return tuple(found)


def _bare(token: re.Match[str]) -> str:
    if token["string"] is not None:
        return "''"
    if token["comment"] is not None or token["space"] is not None:
        return " "
    return token[0] if token["name"] is not None else token[0].lower()


def _close(found: list[Statement], text: list[str], bare: list[str]) -> None:
    plain = " ".join("".join(bare).split())
    if plain:
        found.append(Statement("".join(text).strip(), plain))
    text.clear()
    bare.clear()
