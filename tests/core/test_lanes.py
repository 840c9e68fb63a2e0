"""Hashing many texts at once gives what hashing them one by one gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.keys import bucket_of_str
from shardlib.core.lanes import hash_texts

MASK = 65_535
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@given(st.lists(TEXTS, max_size=50))
def test_each_text_has_the_hash_that_it_has_alone(texts: list[str]) -> None:
    assert [value & MASK for value in hash_texts(texts)] == [bucket_of_str(text, MASK) for text in texts]


def test_every_length_and_more_lanes_than_go_at_once() -> None:
    texts = ["x" * (length % 75) + str(length) for length in range(5000)] + ["same"] * 5000
    assert [value & MASK for value in hash_texts(texts)] == [bucket_of_str(text, MASK) for text in texts]


def test_neighbouring_lanes_do_not_touch() -> None:
    ones, zeros = "\x7f" * 24, "\x01" * 24
    alternating = [ones, zeros] * 200
    assert hash_texts(alternating) == hash_texts([ones, zeros]) * 200
