"""Structured logs: one JSON object a line, on standard output, with nothing in it that came from a user.

What a line may hold is decided where it is written: names of operations, statuses, durations, ids of requests. Bodies,
addresses, e-mails, names and tokens are handed to no logger. Exceptions are logged by type and place, without their
text, because a database's messages quote the values that it refused.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import msgspec
import structlog

Event = MutableMapping[str, Any]
_ours = msgspec.json.Encoder(enc_hook=str)


def configure(level: str, **bound: Any) -> None:
    """Send everything that is logged in this process, by whomever, through one chain, with ``bound`` in each line."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        without_text,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_render)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(**bound)
    root = logging.getLogger()
    root.handlers[:] = [_Foreign()]
    root.setLevel(logging.WARNING)


def without_text(_logger: Any, _method: str, event: Event) -> Event:
    """Replace an exception by its type and the places that it came through."""
    error = event.pop("exc_info", None)
    if isinstance(error, BaseException):
        event["error"] = type(error).__qualname__
        event["at"] = places(error.__traceback__)
        if error.__cause__ is not None:
            event["cause"] = type(error.__cause__).__qualname__
    return event


def places(trace: TracebackType | None, last: int = 6) -> list[str]:
    """Return the last places of a traceback, innermost last; no source file is opened for it."""
    found = [f"{frame.f_code.co_qualname}:{line}" for frame, line in traceback.walk_tb(trace)]
    return found[-last:]


class _Foreign(logging.Handler):
    """What libraries log: their logger's name and the template of the message, never its arguments."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on."""
        error = record.exc_info[1] if record.exc_info else None
        first_line = str(record.msg).partition("\n")[0][:200]
        structlog.get_logger().log(record.levelno, "library", logger=record.name, message=first_line, exc_info=error)


def _render(event: Event, **_: Any) -> str:
    return _ours.encode(event).decode()
