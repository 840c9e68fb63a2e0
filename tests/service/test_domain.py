"""What a change means, without any database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import body
from service.problem import Kind, Problem
from service.profiles import domain
from service.profiles.cursors import Cursors
from service.profiles.wire import NewUser

# RFC 7396, appendix A, word for word.
EXAMPLES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize("target, patch, result", EXAMPLES)
def test_merge_does_what_the_rfc_shows(target: Any, patch: Any, result: Any) -> None:
    assert domain.merge(target, patch) == result


@pytest.mark.parametrize(
    "header, found",
    [
        ("*", None),
        (' "1"', {'"1"'}),
        ('"1", W/"2" ,"a,b"', {'"1"', 'W/"2"', '"a,b"'}),
        ('""', {'""'}),
    ],
)
def test_entity_tags_are_read(header: str, found: set[str] | None) -> None:
    assert domain.tags(header, "If-Match") == found


@pytest.mark.parametrize("header", ["", "1", '"1', '1"', '"1" "2"', 'w/"1"', '"a b"', "*, *", '"\u00e9"'])
def test_what_isnt_entity_tags_is_refused(header: str) -> None:
    with pytest.raises(Problem):
        domain.tags(header, "If-Match")


def test_ids_grow_with_time_and_repeat_only_on_purpose() -> None:
    ids = [domain.new_id() for _ in range(50)]
    assert {one.version for one in ids} == {7}
    assert len(set(ids)) == 50
    assert [one.int >> 80 for one in ids] == sorted(one.int >> 80 for one in ids)
    repeated = domain.repeated_id(b"key", "a")
    assert repeated == domain.repeated_id(b"key", "a")
    assert (repeated.version, repeated.variant) == (8, UUID(int=repeated.int).variant)
    assert len({repeated, domain.repeated_id(b"key", "b"), domain.repeated_id(b"other", "a")}) == 3


@given(st.uuids())
def test_a_cursor_comes_back_and_only_to_its_maker(last: UUID) -> None:
    cursors = Cursors(b"one key")
    assert cursors.read(cursors.make(last)) == last
    with pytest.raises(Problem):
        Cursors(b"another key").read(cursors.make(last))


@given(st.text(max_size=120))
def test_no_text_is_taken_for_a_cursor(text: str) -> None:
    with pytest.raises(Problem):
        Cursors(b"one key").read(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_user_or_a_problem_of_the_client(data: bytes) -> None:
    kind = None
    try:
        body.parse(data, NewUser)
    except Problem as problem:
        kind = problem.kind
    assert kind in {None, Kind.BAD_JSON, Kind.INVALID}


@pytest.mark.parametrize(
    "message, pointer",
    [
        ("Expected `str`, got `int` - at `$.email`", "/email"),
        ("Expected `int` - at `$.a[3].b[...]`", "/a/3/b/*"),
        ("Object contains unknown field `a/b~` - at `$.x`", "/x/a~1b~0"),
        ("Object missing required field `email`", "/email"),
        ("Expected `object`, got `array`", ""),
    ],
)
def test_a_message_is_turned_into_a_pointer(message: str, pointer: str) -> None:
    assert body.locate(message)[0] == pointer


def test_a_fingerprint_knows_content_not_spelling() -> None:
    one = domain.fields_of(NewUser(email="a@b.c", profile={"x": 1, "y": {"a": 1, "b": 2}}))
    same = domain.fields_of(NewUser(email=" a@b.c ", profile={"y": {"b": 2, "a": 1}, "x": 1}))
    other = domain.fields_of(NewUser(email="a@b.c", profile={"x": 1, "y": {"a": 1, "b": 3}}))
    assert domain.fingerprint(one) == domain.fingerprint(same)
    assert domain.fingerprint(one) != domain.fingerprint(other)
