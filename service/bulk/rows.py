"""From a line to a user who may be imported, by the same types and rules as the API's.

DESIGN. The API's own way into JSON (``service.body``) is strict and too slow for millions of lines. A line in which
nothing needs its strictness (no escapes, no name that could stand there twice, little nesting) is decoded by msgspec
instead; every other line, and every line that msgspec refuses, goes the strict way, which then also explains the
error. So the fast way may only say yes, and says the same as the strict one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from service import body
from service.bulk.lines import MAX_LINE_BYTES, Line
from service.bulk.report import Rejection
from service.problem import Kind, Problem, invalid
from service.profiles import domain
from service.profiles.wire import NewUser
from shardlib.bulk import BulkClaims, Wanted

PLAIN_NESTING = 30  # brackets in a line that need no look at how deep they nest: below what the API allows
_FORMS = {"/email": "an e-mail address", "/username": "a username", "/locale": "a language tag"}
_SPACED_NAME = re.compile(rb'"[ \t\r\n]+:')
_NESTING = (dict, list)
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)

Version = Annotated[int, Meta(ge=1, le=2**63 - 1)]
Time = Annotated[datetime, Meta(tz=True)]


class ImportedUser(NewUser, forbid_unknown_fields=True):
    """A user as a line has it: what the API takes, and what an export adds."""

    id: UUID | None = None
    version: Version = 1
    created_at: Time | None = None
    updated_at: Time | None = None


@dataclass(slots=True)
class Row:
    """A valid line: the user, its id and bucket, its claims by kind, and the id under which it claims.

    ``request_id`` proves that an earlier run imported this very line; a line that names its id needs no proof.
    """

    line: int
    user: ImportedUser
    id: UUID
    owner: str
    bucket: int
    request_id: str
    profile: str
    wanted: dict[str, Wanted] = field(default_factory=dict)

    def values(self) -> dict[str, str]:
        """Return the unique values by kind, clear."""
        email = {"email": self.user.email}
        return email if self.user.username is None else {**email, "username": self.user.username}


class Reader:
    """Makes rows of lines."""

    def __init__(self, claims: BulkClaims, bucket_of: Callable[[UUID], int], id_key: bytes) -> None:
        self.bucket_of = bucket_of
        self._claims = claims
        self._id_key = id_key

    def read(self, lines: Sequence[Line]) -> tuple[list[Row], list[Rejection]]:
        """Return the rows of lines, and why there is none for the others."""
        rows: list[Row] = []
        rejections: list[Rejection] = []
        hidden: list[str] = []
        for line in lines:
            try:
                row, values = self._row(line)
            except Problem as problem:
                rejections.append(_rejection(line.number, problem))
            else:
                rows.append(row)
                hidden += values
        self._add_claims(rows, hidden)
        return rows, rejections

    def _row(self, line: Line) -> tuple[Row, list[str]]:
        """Return a row without its claims, and its unique values as they are hidden."""
        if line.too_long:
            raise Problem(Kind.TOO_LARGE, f"the line has more than {MAX_LINE_BYTES} bytes")
        user, profile = read_user(line.text)
        hidden = [self._claims.hide("email", user.email)]
        if user.username is not None:
            hidden.append(self._claims.hide("username", user.username))
        user_id = user.id or self._derived_id(hidden[0])
        owner = str(user_id)
        request = f"import:{owner if user.id else hashlib.blake2b(line.text, digest_size=16).hexdigest()}"
        return Row(line.number, user, user_id, owner, self.bucket_of(user_id), request, profile), hidden

    def _add_claims(self, rows: Sequence[Row], hidden: Sequence[str]) -> None:
        """Give each row its claims, in the order in which it named its values."""
        others = iter(self._claims.others([pair for row in rows for pair in row.values().items()]))
        seats = iter(self._claims.seats(hidden))
        for row in rows:
            for kind in row.values():
                row.wanted[kind] = Wanted(next(seats), row.owner, row.request_id, next(others))

    def _derived_id(self, hidden_email: str) -> UUID:
        """Return the id of a user whose line names none: of its e-mail, the same in each run; a UUIDv8."""
        digest = hashlib.blake2b(hidden_email.encode(), digest_size=16, key=self._id_key).digest()
        return UUID(int=int.from_bytes(digest) & ~(0xF << 76 | 3 << 62) | 8 << 76 | 2 << 62)


def read_user(text: bytes) -> tuple[ImportedUser, str]:
    """Return a line's user and its profile as JSON; Problem for what the API would refuse."""
    try:
        user, profile = _quickly(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError, _NotPlain):
        user = body.parse(text, ImportedUser)
        profile = domain.profile_text(user.profile)
    user.email = domain.fields_of(user, profile).email  # by the rules that types can't say
    if not times_fit(user):
        raise invalid("/created_at", "expected times between 1970 and 9999, created before updated")
    return user, profile


class _NotPlain(Exception):
    """The line needs the strict way."""


def _quickly(text: bytes) -> tuple[ImportedUser, str]:
    if b"\\u" in text or text.count(b"{") + text.count(b"[") > PLAIN_NESTING or _SPACED_NAME.search(text):
        raise _NotPlain
    value = msgspec.json.decode(text)
    if _names(value) != text.count(b'":'):
        raise _NotPlain
    user = msgspec.convert(value, ImportedUser)
    return user, msgspec.json.encode(user.profile).decode()


def _names(value: Any) -> int:
    """Return how many names there are in all objects, if none stands twice in one."""
    if not isinstance(value, dict | list):
        return 0
    named, items = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:
        if item.__class__ in _NESTING:
            named += _names(item)
    return named


def times_fit(user: ImportedUser) -> bool:
    """Return whether an import's times are in an order and in a range that Postgres and JSON share."""
    created, updated = user.created_at or _EARLIEST, user.updated_at or _LATEST
    return _EARLIEST <= created <= updated <= _LATEST


def _rejection(line: int, problem: Problem) -> Rejection:
    flaw = problem.errors[0] if problem.errors else None
    field_ = flaw.pointer if flaw is not None and isinstance(flaw.pointer, str) else ""
    detail = problem.detail if flaw is None else flaw.detail
    if "regex" in detail:
        detail = f"this doesn't look like {_FORMS.get(field_, 'what belongs here')}"
    return Rejection(line, problem.kind.slug, detail, field_)
