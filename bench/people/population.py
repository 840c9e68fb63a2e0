"""Users in a row: e-mails and user names are unique by construction, because each carries its user's number."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from bench.people.hostile import HOSTILE, LONG_TEXTS
from bench.people.pools import Pool

User = dict[str, Any]

_DOMAINS = ("example.com", "example.org", "example.net", "mail.example.com", "post.example.org")
_UNICODE_DOMAINS = ("bücher.example", "пример.example", "例え.example", "παράδειγμα.example", "xn--bcher-kva.example")
_UNICODE_LOCALS = ("jörg", "иван", "花子", "josé")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

# Shares of all users that get the unusual form.
_HOSTILE_NAME = 0.03
_HOSTILE_PROFILE = 0.03
_LONG_PROFILE = 0.001
_UPPER_EMAIL = 0.05
_UNICODE_DOMAIN = 0.03
_UNICODE_LOCAL = 0.01
_TAGGED_EMAIL = 0.02
_OWN_ID = 0.25
_NO_NAME = 0.02
_USERNAME = 0.6


def users(count: int, pools: Sequence[Pool], seed: int) -> Iterator[User]:
    """Yield ``count`` users as they stand in an import file."""
    chance = random.Random(seed)
    for number in range(count):
        yield _user(number, pools[number % len(pools)], chance)


def _user(number: int, pool: Pool, chance: random.Random) -> User:
    which = int(chance.random() * len(pool.names))
    stem = f"{pool.slugs[which]}.{base36(number)}"
    user: User = {"email": _email(stem, number, chance)}
    if chance.random() < _OWN_ID:
        user["id"] = str(UUID(int=chance.getrandbits(128), version=4))
    if chance.random() < _USERNAME:
        user["username"] = stem
    if chance.random() >= _NO_NAME:
        user["name"] = _pick(HOSTILE, chance) if chance.random() < _HOSTILE_NAME else pool.names[which]
    user["locale"] = pool.locale
    user["profile"] = _profile(pool, chance)
    return user


def _email(stem: str, number: int, chance: random.Random) -> str:
    domain = _pick(_DOMAINS, chance)
    form = chance.random()
    if form < _UPPER_EMAIL:
        return f"{stem.title()}@{domain.upper()}"
    form -= _UPPER_EMAIL
    if form < _UNICODE_DOMAIN:
        return f"{stem}@{_pick(_UNICODE_DOMAINS, chance)}"
    form -= _UNICODE_DOMAIN
    if form < _UNICODE_LOCAL:
        return f"{_pick(_UNICODE_LOCALS, chance)}.{base36(number)}@{domain}"
    form -= _UNICODE_LOCAL
    if form < _TAGGED_EMAIL:
        return f"{stem}+{_pick(('news', 'shop', 'x'), chance)}@{domain}"
    return f"{stem}@{domain}"


def _profile(pool: Pool, chance: random.Random) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "city": _pick(pool.cities, chance),
        "company": _pick(pool.companies, chance),
        "street": _pick(pool.streets, chance),
        "phone": _pick(pool.phones, chance),
        "job": _pick(pool.jobs, chance),
        "age": 16 + int(chance.random() * 80),
        "newsletter": chance.random() < 0.5,
    }
    if chance.random() < _HOSTILE_PROFILE:
        profile[_pick(HOSTILE, chance)] = _nested(chance)
    if chance.random() < _LONG_PROFILE:
        profile["about"] = _pick(LONG_TEXTS, chance)
    elif chance.random() < 0.3:
        profile["about"] = _pick(pool.sentences, chance)
    return profile


def _nested(chance: random.Random) -> Any:
    text = _pick(HOSTILE, chance)
    return chance.choice((text, [text, None, True, -1.5], {text: {text: []}}, {"": ""}, 2**53 - 1, 1e-7))


def base36(number: int) -> str:
    """Write a number >= 0 in 36 digits."""
    digits = _DIGITS[number % 36]
    while number := number // 36:
        digits = _DIGITS[number % 36] + digits
    return digits


def _pick(choices: Sequence[str], chance: random.Random) -> str:
    return choices[int(chance.random() * len(choices))]
