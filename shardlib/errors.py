"""Every error that shardlib raises of its own; the type says whose turn it is.

    ShardlibError
    |-- Retryable                nothing happened: the same call may be made again
    |   |-- Refused              the node no longer owns the bucket, or holds it off while it moves
    |   |-- NodeUnavailable      the node can't be reached, or its breaker is open
    |   |-- Overloaded           a bounded queue is full
    |   `-- DeadlineExceeded     time was up before anything could have been done
    |-- OutcomeUnknown           a write was sent and no answer came: it may or may not have happened
    |-- Rejected                 your turn: the call can't work as it is
    |   |-- WrongKey             a key of another type than the keyspace's
    |   |-- UnknownName          no such keyspace, node or table
    |   |-- BadToken             not a token of this cluster
    |   |-- WriteLost            the token names a write that a failover lost
    |   |-- Taken                the unique value belongs to somebody else
    |   |-- ClaimLost            the claim was decided before or is too old: claim again
    |   |-- AnswerMismatch       the request id was used for something else
    |   `-- NotColocated         a statement for many keys lacks its /*mine*/ mark
    `-- Broken                   ours, or the cluster's: a state that must not be
        |-- InvalidTopology      a snapshot that contradicts itself
        |-- CatalogUnavailable   neither the catalog nor a snapshot file can be read
        `-- FormatMismatch       bookkeeping of a format that this version doesn't read

What Postgres says about your SQL (a unique violation, a syntax error) isn't wrapped: it reaches you as asyncpg's own
exception. An error of the driver that led to one of these is its ``__cause__``.
"""

from __future__ import annotations


class ShardlibError(Exception):
    """The root of all errors of this library."""


class Retryable(ShardlibError):
    """Nothing happened; the same call may be made again, after ``retry_after`` seconds."""

    retry_after: float = 0.05

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        if retry_after is not None:
            self.retry_after = retry_after


class Refused(Retryable):
    """The node doesn't own the bucket any more, or holds writes to it off while it moves."""


class NodeUnavailable(Retryable):
    """The node can't be reached; ``node`` says which."""

    retry_after = 1.0

    def __init__(self, message: str, *, node: str, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.node = node


class Overloaded(Retryable):
    """A bounded queue is full; shed load before trying again."""

    retry_after = 0.5


class DeadlineExceeded(Retryable, TimeoutError):
    """Time was up, and nothing was changed."""


class OutcomeUnknown(ShardlibError):
    """A write was sent and no answer came: it may or may not have happened.

    Only ``Shard.run(..., request_id=...)`` may be made again safely.
    """


class Rejected(ShardlibError):
    """The call can't work as it is; making it again won't help."""


class WrongKey(Rejected, TypeError):
    """A key of another type than its keyspace's."""


class UnknownName(Rejected, LookupError):
    """No keyspace, node or table of that name."""


class BadToken(Rejected, ValueError):
    """Not a token of this cluster."""


class WriteLost(Rejected):
    """The token names a write that a failover of its node lost."""


class Taken(Rejected):
    """The unique value belongs to another owner."""


class ClaimLost(Rejected):
    """The claim was taken over, decided before, or is too old: make it anew."""


class AnswerMismatch(Rejected):
    """The request id was used before for another kind of request."""


class NotColocated(Rejected, ValueError):
    """A statement for many keys lacks the ``/*mine*/`` mark that keeps each row's answer single."""


class Broken(ShardlibError):
    """A state that must not be: a bug of ours, or a damaged cluster."""


class InvalidTopology(Broken):
    """A snapshot that contradicts itself."""


class CatalogUnavailable(Broken):
    """Neither the catalog nor a snapshot file can be read."""


class FormatMismatch(Broken):
    """Bookkeeping of a format that this version doesn't read."""
