"""What goes over the wire: the types that validate requests, encode answers, and make the OpenAPI document."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from shardlib import Record

MAX_PROFILE_BYTES = 16 * 1024
MAX_IDS = 100
MAX_PAGE = 100

# Neither spaces nor controls within; the part after the @ has no empty labels. What more an address is, mail decides.
_EMAIL = r"^ *[^\x00-\x20\x7f-\xa0@]{1,64}@[^\x00-\x20\x7f-\xa0@.]+(\.[^\x00-\x20\x7f-\xa0@.]+)* *$"

Email = Annotated[
    str,
    Meta(
        min_length=3,
        max_length=254,
        pattern=_EMAIL,
        description="Unique whatever its spelling (case, Unicode form, A-labels); spaces around it are dropped.",
        examples=["ada@example.com"],
    ),
]
_NO_NUL = r"^[^\x00]*$"
Name = Annotated[
    str,
    Meta(
        max_length=200,
        pattern=_NO_NUL,
        description="Any text without NUL, kept as it is.",
        examples=["Ada Lovelace"],
    ),
]
Username = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Unique, whatever its case.",
        examples=["ada"],
    ),
]
Locale = Annotated[
    str,
    Meta(
        max_length=35,
        pattern=r"^[A-Za-z]{2,8}([_-][A-Za-z0-9]{1,8})*$",
        description="A language tag (BCP 47).",
        examples=["en-GB"],
    ),
]
Status = Annotated[Literal["active", "suspended"], Meta(description="Whether the account may be used.")]
_JSON_VALUE = {"$ref": "#/components/schemas/JsonValue"}
_JSON_OBJECT = {"propertyNames": {"pattern": _NO_NUL}, "additionalProperties": _JSON_VALUE}
JSON_VALUE: dict[str, Any] = {
    "title": "JsonValue",
    "description": "Any JSON value without NUL in its text.",
    "anyOf": [
        {"type": ["null", "boolean", "number"]},
        {"type": "string", "pattern": _NO_NUL},
        {"type": "array", "items": _JSON_VALUE},
        {"type": "object", **_JSON_OBJECT},
    ],
}
Profile = Annotated[
    dict[str, Any],
    Meta(
        description="Free form, at most 16 KiB as JSON and 32 levels deep.",
        examples=[{"city": "London"}],
        extra_json_schema=_JSON_OBJECT,
    ),
]
Moment = Annotated[datetime, Meta(tz=True, description="RFC 3339, UTC.")]


class NewUser(Struct, forbid_unknown_fields=True):
    """What a client says to create a user."""

    email: Email
    name: Name | None = None
    username: Username | None = None
    profile: Profile = {}
    locale: Locale | None = None
    status: Status = "active"


class UserPatch(Struct, forbid_unknown_fields=True):
    """A JSON merge patch (RFC 7396): null removes, what isn't named stays; ``profile`` is merged member by member."""

    email: Email | UnsetType = UNSET
    name: Name | UnsetType | None = UNSET
    username: Username | UnsetType | None = UNSET
    profile: Profile | UnsetType | None = UNSET
    locale: Locale | UnsetType | None = UNSET
    status: Status | UnsetType = UNSET


StoredProfile = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object", "description": "Free form."})]
Version = Annotated[int, Meta(ge=1, description="The number of the ETag; it rises by one with each change.")]


class User(Struct, frozen=True):
    """A user as others see it."""

    id: UUID
    email: str
    name: str | None
    username: str | None
    profile: StoredProfile
    locale: str | None
    status: Status
    version: Version
    created_at: Moment
    updated_at: Moment


class Batch(Struct, forbid_unknown_fields=True):
    """Which users are wanted."""

    ids: Annotated[list[UUID], Meta(min_length=1, max_length=MAX_IDS)]


class Found(Struct, frozen=True):
    """The users that exist, in the order of the ids, and the ids of the others."""

    users: list[User]
    missing: list[UUID]


class Lookup(Struct, forbid_unknown_fields=True):
    """Whose user is wanted; in a body, because personal data doesn't belong into a URL."""

    email: Email


class Page(Struct, frozen=True):
    """Users in the order of their ids; ``next`` is the cursor of the page after this one, if there is any."""

    users: list[User]
    next: str | None


class PageQuery(Struct, forbid_unknown_fields=True):
    """Which page is wanted."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="At most so many users.")] = 20
    cursor: Annotated[str, Meta(max_length=100, description="From the page before; it is signed.")] | None = None


def user(row: Record) -> User:
    """Return a row of ``users`` as it goes out; the profile is passed on as Postgres writes it."""
    return User(row[0], row[1], row[2], row[3], msgspec.Raw(row[4]), row[5], row[6], row[7], row[8], row[9])
