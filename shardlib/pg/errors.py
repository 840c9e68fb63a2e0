"""What asyncpg's exceptions say about the fate of a statement.

DESIGN. The server's own word (an SQLSTATE of severity ERROR) means that the statement was rolled back: nothing
happened. A FATAL one doesn't: the session may end after the commit and before the answer (a shutdown does, while a
commit waits for its standby). A closed connection that was found closed *before* anything was written is the one
client-side error that proves that nothing was sent. A prepared statement that a migration made invalid is prepared
anew by asyncpg, but not within a transaction, which must begin again.
"""

from __future__ import annotations

import asyncpg

from shardlib.ports import Outcome

Record = asyncpg.Record
UniqueViolation = asyncpg.UniqueViolationError

FENCED = "SH001"  # the SQLSTATE of our fence
_PASSES = frozenset({"40001", "40P01", "55P03"})  # serialisation failure, deadlock, lock not available
_READ_ONLY = "25006"
_FATAL_CLASSES = ("08", "57P0", "58", "XX")  # connection, shutdown and crash, system, internal
_ENDS_SESSION = ("FATAL", "PANIC")
_NOT_READY = "cannot switch to state"  # the server's farewell has been read, the closing of the socket not yet
_FOUND_CLOSED = "connection is closed"  # in each of asyncpg's own checks before it writes


def outcome_of(error: BaseException) -> Outcome:
    """Say what is known after ``error`` came out of a statement."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return Outcome.UNPLANNED
    if isinstance(error, asyncpg.PostgresError):
        return _by_sqlstate(error)
    if isinstance(error, asyncpg.InterfaceError):
        return Outcome.UNSENT if _FOUND_CLOSED in str(error) else Outcome.ANSWERED
    if isinstance(error, asyncpg.InternalClientError) and _NOT_READY in str(error):
        return Outcome.UNSENT
    if isinstance(error, OSError | asyncpg.InternalClientError | EOFError | AttributeError):
        return Outcome.LOST  # AttributeError: terminated between two of asyncpg's own steps
    return Outcome.ANSWERED


def _by_sqlstate(error: asyncpg.PostgresError) -> Outcome:
    state = error.sqlstate or "XX000"
    if state == FENCED:
        return Outcome.REFUSED
    if state == _READ_ONLY:
        return Outcome.READ_ONLY
    if state in _PASSES:
        return Outcome.AGAIN
    severity = getattr(error, "severity_en", None)
    if severity in _ENDS_SESSION or (state.startswith(_FATAL_CLASSES) and severity != "ERROR"):
        return Outcome.LOST
    return Outcome.ANSWERED


def refused_to_connect(error: BaseException) -> str:
    """Return one line for people about why a connection could not be opened, without addresses or secrets."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    text = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
