"""What a statement is, by its text: a read that may be sent again, a write, or one that changes its session.

The text is all that is known before it is sent, so the answer errs on the safe side: what isn't surely a read counts as
a write, and what may leave something behind in its session (a setting, an advisory lock, a LISTEN) has it reset.
A SELECT can call a function that writes; it is sent again in a READ ONLY transaction only, where that function fails.
"""

from __future__ import annotations

import enum
import re
from functools import lru_cache


class Kind(enum.Enum):
    """What may be done about a statement that got no answer, and about its session."""

    READ = "read"  # may be sent again
    WRITE = "write"  # without an answer its outcome is unknown
    SESSION = "session"  # a write whose session must be reset before the next user gets it


class Effect(enum.Enum):
    """What a write's answer proves."""

    TOUCHED = "it touched a row"
    NOTHING = "it touched no row"
    UNKNOWN = "either"


_ASIDES = re.compile(  # what may hold any word and means none: strings, quoted names, comments
    r"""(?<![\w$])e'(?:[^'\\]|\\.|'')*'|'[^']*'|"[^"]*"|(?<![\w$])(\$(?:[^\W\d]\w*)?\$).*?\1|--[^\n]*|/\*""",
    re.DOTALL | re.IGNORECASE,
)
_COMMENT_ENDS = re.compile(r"/\*|\*/")
_WORD = re.compile(r"[a-z]+")
_READS = frozenset({"select", "values", "table", "with", "show", "explain"})
_WRITES_INSIDE = re.compile(r"\b(?:insert|update|delete|merge|into|analyze|analyse)\b")
_SESSIONS = frozenset(
    {"begin", "start", "abort", "rollback", "commit", "end", "savepoint", "release"}
    | {"set", "reset", "listen", "unlisten", "prepare", "deallocate", "declare", "fetch", "move", "close"}
    | {"load", "discard", "lock", "do", "call", "copy"}
)
_TELLING = frozenset({"insert", "update", "delete", "merge", "copy"})  # their answers say what they touched
_TRACING_CALL = re.compile(r"advisory_lock|set_config")
_LEAVES_TRACES = re.compile(rf"{_TRACING_CALL.pattern}|\btemp(?:orary)?\b|;\s*\S")


@lru_cache(maxsize=4096)
def kind_of(query: str) -> Kind:
    """Return the kind of a statement."""
    text = _bare(query)
    word = _first_word(text)
    if word in _SESSIONS or _LEAVES_TRACES.search(text):
        return Kind.SESSION
    if word in _READS and not _WRITES_INSIDE.search(text):
        return Kind.READ
    return Kind.WRITE


def effect_of(verb: str, query: str, answer: object) -> Effect:
    """Return what the answer of a write proves; ``verb`` is asyncpg's, and not fetchval (a NULL is no missing row).

    Nothing is proved by the parts of WITH: what is returned or counted may be another part's. Nor by the rows of a
    SELECT FOR UPDATE, whose locks hold no fence off.
    """
    text = _bare(query)
    if verb == "executemany" or _first_word(text) not in _TELLING:
        return Effect.UNKNOWN
    if verb == "execute":
        return Effect.NOTHING if str(answer).endswith(" 0") else Effect.TOUCHED
    if answer:
        return Effect.TOUCHED
    return Effect.NOTHING if "returning" in text else Effect.UNKNOWN


@lru_cache(maxsize=4096)
def _bare(query: str) -> str:
    """Return the statement in lower case, without comments, strings, quoted names, and parentheses around it."""
    parts = []
    at = 0
    while found := _ASIDES.search(query, at):
        parts.append(query[at : found.start()])
        if found[0][0] == '"' and _TRACING_CALL.search(found[0]):
            parts.append(found[0])
        at = _end_of_comment(query, found.end()) if found[0] == "/*" else found.end()
    parts.append(query[at:])
    return " ".join(parts).lower().lstrip("( \t\r\n\f")


def _end_of_comment(query: str, at: int) -> int:
    """Return where the comment ends in which ``at`` lies; they nest."""
    depth = 1
    for mark in _COMMENT_ENDS.finditer(query, at):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return len(query)


def _first_word(text: str) -> str:
    first = _WORD.match(text)
    return first[0] if first else ""
