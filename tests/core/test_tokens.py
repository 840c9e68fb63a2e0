"""Tokens survive the journey through a header; anything else is no token."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.tokens import Token
from shardlib.errors import BadToken

names = st.from_regex(r"[a-z][a-z0-9_-]{0,30}", fullmatch=True)
numbers = st.integers(0, 2**63 - 1)
tokens = st.builds(
    Token,
    keyspace=names,
    bucket=st.integers(0, 65535),
    epoch=numbers,
    node=names,
    timeline=st.integers(0, 2**31 - 1),
    lsn=numbers,
)


@given(tokens)
def test_what_was_written_is_read_back(token: Token) -> None:
    assert Token.parse(str(token)) == token


@given(tokens)
def test_a_token_is_safe_in_headers_urls_and_file_names(token: Token) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,400}", str(token))


@given(st.text(max_size=500) | st.binary(max_size=300).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_a_token_or_a_bad_token(text: str) -> None:
    try:
        token = Token.parse(text)
    except BadToken:
        return
    assert Token.parse(str(token)) == token


fields = st.sampled_from(["1", "0", "2", "-1", "", "users", "node1", "9" * 30, "x", "1.5", "\u0663", "null"])


@given(st.lists(fields, min_size=5, max_size=9))
def test_any_fields_are_a_token_or_a_bad_token(parts: list[str]) -> None:
    text = base64.urlsafe_b64encode(" ".join(parts).encode()).decode().rstrip("=")
    try:
        token = Token.parse(text)
    except BadToken:
        return
    assert Token.parse(str(token)) == token
    assert min(token.bucket, token.epoch, token.timeline, token.lsn) >= 0


@given(tokens, st.data())
def test_a_cut_or_changed_token_never_raises_anything_else(token: Token, data: st.DataObject) -> None:
    text = str(token)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters()) + text[at + data.draw(st.integers(0, 2)) :]
    for candidate in (text[:at], changed):
        try:
            Token.parse(candidate)
        except BadToken:
            continue


@pytest.mark.parametrize("text", ["", "=", "AAAA", "not a token", "ä", "A" * 401, "A" * 1_000_000])
def test_nonsense_is_a_bad_token(text: str) -> None:
    with pytest.raises(BadToken):
        Token.parse(text)


def test_a_token_of_another_version_is_a_bad_token() -> None:
    text = str(Token("users", 1, 0, "node1", 1, 255))
    plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    other = base64.urlsafe_b64encode(b"2" + plain[1:]).decode().rstrip("=")
    with pytest.raises(BadToken):
        Token.parse(other)
