"""Lines of an import file, and that the fast way into JSON says what the API's strict way says."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bench.people.hostile import HOSTILE, LONG_TEXTS
from service import body
from service.bulk import rows
from service.bulk.checkpoint import Checkpoint, Tally, load, save
from service.bulk.lines import MAX_LINE_BYTES, Lines, OtherInput
from service.problem import Problem
from service.profiles import domain


def read_all(data: bytes, max_lines: int = 2, max_bytes: int = 10_000) -> list[tuple[int, bytes]]:
    batches = Lines(io.BytesIO(data)).batches(max_lines, max_bytes)
    return [(line.number, line.text) for batch in batches for line in batch.lines]


def test_blank_lines_count_but_are_not_read() -> None:
    assert read_all(b"a\n\n \t\nb\r\n\nc") == [(1, b"a"), (4, b"b"), (6, b"c")]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert read_all(b"\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n") == [(1, b"{}"), (2, b"\xef\xbb\xbf{}")]


def test_a_line_that_is_too_long_is_not_held_whole() -> None:
    stream = io.BytesIO(b"a\n" + b"x" * (3 * MAX_LINE_BYTES) + b"\nb\n")
    lines = [line for batch in Lines(stream).batches(100, 10_000) for line in batch.lines]
    assert [(line.number, line.too_long) for line in lines] == [(1, False), (2, True), (3, False)]
    assert len(lines[1].text) == MAX_LINE_BYTES + 1
    assert lines[2].text == b"b"


def test_a_batch_is_bounded_in_lines_and_in_bytes() -> None:
    data = b"x" * 99 + b"\n"
    assert [len(batch.lines) for batch in Lines(io.BytesIO(data * 7)).batches(3, 10_000)] == [3, 3, 1]
    assert [len(batch.lines) for batch in Lines(io.BytesIO(data * 7)).batches(100, 250)] == [3, 3, 1]


@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=20), st.integers(1, 7))
def test_lines_can_be_read_on_from_the_end_of_any_batch(texts: list[bytes], max_lines: int) -> None:
    data = b"\n".join(texts)
    whole = list(Lines(io.BytesIO(data)).batches(max_lines, 10_000))
    for done in range(len(whole)):
        rest = Lines(io.BytesIO(data))
        rest.skip(whole[done].end)
        assert list(rest.batches(max_lines, 10_000)) == whole[done + 1 :]


def test_a_position_in_other_bytes_is_refused() -> None:
    end = next(Lines(io.BytesIO(b"a\nb\n")).batches(1, 100)).end
    with pytest.raises(OtherInput, match="differs"):
        Lines(io.BytesIO(b"b\nb\n")).skip(end)
    with pytest.raises(OtherInput, match="shorter"):
        Lines(io.BytesIO(b"a")).skip(end)


def test_a_checkpoint_survives_and_a_broken_one_is_none(tmp_path: Any) -> None:
    end = next(Lines(io.BytesIO(b"a\nb\n")).batches(1, 100)).end
    made = Checkpoint(position=end, tally=Tally(1, 2, {"taken": 3}), rejected_bytes=4, witnesses=("x",))
    path = tmp_path / "checkpoint.json"
    assert load(path) is None
    save(path, made)
    assert load(path) == made
    path.write_bytes(path.read_bytes()[:-5])
    assert load(path) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
USERS = st.fixed_dictionaries(
    {"email": st.sampled_from(["ada@example.com", " Ada@bücher.example ", "no at sign", "a@b\n"])},
    optional={
        "name": st.none() | st.text(max_size=210),
        "username": st.none() | st.sampled_from(["ada", "ada\n", "ädä", ""]),
        "locale": st.sampled_from(["de-DE", "x", "de\n"]),
        "status": st.sampled_from(["active", "suspended", "gone"]),
        "version": st.integers(-1, 3),
        "profile": st.dictionaries(st.text(max_size=5), JSON, max_size=5),
        "created_at": st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "1900-01-01T00:00:00Z", "x"]),
        "more": st.just(1),
    },
)


def strictly(text: bytes) -> tuple[rows.ImportedUser, Any] | None:
    """Return what the API's way makes of a line; None when it refuses it."""
    try:
        user = body.parse(text, rows.ImportedUser)
        user.email = domain.fields_of(user).email
    except Problem:
        return None
    return (user, json.loads(domain.profile_text(user.profile))) if rows.times_fit(user) else None


def quickly(text: bytes) -> tuple[rows.ImportedUser, Any] | None:
    """Return what an import makes of a line; None when it refuses it."""
    try:
        user, profile = rows.read_user(text)
    except Problem:
        return None
    return user, json.loads(profile)


@given(USERS, st.booleans(), st.sampled_from([None, (",", ":"), (" , ", " : ")]))
@example({"email": "ada@example.com", "profile": {"a": 10**30, "b": 1e-400}}, False, None)
def test_the_fast_way_agrees_with_the_strict_one(user: dict[str, Any], ascii_only: bool, spaces: Any) -> None:
    text = json.dumps(user, ensure_ascii=ascii_only, separators=spaces).encode("utf-8", "surrogatepass")
    agrees(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"email": "a@example.com", "email": "b@example.com"}',
        b'{"email": "a@example.com", "profile": {"x": {"a": 1, "a": 2}}}',
        b'{"email": "a@example.com", "profile": {"x": 1, "x" : "\\":"}}',
        b'{"email": "a@example.com", "name": "a\\u0000"}',
        b'{"email": "a@example.com", "profile": {"n": ' + b"[" * 40 + b"]" * 40 + b"}}",
        b'{"email": "a@example.com", "profile": {"n": ' + b"[" * 20 + b"]" * 20 + b"}}",
        b'{"email": "a@example.com", "profile": {"n": 1e400}}',
        b'{"email": "a@example.com", "profile": {"n": NaN}}',
        b'{"email": "a@example.com", "profile": {"n": ' + b"9" * 5000 + b"}}",
        b'{"email": "a@example.com"} trailing',
        b'\xff{"email": "a@example.com"}',
        b'{"email": "a@example.com", "name": "\xed\xa0\x80"}',
        b"[]",
        b"null",
        b"{",
        *(
            json.dumps({"email": "a@b.c", "name": text[:200], "profile": {text[:200]: text}}).encode()
            for text in HOSTILE
        ),
        *(json.dumps({"email": "a@b.c", "profile": {"t": t}}, ensure_ascii=False).encode() for t in LONG_TEXTS),
    ],
)
def test_the_fast_way_agrees_on_what_is_odd(text: bytes) -> None:
    agrees(text)


def agrees(text: bytes) -> None:
    assert quickly(text) == strictly(text)
