"""What goes wrong, as problem details (RFC 9457): every kind there is, and how the library's errors map to them.

DESIGN. The kinds are a closed table: its names are the stable ``type`` URIs (``/problems/<name>``, which this service
answers itself), and the OpenAPI document and the documentation page are made from it. A problem says what is wrong with
the *request*; nothing of it comes from an exception's text, so neither SQL nor an address can leak.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from service.reply import NO_STORE_LINES, Reply, header_lines
from shardlib import errors

MEDIA_TYPE = "application/problem+json"


class Kind(enum.Enum):
    """Every kind of problem: its status, its title, and what a client can do about it."""

    BAD_REQUEST = 400, "Not a request", "The bytes aren't HTTP that this server reads; see `detail`."
    BAD_JSON = 400, "Not JSON", "The body must be JSON (RFC 8259) in UTF-8, with no name twice in an object."
    BAD_PARAMETER = 400, "Bad parameter", "A parameter of the path, the query or a header is wrong; see `errors`."
    BAD_TOKEN = 400, "Bad consistency token", "Send a token as this service gave it, or none."
    NOT_FOUND = 404, "Nothing there", "No such resource."
    METHOD_NOT_ALLOWED = 405, "Method not allowed", "The `Allow` header lists the methods that work here."
    TOO_SLOW = 408, "Request took too long", "The body didn't arrive in time; send it again, faster."
    CONFLICT = 409, "Already taken", "Another user has this e-mail or username; see `errors`."
    WRITE_LOST = 409, "Write lost", "A failover lost the write of this token; read without it, then write again."
    PRECONDITION_FAILED = 412, "Changed meanwhile", "Read the user again, then repeat the change with the new `ETag`."
    TOO_LARGE = 413, "Body too large", "Send at most 64 KiB."
    UNSUPPORTED_MEDIA_TYPE = 415, "Unsupported media type", "Send the content type that `detail` names, uncompressed."
    INVALID = 422, "Invalid content", "The JSON doesn't fit; `errors` says what and where."
    KEY_REUSED = 422, "Idempotency key reused", "This key came with another body before; use a new key."
    INTERNAL = 500, "Our fault", "It is logged with the `request_id`; trying again may help."
    UNAVAILABLE = 503, "Temporarily unavailable", "Nothing was changed; try again after `Retry-After` seconds."
    OVERLOADED = 503, "Too busy", "Nothing was changed; try again after `Retry-After` seconds."
    OUTCOME_UNKNOWN = (
        503,
        "Outcome unknown",
        "The change may or may not have happened. Repeat it with the same `Idempotency-Key`, or read before writing.",
    )
    DEADLINE = 503, "Out of time", "No answer in time, and nothing was changed; try again after `Retry-After` seconds."

    def __init__(self, status: int, title: str, advice: str) -> None:
        self.status = status
        self.title = title
        self.advice = advice

    def __new__(cls, *_: object) -> Kind:
        """Keep members distinct although some share their status."""
        member = object.__new__(cls)
        member._value_ = len(cls.__members__)
        return member

    @property
    def slug(self) -> str:
        """The last part of its type URI."""
        return self.name.lower().replace("_", "-")

    @property
    def uri(self) -> str:
        """Its type: a reference that this service resolves."""
        return f"/problems/{self.slug}"


class Flaw(Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong, and where: a JSON pointer (RFC 6901) into the body, or a parameter's name."""

    detail: str
    pointer: str | UnsetType = UNSET
    parameter: str | UnsetType = UNSET


class ProblemDetails(Struct, frozen=True):
    """The body of every answer that isn't a success."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[Flaw] | UnsetType = UNSET


@dataclass(slots=True)
class Problem(Exception):
    """Answer with a problem; raised anywhere below the door."""

    kind: Kind
    detail: str
    errors: tuple[Flaw, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None  # seconds

    def reply(self, request_id: str) -> Reply:
        """Return the answer."""
        kind = self.kind
        body = ProblemDetails(
            type=kind.uri,
            title=kind.title,
            status=kind.status,
            detail=self.detail,
            request_id=request_id,
            errors=list(self.errors) or UNSET,
        )
        headers = {"Content-Type": MEDIA_TYPE, **self.headers}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        return Reply(kind.status, msgspec.json.encode(body), NO_STORE_LINES + header_lines(headers))


def invalid(pointer: str, detail: str) -> Problem:
    """Return the problem of a body that is wrong in one place."""
    return Problem(Kind.INVALID, detail, (Flaw(detail, pointer=pointer),))


def bad_parameter(name: str, detail: str) -> Problem:
    """Return the problem of a parameter of the path, the query or a header."""
    return Problem(Kind.BAD_PARAMETER, f"{name}: {detail}", (Flaw(detail, parameter=name),))


def from_library(error: errors.ShardlibError) -> Problem:
    """Return what a client may know about an error of the library, which isn't its text."""
    for types, kind, detail in _TRANSLATIONS:
        if isinstance(error, types):
            wait = error.retry_after if isinstance(error, errors.Retryable) else None
            return Problem(kind, detail, retry_after=_wait(kind, wait))
    return Problem(Kind.INTERNAL, "the request couldn't be carried out")


def _wait(kind: Kind, seconds: float | None) -> float | None:
    return seconds or 1.0 if kind.status == 503 else None


_TRANSLATIONS: tuple[tuple[Any, Kind, str], ...] = (
    (errors.DeadlineExceeded, Kind.DEADLINE, "no answer from the database in time"),
    (errors.Overloaded, Kind.OVERLOADED, "too many requests wait for the database"),
    (errors.Retryable, Kind.UNAVAILABLE, "the database that holds this user can't be reached"),
    (errors.OutcomeUnknown, Kind.OUTCOME_UNKNOWN, "the change was sent to the database, and no answer came"),
    (errors.WriteLost, Kind.WRITE_LOST, "the write that this token stands for was lost"),
    (errors.BadToken, Kind.BAD_TOKEN, "not a token of this service"),
    (errors.AnswerMismatch, Kind.KEY_REUSED, "this Idempotency-Key was used for something else"),
)
