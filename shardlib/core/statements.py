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

    TOUCHED = "it touched a row, or was no statement about rows"
    NOTHING = "it touched no row"
    UNKNOWN = "either"


_COMMENTS = re.compile(r"\A(?:\s+|--[^\n]*\n?|/\*.*?\*/|\()*", re.DOTALL)
_WORD = re.compile(r"[a-z]+")
_READS = frozenset({"select", "values", "table", "with", "show", "explain"})
_WRITES_INSIDE = re.compile(r"\b(?:insert|update|delete|merge|into|analyze|analyse)\b")
_SESSIONS = frozenset(
    {"begin", "start", "abort", "rollback", "commit", "end", "savepoint", "release"}
    | {"set", "reset", "listen", "unlisten", "prepare", "deallocate", "declare", "fetch", "move", "close"}
    | {"load", "discard", "lock", "do", "call", "copy"}
)
_LEAVES_TRACES = re.compile(r"advisory_lock|set_config|\btemp(?:orary)?\b|;\s*\S", re.IGNORECASE)


@lru_cache(maxsize=4096)
def kind_of(query: str) -> Kind:
    """Return the kind of a statement."""
    text = query[_COMMENTS.match(query).end() :].lower()  # type: ignore[union-attr]  # it matches the empty string
    first = _WORD.match(text)
    word = first[0] if first else ""
    if word in _SESSIONS or _LEAVES_TRACES.search(text):
        return Kind.SESSION
    if word in _READS and not _WRITES_INSIDE.search(text):
        return Kind.READ
    return Kind.WRITE


def effect_of(verb: str, query: str, answer: object) -> Effect:
    """Return what the answer of a write proves; ``verb`` is asyncpg's, and not fetchval (a NULL is no missing row).

    Nothing is proved by the parts of WITH: what is returned or counted may be another part's.
    """
    text = query[_COMMENTS.match(query).end() :].lower()  # type: ignore[union-attr]  # it matches the empty string
    if verb == "executemany" or text.startswith("with"):
        return Effect.UNKNOWN
    if verb == "execute":
        return Effect.NOTHING if str(answer).endswith(" 0") else Effect.TOUCHED
    if answer:
        return Effect.TOUCHED
    return Effect.NOTHING if "returning" in text else Effect.UNKNOWN
