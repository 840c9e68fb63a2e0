"""Hashes of many texts at once: what ``keys.bucket_of_str`` computes, several times faster, in pure Python.

DESIGN. Python's integers have no fixed width, so thousands of 32-bit words fit side by side into one of them, each in a
lane of 64 bits, and one addition, rotation or exclusive-or works on all lanes at once (SIMD within a register). A carry
stays within its lane, and what a shift pushes over a lane's border is masked away. It pays for texts of the same
length, which take the same steps: hidden identifiers are.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

_SEED = 0x9E37_79B9 + 3_923_095  # what lookup3 starts from in Postgres's hashfn.c, before it adds the length
_BLOCK_BYTES = 12
_AT_ONCE = 4096  # lanes: larger integers leave the processor's cache


def hash_texts(texts: Sequence[str]) -> list[int]:
    """Return the low 32 bits of ``hashtextextended(text, 0)`` for each text, in their order."""
    encoded = [text.encode() for text in texts]
    by_length: dict[int, list[int]] = {}
    for index, data in enumerate(encoded):
        by_length.setdefault(len(data), []).append(index)
    hashes = [0] * len(encoded)
    for length, indexes in by_length.items():
        for start in range(0, len(indexes), _AT_ONCE):
            some = indexes[start : start + _AT_ONCE]
            for index, value in zip(some, _hash_alike([encoded[index] for index in some], length), strict=True):
                hashes[index] = value
    return hashes


def _hash_alike(texts: Sequence[bytes], length: int) -> Iterable[int]:
    """Return the hashes of texts of the same length; see hash_bytes_extended in Postgres for the steps."""
    lanes = _Lanes(len(texts))
    whole = length // _BLOCK_BYTES * _BLOCK_BYTES
    padding = b"\0" * (whole + _BLOCK_BYTES - length)
    words = memoryview(b"".join(text + padding for text in texts)).cast("I")
    stride = len(words) // len(texts)
    a = b = c = lanes.all((_SEED + length) & 0xFFFF_FFFF)
    for at in range(0, whole // 4, 3):
        x, y, z = (lanes.pack(words[at + word :: stride].tolist()) for word in range(3))
        a, b, c = lanes.mix(lanes.add(a, x), lanes.add(b, y), lanes.add(c, z))
    x, y, z = (lanes.pack(words[whole // 4 + word :: stride].tolist()) for word in range(3))
    last = lanes.add(c, (z << 8) & lanes.mask)  # its lowest byte is reserved for the length
    return lanes.unpack(lanes.final(lanes.add(a, x), lanes.add(b, y), last))


class _Lanes:
    """Arithmetic modulo 2**32 on many words at once."""

    def __init__(self, count: int) -> None:
        self._bytes = count * 8
        self._ones = int.from_bytes(b"\1\0\0\0\0\0\0\0" * count, "little")
        self._borrow = self._ones << 32
        self.mask = self._ones * 0xFFFF_FFFF

    def all(self, word: int) -> int:
        """Return the word in every lane."""
        return self._ones * word

    def pack(self, words: list[int]) -> int:
        """Return words side by side."""
        return int.from_bytes(array("Q", words).tobytes(), "little")

    def unpack(self, lanes: int) -> Iterable[int]:
        """Return the words of all lanes."""
        return memoryview(lanes.to_bytes(self._bytes, "little")).cast("Q").tolist()

    def add(self, x: int, y: int) -> int:
        """Return x + y."""
        return (x + y) & self.mask

    def subtract(self, x: int, y: int) -> int:
        """Return x - y: 2**32 is lent to each lane first, so that none borrows from its neighbour."""
        return (x + self._borrow - y) & self.mask

    def rotate(self, x: int, bits: int) -> int:
        """Return x rotated left."""
        return (x << bits | x >> (32 - bits)) & self.mask

    def mix(self, a: int, b: int, c: int) -> tuple[int, int, int]:
        """Do lookup3's mix()."""
        for bits in (4, 6, 8, 16, 19, 4):
            a = self.subtract(a, c) ^ self.rotate(c, bits)
            a, b, c = b, self.add(c, b), a
        return a, b, c

    def final(self, a: int, b: int, c: int) -> int:
        """Do lookup3's final() and return c."""
        for bits in (14, 11, 25, 16, 4, 14, 24):
            c = self.subtract(c ^ b, self.rotate(b, bits))
            a, b, c = b, c, a
        return b
