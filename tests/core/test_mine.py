"""The mark that keeps a statement for many keys to the rows that its node owns."""

from __future__ import annotations

import pytest

from shardlib.core.keys import HASHES
from shardlib.core.mine import condition, fill, is_marked, moved_since, needs_column
from shardlib.core.topology import Keyspace, Since

USERS = Keyspace("users", "uuid_tail", ("a",) * 8)


@pytest.mark.parametrize(
    "mark, column",
    [
        ("/*mine*/", None),
        ("/* mine */", None),
        ("/*\n mine\n*/", None),
        ("/*mine:id*/", "id"),
        ("/* mine : u.id */", "u.id"),
        ("/*mine:app.users.user_id*/", "app.users.user_id"),
    ],
)
def test_a_mark_becomes_the_condition(mark: str, column: str | None) -> None:
    query = f"SELECT * FROM users u WHERE {mark} AND age > 7"
    assert is_marked(query)
    assert needs_column(query) is (column is None)
    expected = condition(USERS, column or "the_key", 7)
    assert fill(query, USERS, "the_key", 7) == f"SELECT * FROM users u WHERE {expected} AND age > 7"


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "SELECT 1 /* mined */",
        "SELECT 1 /* not mine */",
        "SELECT mine FROM t",
        "SELECT 1 /*mine:*/",
        "SELECT 1 /*mine:a b*/",
        "SELECT 1 /*mine:id); DROP TABLE t; --*/",
        "SELECT 1 /*mine:1*/",
        "SELECT 1 /*Mine*/",
    ],
)
def test_anything_else_is_no_mark_and_stays(query: str) -> None:
    assert not is_marked(query)
    assert fill(query, USERS, "id", 7) == query


def test_each_mark_of_a_join_is_replaced_by_itself() -> None:
    query = "SELECT * FROM u JOIN p ON p.id = u.id WHERE /*mine:u.id*/ AND /*mine:p.id*/ AND /*mine*/"
    assert needs_column(query)
    filled = fill(query, USERS, "id", 7)
    assert filled.count("foreign_bucket") == filled.count("gained_bucket") == 6
    for column in ("u.id", "p.id", "id"):
        assert condition(USERS, column, 7) in filled
    assert not is_marked(filled)


@pytest.mark.parametrize("hash_name", sorted(HASHES))
def test_the_condition_stands_in_parentheses_for_each_hash(hash_name: str) -> None:
    text = condition(Keyspace("k", hash_name, ("a",) * 16), "id", 7)
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        assert depth > 0 or position == len(text) - 1
    assert depth == 0
    assert "15" in text


def test_the_name_of_a_keyspace_is_quoted() -> None:
    assert "'it''s'" in condition(Keyspace("it's", "int", ("a",)), "id", 7)


def test_every_list_of_gained_buckets_is_cut_at_the_epoch() -> None:
    assert condition(USERS, "id", 41).count("g.epoch > 41") == 2


@pytest.mark.parametrize(
    "buckets, epoch, expected",
    [((3,), 5, False), ((3,), 4, True), ((0, 3), 4, True), ((0, 1), 0, False), ((), 0, False), ((5,), 8, True)],
)
def test_a_bucket_that_changed_hands_later_is_found(buckets: tuple[int, ...], epoch: int, expected: bool) -> None:
    since = {3: Since(5, "a", 1, 50), 5: Since(9, "a", 1, 70)}
    assert moved_since(Keyspace("users", "uuid_tail", ("a",) * 8, since), buckets, epoch) is expected
