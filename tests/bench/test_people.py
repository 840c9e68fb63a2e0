"""Made-up people: the same for the same seed, unique where they must be, faulty where they should be."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from bench.people.__main__ import lines
from bench.people.faults import FAULTS
from bench.people.hostile import HOSTILE
from bench.people.pools import LOCALES
from shardlib.core.identifiers import normalise


def good(count: int, bad: int = 0, seed: int = 1) -> list[dict[str, Any]]:
    return [json.loads(line) for fault, line in lines(count, bad, seed) if fault is None]


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    assert list(lines(300, 20, 1)) == list(lines(300, 20, 1))
    assert list(lines(300, 20, 1)) != list(lines(300, 20, 2))


def test_faulty_rows_do_not_change_the_good_ones() -> None:
    assert good(300) == good(300, bad=50)


def test_emails_usernames_and_ids_are_unique_however_they_are_spelt() -> None:
    people = good(5000)
    emails = {normalise("email", person["email"]) for person in people}
    usernames = [normalise("username", person["username"]) for person in people if "username" in person]
    ids = [person["id"] for person in people if "id" in person]
    assert len(emails) == 5000
    assert len(set(usernames)) == len(usernames) > 2000
    assert len(set(ids)) == len(ids) > 1000


def test_many_locales_and_all_hostile_strings_occur() -> None:
    people = good(20_000)
    assert len({person["locale"] for person in people}) == len(LOCALES) >= 15
    assert set(HOSTILE) <= {person["name"] for person in people if "name" in person}
    assert any("+" in person["email"] for person in people)
    assert any(not person["email"].isascii() for person in people)


def test_each_kind_of_fault_occurs_equally_often() -> None:
    kinds = Counter(fault for fault, _line in lines(100, 3 * len(FAULTS), 1) if fault is not None)
    assert kinds == dict.fromkeys(FAULTS, 3)
