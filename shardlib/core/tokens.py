"""Tokens: how a reader proves which write it must see."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from shardlib.errors import BadToken

_VERSION = "1"
_MAX_TEXT = 400  # far above any token of ours; what is longer isn't decoded


@dataclass(frozen=True, slots=True)
class Token:
    """A position in a node's log that is no older than a write to one bucket.

    ``str(token)`` is opaque and safe in a header; ``Token.parse`` reads it back. ``epoch`` is that of the bucket's
    ownership at the time, 0 for a bucket that never moved.
    """

    keyspace: str
    bucket: int
    epoch: int
    node: str
    timeline: int
    lsn: int

    def __str__(self) -> str:
        fields = (_VERSION, self.keyspace, self.bucket, self.epoch, self.node, self.timeline, f"{self.lsn:x}")
        return base64.urlsafe_b64encode(" ".join(map(str, fields)).encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Token:
        """Return the token that ``str`` gave; BadToken for anything else."""
        if len(text) > _MAX_TEXT:
            raise BadToken("a token isn't that long")
        try:
            plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True).decode("ascii")
            version, keyspace, bucket, epoch, node, timeline, lsn = plain.split(" ")
            token = cls(keyspace, int(bucket), int(epoch), node, int(timeline), int(lsn, 16))
            if version != _VERSION or not token._in_range():
                raise ValueError(plain)
            return token
        except (ValueError, binascii.Error) as error:
            raise BadToken("not a token of this cluster") from error

    def _in_range(self) -> bool:
        """Tell whether Postgres could have said so."""
        return self.bucket >= 0 and 0 <= self.timeline < 2**31 and 0 <= self.epoch < 2**63 and 0 <= self.lsn < 2**63
