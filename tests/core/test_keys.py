"""Keys to buckets: golden vectors that a real server gave, and what is refused."""

from __future__ import annotations

import enum
import uuid

import asyncpg.pgproto.pgproto
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.keys import HASHES, KeyHash, hash_named, register
from shardlib.errors import Rejected, UnknownName, WrongKey

MASK = 0xFFFF

# What PostgreSQL 18.6 answers with mask 65535. They never change: stored rows lie where these say.
INTS = [
    (0, 49327),
    (1, 5958),
    (-1, 2378),
    (2, 56566),
    (42, 65224),
    (255, 3233),
    (256, 31223),
    (4095, 21770),
    (4096, 14496),
    (65535, 50469),
    (65536, 38616),
    (-4096, 18740),
    (2**31 - 1, 38419),
    (2**31, 16311),
    (-(2**31), 16311),
    (-(2**31) - 1, 38419),
    (2**32 - 1, 2378),
    (2**32, 5958),
    (2**32 + 1, 49327),
    (-(2**32), 49327),
    (10**18, 4916),
    (-(10**18), 15413),
    (2**63 - 1, 16311),
    (-(2**63), 38419),
    (1_700_000_000_000, 47263),
    (123_456_789, 5476),
]
STRS = [
    ("", 18029),
    ("a", 28849),
    ("ab", 65469),
    ("abc", 60311),
    ("abcd", 2092),
    ("abcdefgh", 39987),
    ("abcdefghi", 12127),
    ("abcdefghijk", 62419),
    ("abcdefghijkl", 15060),
    ("abcdefghijklm", 50896),
    ("abcdefghijklmnopqrstuvwx", 45967),
    ("abcdefghijklmnopqrstuvwxy", 60013),
    ("ada@example.com", 8934),
    ("1", 43769),
    ("\xe9", 11019),
    ("e\u0301", 46091),
    ("\u540d\u524d", 59405),
    ("\U0001f600", 16346),
    ("\u202eabc", 53504),
    (" a ", 6036),
    ("A", 40942),
    ("\x7f\x01", 11874),
    ("x" * 1000, 10084),
]
UUIDS = [
    ("00000000-0000-0000-0000-000000000000", 10323),
    ("ffffffff-ffff-ffff-ffff-ffffffffffff", 43113),
    ("00000000-0000-0000-0000-000000000001", 25849),
    ("01234567-89ab-cdef-0123-456789abcdef", 16715),
    ("018f3c5e-7b2a-7def-8abc-0123456789ab", 9111),
    ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", 11933),
    ("f47ac10b-58cc-4372-a567-0e02b2c3d479", 24914),
    ("80000000-0000-0000-0000-000000000000", 49382),
]


@pytest.mark.parametrize("key, bucket", INTS)
def test_an_int_hashes_as_hashint8extended(key: int, bucket: int) -> None:
    assert HASHES["int"].bucket(key, MASK) == bucket


@pytest.mark.parametrize("key, bucket", STRS)
def test_a_str_hashes_as_hashtextextended(key: str, bucket: int) -> None:
    assert HASHES["str"].bucket(key, MASK) == bucket


@pytest.mark.parametrize("key, bucket", UUIDS)
def test_a_uuid_hashes_as_uuid_hash_extended(key: str, bucket: int) -> None:
    assert HASHES["uuid_hash"].bucket(uuid.UUID(key), MASK) == bucket


def test_with_4096_buckets_the_tail_is_the_last_three_hex_digits() -> None:
    key = uuid.UUID("018f3c5e-7b2a-7def-8abc-012345678f0e")
    assert HASHES["uuid_tail"].bucket(key, 0xFFF) == 0xF0E


@given(st.integers(0, 16), st.data())
def test_a_smaller_mask_only_cuts_the_bucket(bits: int, data: st.DataObject) -> None:
    mask = (1 << bits) - 1
    for name, keys in (("int", st.integers(-(2**63), 2**63 - 1)), ("uuid_hash", st.uuids()), ("uuid_tail", st.uuids())):
        key = data.draw(keys)
        assert HASHES[name].bucket(key, mask) == HASHES[name].bucket(key, MASK) & mask


class Colour(enum.IntEnum):
    RED = 42


class Tenant(enum.StrEnum):
    ADA = "ada@example.com"


class Shouting(str):
    """A str that lies about its bytes; asyncpg stores what it holds."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return self.upper().encode(encoding, errors)


def test_subclasses_count_as_the_value_that_is_stored() -> None:
    assert HASHES["int"].bucket(Colour.RED, MASK) == 65224
    assert HASHES["str"].bucket(Tenant.ADA, MASK) == 8934
    assert HASHES["str"].bucket(Shouting("a"), MASK) == 28849
    key = asyncpg.pgproto.pgproto.UUID("01234567-89ab-cdef-0123-456789abcdef")
    assert HASHES["uuid_hash"].bucket(key, MASK) == 16715
    assert HASHES["uuid_tail"].bucket(key, MASK) == 0xCDEF


@pytest.mark.parametrize(
    "name, key, words",
    [
        ("int", True, "keyed by int, not by bool"),
        ("int", "1", "keyed by int, not by str"),
        ("int", 1.0, "keyed by int, not by float"),
        ("int", None, "keyed by int, not by NoneType"),
        ("int", 2**63, "no bigint can hold it"),
        ("int", -(2**63) - 1, "no bigint can hold it"),
        ("str", 1, "keyed by str, not by int"),
        ("str", b"1", "keyed by str, not by bytes"),
        ("str", "a\0b", "NUL at byte 1"),
        ("str", "ab\ud800", "half a surrogate pair at position 2"),
        ("uuid_tail", "01234567-89ab-cdef-0123-456789abcdef", "keyed by UUID, not by str"),
        ("uuid_hash", 7, "keyed by UUID, not by int"),
    ],
)
def test_a_key_of_another_type_is_refused_in_words(name: str, key: object, words: str) -> None:
    with pytest.raises(WrongKey, match=words):
        HASHES[name].bucket(key, MASK)


def test_the_message_keeps_the_key_to_itself() -> None:
    with pytest.raises(WrongKey) as caught:
        HASHES["int"].bucket("ada@example.com", MASK)
    assert "ada" not in str(caught.value)


def test_the_expressions_are_those_that_stand_in_the_database() -> None:
    assert HASHES["int"].sql("u.id", 4095) == "((hashint8extended(u.id, 0) & 4095)::int)"
    assert HASHES["str"].sql('"Key"', 15) == '((hashtextextended("Key", 0) & 15)::int)'
    assert HASHES["uuid_hash"].sql("id", 1) == "((uuid_hash_extended(id, 0) & 1)::int)"
    tail = "(((get_byte(uuid_send(id), 14) << 8) | get_byte(uuid_send(id), 15)) & 4095)"
    assert HASHES["uuid_tail"].sql("id", 4095) == tail
    assert {name: each.sql_type for name, each in HASHES.items()} == {
        "int": "bigint",
        "str": "text",
        "uuid_tail": "uuid",
        "uuid_hash": "uuid",
    }


def _region_bucket(key: object, mask: int) -> int:
    return (int(str(key)[:2], 16)) & mask


def _region_sql(column: str, mask: int) -> str:
    return f"(('x' || left({column}, 2))::bit(8)::int & {mask})"


@pytest.fixture
def _forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register a hash of its own without the others seeing it."""
    registry = dict(HASHES)
    monkeypatch.setattr("shardlib.core.keys._registry", registry)
    monkeypatch.setattr("shardlib.core.keys.HASHES", registry)


@pytest.mark.usefixtures("_forget")
def test_a_custom_pair_is_found_by_name_and_may_be_registered_twice() -> None:
    custom = KeyHash("region", str, "text", _region_bucket, _region_sql)
    register(custom)
    register(custom)
    assert hash_named("region").bucket("a7-ada", 0xFFF) == 0xA7


@pytest.mark.usefixtures("_forget")
@pytest.mark.parametrize("name, words", [("int", "another hash named 'int'"), ("Region 1", "can't name a hash")])
def test_a_name_means_one_pair_for_ever(name: str, words: str) -> None:
    with pytest.raises(Rejected, match=words):
        register(KeyHash(name, str, "text", _region_bucket, _region_sql))


def test_an_unknown_name_lists_those_that_exist() -> None:
    assert hash_named("int") is HASHES["int"]
    with pytest.raises(UnknownName, match="no hash 'md5'; there are: int, str, uuid_hash, uuid_tail"):
        hash_named("md5")
