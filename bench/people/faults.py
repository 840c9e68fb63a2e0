"""Rows that an import has to reject, each in a way of its own; the kind's name says why."""

from __future__ import annotations

import json
from collections.abc import Callable

from bench.people.population import User

Fault = Callable[[User, int], bytes]


def _changed(user: User, **fields: object) -> bytes:
    return json.dumps({**user, **fields}, ensure_ascii=False).encode()


def _fresh(user: User, number: int) -> User:
    """A user nobody collides with, so that only the fault itself is wrong."""
    return {**user, "id": None, "email": f"fault.{number}@example.com", "username": None}


def _without_nulls(user: User) -> User:
    return {name: value for name, value in user.items() if value is not None}


def _fault(**fields: object) -> Fault:
    return lambda user, number: _changed(_without_nulls(_fresh(user, number)), **fields)


def _duplicate_email(user: User, number: int) -> bytes:
    fresh = _without_nulls(_fresh(user, number))
    return _changed(fresh, email=f" {user['email'].upper()}", name=f"not the first {number}")


def _duplicate_id(user: User, number: int) -> bytes:
    if "id" not in user:
        return _duplicate_email(user, number)
    return _changed(_without_nulls(_fresh(user, number)), id=user["id"])


def _truncated(user: User, number: int) -> bytes:
    return _changed(user)[: 20 + number % 20]


def _not_utf8(user: User, number: int) -> bytes:
    return _changed(_without_nulls(_fresh(user, number)), name="broken").replace(b"broken", b"bro\xc3ken\xff")


def _no_email(user: User, number: int) -> bytes:
    fresh = _without_nulls(_fresh(user, number))
    del fresh["email"]
    return _changed(fresh)


def _nul(user: User, number: int) -> bytes:
    return _changed(_without_nulls(_fresh(user, number)), name="a\u0000b")


def _nul_in_profile(user: User, number: int) -> bytes:
    return _changed(_without_nulls(_fresh(user, number)), profile={"deep": [{"a\u0000": 1}]})


FAULTS: dict[str, Fault] = {
    "duplicate-email": _duplicate_email,
    "duplicate-id": _duplicate_id,
    "truncated": _truncated,
    "not-utf-8": _not_utf8,
    "no-email": _no_email,
    "nul": _nul,
    "nul-in-profile": _nul_in_profile,
    "not-an-object": lambda user, number: b'["email", "x@example.com"]',
    "bad-email": _fault(email="no at sign"),
    "bad-domain": _fault(email="a@exa mple..com"),
    "bad-id": _fault(id="12345"),
    "wrong-type": _fault(name=5),
    "unknown-field": _fault(is_admin=True),
    "long-name": _fault(name="x" * 100_000),
    "huge-profile": _fault(profile={"about": "y" * 1_000_000}),
    "lone-surrogate": lambda user, number: _fault(name="SURROGATE")(user, number).replace(b"SURROGATE", b"\\ud800"),
}
