"""What a change means: merge patches, entity tags, ids that repeat. Values in, values out."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from typing import Any
from uuid import UUID

from msgspec import UNSET, Struct

from service.problem import Kind, Problem, bad_parameter, invalid
from service.profiles.wire import MAX_PROFILE_BYTES, NewUser, UserPatch

_TAG = re.compile(r'\s*(?P<tag>(?:W/)?"[\x21\x23-\x7e]*")\s*(?:,|$)')
_KEY = re.compile(r"[\x21-\x7e]{1,200}")


class Fields(Struct, frozen=True):
    """What of a user a client can change."""

    email: str
    name: str | None
    username: str | None
    profile: dict[str, Any]
    locale: str | None
    status: str


def fields_of(new: NewUser, profile: str | None = None) -> Fields:
    """Return a new user's fields, or raise a Problem; ``profile`` is its profile_text, where the caller has it."""
    return _checked(Fields(new.email.strip(), new.name, new.username, new.profile, new.locale, new.status), profile)


def patched(now: Fields, patch: UserPatch) -> Fields:
    """Return the fields after a merge patch (RFC 7396), or raise a Problem."""
    change = {} if patch.profile is UNSET else {"profile": patch.profile}
    return _checked(
        Fields(
            now.email if patch.email is UNSET else patch.email.strip(),
            now.name if patch.name is UNSET else patch.name,
            now.username if patch.username is UNSET else patch.username,
            merge({"profile": now.profile}, change).get("profile", {}),
            now.locale if patch.locale is UNSET else patch.locale,
            now.status if patch.status is UNSET else patch.status,
        )
    )


def merge(target: Any, patch: Any) -> Any:
    """Apply a merge patch: RFC 7396, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def profile_text(profile: dict[str, Any]) -> str:
    """Return a profile as it is stored: integers of any size survive."""
    return json.dumps(profile, ensure_ascii=False, separators=(",", ":"))


def etag(version: int) -> str:
    """Return the entity tag of a version."""
    return f'"{version}"'


def tags(header: str, name: str) -> set[str] | None:
    """Return the entity tags of If-Match or If-None-Match; None stands for ``*``. Problem for what isn't a list."""
    if header.strip() == "*":
        return None
    found: set[str] = set()
    at = 0
    while at < len(header):
        match = _TAG.match(header, at)
        if match is None:
            raise bad_parameter(name, 'expected * or entity tags in quotes, as in "3"')
        found.add(match["tag"])
        at = match.end()
    if not found:
        raise bad_parameter(name, 'expected * or entity tags in quotes, as in "3"')
    return found


def refuse_changed(if_match: str | None, version: int) -> None:
    """Raise a Problem unless If-Match names this version (strong comparison, RFC 9110 8.8.3.2)."""
    if if_match is None:
        return
    wanted = tags(if_match, "If-Match")
    if wanted is not None and etag(version) not in wanted:
        now = {"ETag": etag(version)}
        raise Problem(Kind.PRECONDITION_FAILED, f"the user is at version {version} now", headers=now)


def is_same(if_none_match: str, version: int) -> bool:
    """Return whether If-None-Match names this version (weak comparison)."""
    wanted = tags(if_none_match, "If-None-Match")
    return wanted is None or etag(version) in {tag.removeprefix("W/") for tag in wanted}


def new_id() -> UUID:
    """Return a UUIDv7 (RFC 9562): by time, so that an index grows at its end."""
    milliseconds = time.time_ns() // 1_000_000
    noise = secrets.randbits(74)
    return UUID(int=milliseconds << 80 | 7 << 76 | (noise >> 62) << 64 | 2 << 62 | (noise & (1 << 62) - 1))


def repeated_id(signing_key: bytes, idempotency_key: str) -> UUID:
    """Return the id of the user that a request with this key creates, the same at each attempt: a UUIDv8."""
    digest = hmac.digest(signing_key, b"create\0" + idempotency_key.encode(), "sha256")
    number = int.from_bytes(digest[:16])
    return UUID(int=number & ~(0xF << 76 | 3 << 62) | 8 << 76 | 2 << 62)


def check_idempotency_key(key: str) -> str:
    """Return the key, without the quotes of a structured header; Problem for what isn't one."""
    plain = key[1:-1] if len(key) >= 2 and key[0] == key[-1] == '"' else key
    if not _KEY.fullmatch(plain):
        raise bad_parameter("Idempotency-Key", "expected 1 to 200 visible ASCII characters")
    return plain


def fingerprint(fields: Fields) -> str:
    """Return what tells one body from another, whatever its spelling."""
    plain = [fields.email, fields.name, fields.username, fields.profile, fields.locale, fields.status]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _checked(fields: Fields, profile: str | None = None) -> Fields:
    text = profile_text(fields.profile) if profile is None else profile
    if len(text.encode()) > MAX_PROFILE_BYTES:
        raise invalid("/profile", f"the profile has more than {MAX_PROFILE_BYTES} bytes as JSON")
    for pointer, line in (("/username", fields.username), ("/locale", fields.locale)):
        if line is not None and line.endswith("\n"):  # which $ in a pattern lets pass
            raise invalid(pointer, "a line's end doesn't belong here")
    return fields
