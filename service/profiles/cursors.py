"""Cursors of lists: where a page ended, signed, so that nobody makes the service read what it didn't offer."""

from __future__ import annotations

import base64
import binascii
import hmac
from uuid import UUID

from service.problem import bad_parameter

_TAG_BYTES = 12  # 96 bits: a guess costs a request


class Cursors:
    """Makes and reads cursors."""

    def __init__(self, signing_key: bytes) -> None:
        self._key = hmac.digest(signing_key, b"cursor", "sha256")

    def make(self, last: UUID) -> str:
        """Return the cursor of what comes after an id."""
        return base64.urlsafe_b64encode(last.bytes + self._tag(last.bytes)).decode().rstrip("=")

    def read(self, cursor: str) -> UUID:
        """Return the id that a cursor stands for; Problem for one that this service didn't make."""
        try:
            plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            plain = b""
        if len(plain) != 16 + _TAG_BYTES or not hmac.compare_digest(plain[16:], self._tag(plain[:16])):
            raise bad_parameter("cursor", "not a cursor of this service")
        return UUID(bytes=plain[:16])

    def _tag(self, plain: bytes) -> bytes:
        return hmac.digest(self._key, plain, "sha256")[:_TAG_BYTES]
