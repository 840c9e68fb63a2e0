"""From a key to its bucket: the same answer in Python and in Postgres.

DESIGN. Each hash here is one that Postgres ships as an immutable function, so the bucket of a row can stand in an
index, in a publication's row filter and in a trigger's WHEN clause without an extension. Python computes the low 32
bits of the same function with seed 0 (Bob Jenkins' lookup3, ``src/common/hashfn.c`` of Postgres); a bucket number
needs no more than 16 of them. The committed golden vectors hold both sides to the same answer. Servers must be
little-endian (x86-64, arm64) and the databases UTF8.

A keyspace has one key type: ``1``, ``"1"`` and ``b"1"`` are never confused, and a key of another type is WrongKey.
Subclasses count as the value that asyncpg would store: an IntEnum as its int, a StrEnum as its text, asyncpg's own
UUID as a UUID. ``bool`` is the exception: an int to Python but not to Postgres, it is refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from uuid import UUID

from shardlib.errors import Rejected, UnknownName, WrongKey

Key = int | str | UUID

_32_BITS: Final = 0xFFFF_FFFF
_INT8_MIN: Final = -(2**63)
_INT8_MAX: Final = 2**63 - 1
_HASH_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_GOLDEN_RATIO: Final = 0x9E37_79B9 + 3_923_095  # what hashfn.c starts from, before it adds the length
_BLOCK: Final = struct.Struct("<3I")
_FOUR_BYTES: Final = (_GOLDEN_RATIO + 4) & _32_BITS  # the start for a 4-byte value
# The first two steps of lookup3's final() don't depend on the value when a, b and c start equal.
_MIXED_C: Final = -(_FOUR_BYTES << 14 | _FOUR_BYTES >> 18) & _32_BITS
_MIXED_A: Final = (_MIXED_C << 11 | _MIXED_C >> 21) & _32_BITS


@dataclass(frozen=True, slots=True)
class KeyHash:
    """A pair of functions, one here and one in Postgres, that put the same key into the same bucket.

    ``bucket(key, mask)`` returns ``0 <= bucket <= mask`` or raises WrongKey; ``mask`` is a power of two less one, at
    most 65,535. ``sql(column, mask)`` returns an SQL expression of type integer over a column or parameter, which is
    spliced in as it stands: quote it first. It may only call immutable functions, and stands in parentheses.
    """

    name: str
    key_type: type
    sql_type: str
    bucket: Callable[[object, int], int]
    sql: Callable[[str, int], str]


def bucket_of_int(key: object, mask: int) -> int:
    """Return ``hashint8extended(key, 0) & mask``; raise WrongKey for what no bigint can hold."""
    if type(key) is not int:
        key = _plain_int(key)
    if key >= 0:
        if key > _INT8_MAX:
            raise _outside_int8()
        folded = (key ^ key >> 32) & _32_BITS
    else:
        if key < _INT8_MIN:
            raise _outside_int8()
        folded = (key ^ ~(key >> 32)) & _32_BITS  # so that a negative int4 and int8 hash alike
    a = ((_FOUR_BYTES + folded ^ _MIXED_C) - _MIXED_A) & _32_BITS
    b = ((_FOUR_BYTES ^ a) - (a << 25 | a >> 7)) & _32_BITS
    c = ((_MIXED_C ^ b) - (b << 16 | b >> 16)) & _32_BITS
    a = ((a ^ c) - (c << 4 | c >> 28)) & _32_BITS
    b = ((b ^ a) - (a << 14 | a >> 18)) & _32_BITS
    return ((c ^ b) - (b >> 8)) & mask  # rot(b, 24) without its upper part: a mask has 16 bits at most


def bucket_of_str(key: object, mask: int) -> int:
    """Return ``hashtextextended(key, 0) & mask`` for a deterministic collation in a UTF8 database.

    Nothing is normalised. Raises WrongKey for what no text can hold: a NUL, half of a surrogate pair.
    """
    if not isinstance(key, str):
        raise _wrong("str", key)
    try:
        data = str.encode(key)
    except UnicodeEncodeError as error:
        where = f"position {error.start}"
        raise WrongKey(f"the key has half a surrogate pair at {where}: Postgres can't store it") from error
    if b"\0" in data:
        raise WrongKey(f"the key has a NUL at byte {data.index(0)}: Postgres can't store it")
    return _hash_bytes(data) & mask


def bucket_of_uuid(key: object, mask: int) -> int:
    """Return ``uuid_hash_extended(key, 0) & mask``: even for UUIDs whose last bits aren't random."""
    if not isinstance(key, UUID):
        raise _wrong("UUID", key)
    return _hash_bytes(key.bytes) & mask


def bucket_of_uuid_tail(key: object, mask: int) -> int:
    """Return the last bits of the UUID: with 4096 buckets, its last three hex digits. For versions 4 and 7."""
    if not isinstance(key, UUID):
        raise _wrong("UUID", key)
    return key.int & mask


def _plain_int(key: object) -> int:
    if isinstance(key, int) and not isinstance(key, bool):
        return int.__index__(key)
    raise _wrong("int", key)


def _wrong(wanted: str, key: object) -> WrongKey:
    # The key itself may be somebody's e-mail: it stays out of messages and logs.
    return WrongKey(f"this keyspace is keyed by {wanted}, not by {type(key).__name__}")


def _outside_int8() -> WrongKey:
    return WrongKey("the key is outside -2**63 .. 2**63 - 1: no bigint can hold it")


def _hash_bytes(data: bytes) -> int:
    """Return the low 32 bits of ``hash_bytes_extended(data, 0)``.

    Values are masked only where a right shift would see what lies above 32 bits.
    """
    a = b = c = (_GOLDEN_RATIO + len(data)) & _32_BITS
    whole = len(data) // 12 * 12
    x: int
    y: int
    z: int
    for x, y, z in _BLOCK.iter_unpack(data[:whole]):
        a, b, c = _mix(a + x, b + y, c + z & _32_BITS)
    x, y, z = _BLOCK.unpack(data[whole:].ljust(12, b"\0"))
    a += x
    b = b + y & _32_BITS
    c += z << 8  # the lowest byte of c is reserved for the length
    c = ((c ^ b) - (b << 14 | b >> 18)) & _32_BITS
    a = ((a ^ c) - (c << 11 | c >> 21)) & _32_BITS
    b = ((b ^ a) - (a << 25 | a >> 7)) & _32_BITS
    c = ((c ^ b) - (b << 16 | b >> 16)) & _32_BITS
    a = ((a ^ c) - (c << 4 | c >> 28)) & _32_BITS
    b = ((b ^ a) - (a << 14 | a >> 18)) & _32_BITS
    return ((c ^ b) - (b << 24 | b >> 8)) & _32_BITS


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    """Do lookup3's mix(); c must have 32 bits."""
    a = ((a - c) ^ (c << 4 | c >> 28)) & _32_BITS
    c += b
    b = ((b - a) ^ (a << 6 | a >> 26)) & _32_BITS
    a += c
    c = ((c - b) ^ (b << 8 | b >> 24)) & _32_BITS
    b += a
    a = ((a - c) ^ (c << 16 | c >> 16)) & _32_BITS
    c += b
    b = ((b - a) ^ (a << 19 | a >> 13)) & _32_BITS
    a += c
    c = ((c - b) ^ (b << 4 | b >> 28)) & _32_BITS
    return a, b + a, c


def _call(function: str) -> Callable[[str, int], str]:
    return lambda column, mask: f"(({function}({column}, 0) & {mask})::int)"


def _uuid_tail_sql(column: str, mask: int) -> str:
    high, low = (f"get_byte(uuid_send({column}), {byte})" for byte in (14, 15))
    return f"((({high} << 8) | {low}) & {mask})"


_registry: dict[str, KeyHash] = {
    each.name: each
    for each in (
        KeyHash("int", int, "bigint", bucket_of_int, _call("hashint8extended")),
        KeyHash("str", str, "text", bucket_of_str, _call("hashtextextended")),
        KeyHash("uuid_tail", UUID, "uuid", bucket_of_uuid_tail, _uuid_tail_sql),
        KeyHash("uuid_hash", UUID, "uuid", bucket_of_uuid, _call("uuid_hash_extended")),
    )
}
HASHES: Final[Mapping[str, KeyHash]] = MappingProxyType(_registry)  # a live view: register() adds to it


def register(custom: KeyHash) -> None:
    """Add a hash of your own (a region, a tenant), before a keyspace that uses it is read.

    Every process that routes must register the same pair: a keyspace stores only the name. Raises Rejected if the name
    isn't a plain lower-case identifier or stands for another pair already.
    """
    if not _HASH_NAME.fullmatch(custom.name):
        raise Rejected(f"{custom.name!r} can't name a hash: use lower-case letters, digits and _")
    if _registry.setdefault(custom.name, custom) != custom:
        raise Rejected(f"there is another hash named {custom.name!r} already")


def hash_named(name: str) -> KeyHash:
    """Return the hash of that name; raise UnknownName, which lists those that exist."""
    try:
        return HASHES[name]
    except KeyError:
        raise UnknownName(f"no hash {name!r}; there are: {', '.join(sorted(HASHES))}") from None
