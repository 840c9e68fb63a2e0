"""Unique values as they are stored: normalised, then hidden behind an HMAC, with the id of its key in front.

DESIGN. No clear value is an index key: a stolen index, or its backup, tells nobody's e-mail without the HMAC key. The
id of the key stands in front, so that keys can be changed while values under the old one are still found. An e-mail is
normalised (trimmed, NFC, case-folded, its domain as A-labels, IDNA 2008 after UTS 46) so that two spellings of one
mailbox are one value; mail providers' own rules (dots, plus signs) aren't ours to guess.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

import idna

_KIND = re.compile(r"[a-z][a-z0-9_]{0,30}")


@dataclass(frozen=True, slots=True)
class Identifier:
    """A hidden value; ``str`` gives its text, the key under which it is routed and stored."""

    kind: str
    key_id: int
    digest: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.key_id}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Identifier:
        """Return the identifier that ``str`` gave; ValueError for anything else."""
        kind, key_id, digest = text.split(":")
        return cls(kind, int(key_id), digest)


def hide(kind: str, value: str, key_id: int, key: bytes) -> Identifier:
    """Return what stands for a value of that kind: HMAC-SHA256 of the kind and the normalised value.

    Raises ValueError for a kind that isn't 1 to 31 of a-z, 0-9 and _, and for a value that isn't Unicode text.
    """
    if not _KIND.fullmatch(kind):
        raise ValueError(f"not the name of a kind: {kind!r}")
    return Identifier(kind, key_id, digest_of(kind, value, key))


def digest_of(kind: str, value: str, key: bytes) -> str:
    """Return the HMAC of a kind and a value in hexadecimal digits."""
    return hmac.digest(key, f"{kind}\0{normalise(kind, value)}".encode(), "sha256").hex()


def normalise(kind: str, value: str) -> str:
    """Return the one spelling of all that mean the same value of that kind; it is total and idempotent."""
    text = value.strip()
    local, at, domain = text.rpartition("@")
    if kind != "email" or not at:
        return _fold(text)
    return f"{_fold(local)}@{_a_labels(domain)}"


def token_at(milliseconds: int, noise: int) -> UUID:
    """Return the UUIDv7 (RFC 9562) of a Unix time and 74 random bits."""
    head = (milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | (noise >> 62 & 0xFFF) << 64
    return UUID(int=head | 0b10 << 62 | noise & (1 << 62) - 1)


def age_ms(token: UUID, milliseconds: int) -> int:
    """Return how old a UUIDv7 is at that Unix time."""
    return milliseconds - (token.int >> 80)


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()  # all that NFC and folding do to it
    folded = unicodedata.normalize("NFC", text).casefold()
    return unicodedata.normalize("NFC", folded)  # folding can leave a letter decomposed


def _a_labels(domain: str) -> str:
    if domain.isascii():
        return domain.lower()  # what IDNA would answer, or what it refuses
    return _idna(domain)


@lru_cache(maxsize=4096)  # a look-up in IDNA's tables takes longer than all the rest, and domains come again
def _idna(domain: str) -> str:
    try:
        # It folds by itself, and keeps apart what may be two domains (straße, strasse).
        return idna.encode(domain, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return _fold(domain)  # no domain at all: the folded text is its only spelling
