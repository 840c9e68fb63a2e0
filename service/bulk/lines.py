"""NDJSON in batches of bounded size; each knows which bytes of the input it ends, so that an import can be resumed.

A stream is only ever read forwards: standard input works as a file does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

MAX_LINE_BYTES = 1 << 20  # no valid user comes near it; what is longer is rejected without being held in memory
_PIECE = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two lines, and a digest of everything before it."""

    bytes: int = 0
    lines: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its end; of one that is too long only the head."""

    number: int
    text: bytes

    @property
    def too_long(self) -> bool:
        """Whether the line was cut."""
        return len(self.text) > MAX_LINE_BYTES


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that are imported together; blank ones are left out but counted."""

    lines: tuple[Line, ...]
    end: Position


class OtherInput(Exception):
    """The input isn't the one that a position was taken in."""


class Lines:
    """The rest of a stream in batches."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.blake2b(digest_size=16)
        self._unhashed: list[bytes] = []
        self._bytes = 0
        self._number = 0

    def skip(self, position: Position) -> None:
        """Read on to a position of an earlier run; raise OtherInput unless every byte before it is the same."""
        while left := position.bytes - self._bytes:
            piece = self._stream.read(min(left, _PIECE))
            if not piece:
                raise OtherInput("the input is shorter than what was imported from it")
            self._count(piece)
        self._number = position.lines
        if position.bytes and self._digest.hexdigest() != position.digest:
            raise OtherInput("the input differs from what was imported from it")

    def batches(self, max_lines: int, max_bytes: int) -> Iterator[Batch]:
        """Yield the rest of the input."""
        while lines := self._some(max_lines, max_bytes):
            yield Batch(tuple(line for line in lines if line.text.strip()), self._position())

    def _some(self, max_lines: int, max_bytes: int) -> list[Line]:
        lines: list[Line] = []
        stop = self._bytes + max_bytes
        while len(lines) < max_lines and self._bytes < stop and (raw := self._stream.readline(MAX_LINE_BYTES + 1)):
            self._number += 1
            self._bytes += len(raw)
            self._unhashed.append(raw)
            if not raw.endswith(b"\n"):
                self._pass_over_the_rest()
            lines.append(Line(self._number, self._text(raw)))
        self._hash()
        return lines

    def _pass_over_the_rest(self) -> None:
        """Read a line that is too long to its end, or the end of the input, without keeping it."""
        self._hash()
        piece = b""
        while not piece.endswith(b"\n") and (piece := self._stream.readline(_PIECE)):
            self._count(piece)

    def _text(self, raw: bytes) -> bytes:
        if len(raw) > MAX_LINE_BYTES:
            return raw
        return (raw.removeprefix(_BYTE_ORDER_MARK) if self._number == 1 else raw).rstrip(b"\r\n")

    def _count(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._bytes += len(piece)

    def _hash(self) -> None:
        self._digest.update(b"".join(self._unhashed))
        self._unhashed.clear()

    def _position(self) -> Position:
        return Position(self._bytes, self._number, self._digest.hexdigest())
