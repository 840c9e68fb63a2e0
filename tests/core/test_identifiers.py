"""Hidden values: one text for all spellings of a value, another for every other value, kind and key."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.identifiers import Identifier, age_ms, hide, normalise, token_at

KEY = b"k" * 32
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SAME = [
    ("Anna@Example.ORG", "  anna@example.org\n"),
    ("anna@bücher.example", "ANNA@xn--bcher-kva.example"),
    ("anna@BÜCHER.example", "anna@bu\u0308cher.example"),
    ("anna@例え。テスト", "anna@xn--r8jz45g.xn--zckzah"),
    ("a\u0301nna@example.org", "ánna@example.org"),
    ("STRASSE@example.org", "straße@example.org"),
    ("anna@[192.0.2.1]", "ANNA@[192.0.2.1]"),
    ("not an address", "NOT AN ADDRESS "),
    ("anna@bad_ü_domain", "anna@BAD_Ü_domain"),
]
DIFFERENT = [
    ("anna@straße.example", "anna@strasse.example"),
    ("anna@example.org", "anna+x@example.org"),
    ("an.na@example.org", "anna@example.org"),
    ("anna@example.org", "anna@example.org."),
    ("anna@example.org", "аnna@example.org"),
]


@pytest.mark.parametrize("one,other", SAME)
def test_spellings_of_one_mailbox_are_one_value(one: str, other: str) -> None:
    assert normalise("email", one) == normalise("email", other)
    assert hide("email", one, 1, KEY) == hide("email", other, 1, KEY)


@pytest.mark.parametrize("one,other", DIFFERENT)
def test_what_may_be_another_mailbox_is_another_value(one: str, other: str) -> None:
    assert hide("email", one, 1, KEY) != hide("email", other, 1, KEY)


@given(st.sampled_from(["email", "name"]), TEXT | st.builds("{}@{}".format, TEXT, TEXT))
def test_normalising_twice_changes_nothing(kind: str, value: str) -> None:
    once = normalise(kind, value)
    assert normalise(kind, once) == once


def test_kind_key_and_value_all_count() -> None:
    texts = {
        str(hide(kind, value, key_id, key))
        for kind in ("email", "name")
        for value in ("a", "b")
        for key_id, key in ((1, KEY), (2, b"another"))
    }
    assert len(texts) == 8
    assert hide("a", "b", 1, KEY).digest != hide("ab", "", 1, KEY).digest


def test_the_stored_text_never_changes() -> None:
    """Values are looked up for years; this one is openssl's HMAC-SHA256 of "email\\0anna@example.org"."""
    digest = "e8f6e12058413f2001f17ba8d7fa2828415e6430bbb3c775c79a8352c98c7ac6"
    assert str(hide("email", "Anna@Example.org", 3, KEY)) == f"email:3:{digest}"


@given(st.integers(0, 99), TEXT)
def test_an_identifier_is_read_back(key_id: int, value: str) -> None:
    made = hide("email", value, key_id, KEY)
    assert Identifier.parse(str(made)) == made
    assert len(str(made)) <= 200, "what the column takes"


@pytest.mark.parametrize("kind", ["", "E-mail", "a:b", "a" * 32, "ä"])
def test_a_kind_is_a_plain_name(kind: str) -> None:
    with pytest.raises(ValueError, match="name of a kind"):
        hide(kind, "x", 1, KEY)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_tokens_are_uuids_of_version_7_and_know_their_age(milliseconds: int, noise: int) -> None:
    token = token_at(milliseconds, noise)
    assert (token.version, token.variant) == (7, uuid.RFC_4122)
    assert age_ms(token, milliseconds + 5) == 5


@given(st.integers(0, 2**48 - 2), st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_later_tokens_are_greater(milliseconds: int, noise: int, another: int) -> None:
    assert token_at(milliseconds, noise) < token_at(milliseconds + 1, another)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_tokens_of_different_noise_differ(milliseconds: int, noise: int, another: int) -> None:
    assert (token_at(milliseconds, noise) == token_at(milliseconds, another)) is (noise == another)
