"""Where requests come in: one place that routes, counts, times, names, and turns errors into problems.

DESIGN. This is aiohttp's low-level server with one handler, instead of an Application with its resolver and a chain of
middlewares: measured on GET /v1/users/{id}, the chain cost as much as the query. On the happy path the door takes a
time, makes an id, looks up a route and adds to a counter; logging, headers of problems and the like are paid only when
they are used.

A request isn't cancelled when its client goes away: what was begun ends, within its deadline. So no connection is left
half used, and a write isn't cut off because somebody closed a tab.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from dataclasses import dataclass
from itertools import count
from time import perf_counter
from typing import Any

import structlog
from aiohttp import web
from typing_extensions import override

from service.metrics import Counts
from service.problem import Kind, Problem, from_library
from service.reply import Reply
from service.route import Call, Routes
from shardlib.errors import NodeUnavailable, ShardlibError

log = structlog.get_logger()

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(?:-.*)?")
NO_ROUTE = "none"
_SAMPLED = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What the door allows, and what of it is worth a line in the log."""

    in_flight: int
    body_seconds: float
    slow_seconds: float
    log_all: bool = False


class Door:
    """The handler of all requests. While ``closing``, each connection ends with its next answer."""

    def __init__(self, routes: Routes, counts: Counts, limits: Limits) -> None:
        self.closing = False
        self._find = routes.find
        self._counts = counts
        self._limits = limits
        self._prefix = secrets.token_hex(6)
        self._numbers = count(1)

    async def __call__(self, request: web.BaseRequest) -> Reply:
        """Answer a request."""
        started = perf_counter()
        counts, limits, headers = self._counts, self._limits, request.headers
        request_id = headers.get("X-Request-Id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._prefix}-{next(self._numbers):x}"
        label = NO_ROUTE
        error: Exception | None = None
        counts.in_flight += 1
        try:
            route, argument, query = self._find(request.method, request.raw_path)
            label = route.label
            if counts.in_flight > limits.in_flight:
                raise Problem(Kind.OVERLOADED, "too many requests at a time", retry_after=1.0)
            reply = await route.handler(Call(request, route, argument, query, request_id, limits.body_seconds))
        except Problem as problem:
            reply = problem.reply(request_id)
        except Exception as found:
            error = found
            reply = _problem_of(found).reply(request_id)
        finally:
            counts.in_flight -= 1
        reply.request_id = request_id
        reply.closing = self.closing
        seconds = perf_counter() - started
        counts.observe(label, reply.code, seconds)
        if reply.code >= 500 or seconds >= limits.slow_seconds or limits.log_all or "traceparent" in headers:
            self._log(headers.get("traceparent", ""), label, (reply, seconds), error)
        return reply

    def refuse(self, kind: Kind, detail: str) -> Reply:
        """Return the answer to what isn't a request at all; it ends the connection."""
        request_id = f"{self._prefix}-{next(self._numbers):x}"
        reply = Problem(kind, detail).reply(request_id)
        reply.request_id = request_id
        reply.closing = True
        self._counts.observe(NO_ROUTE, reply.code, 0.0)
        return reply

    def _log(self, traceparent: str, label: str, outcome: tuple[Reply, float], error: Exception | None) -> None:
        """Write a line about a request that is notable: failed, slow, or traced by somebody who asks for it."""
        reply, seconds = outcome
        trace = _TRACEPARENT.fullmatch(traceparent)
        sampled = trace is not None and int(trace["flags"], 16) & _SAMPLED
        failed, slow = reply.code >= 500, seconds >= self._limits.slow_seconds
        if not (failed or slow or sampled or self._limits.log_all):
            return
        event: dict[str, Any] = {
            "operation": label,
            "status": reply.code,
            "seconds": round(seconds, 6),
            "request_id": reply.request_id,
        }
        if trace is not None:
            event["trace_id"] = trace["trace"]
        if isinstance(error, NodeUnavailable):
            event["node"] = error.node
        if isinstance(error, ShardlibError):
            event["error"] = type(error).__name__
        elif error is not None:
            event["exc_info"] = error
        (log.error if reply.code == 500 else log.warning if failed or slow else log.info)("request", **event)


class Server(web.Server):
    """aiohttp's server, whose last words are problems too: for bytes that aren't HTTP, and for a bug in the door."""

    def __init__(self, door: Door, *, idle_seconds: float) -> None:
        super().__init__(
            door, access_log=None, keepalive_timeout=idle_seconds, auto_decompress=False, lingering_time=2.0
        )
        self._door = door
        self._idle_seconds = idle_seconds

    @override
    def __call__(self) -> web.RequestHandler:
        """Return the protocol of a new connection."""
        return _Connection(self, self._door, loop=asyncio.get_running_loop(), **self._kwargs)


class _Connection(web.RequestHandler):
    """A connection whose errors are told as problems."""

    __slots__ = ("_door",)

    def __init__(self, server: Server, door: Door, **options: Any) -> None:
        super().__init__(server, **options)
        self._door = door

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to what the parser refused, or what the door didn't catch."""
        if status < 500:
            return self._door.refuse(Kind.BAD_REQUEST, "this isn't HTTP as this server reads it")
        log.error("door", exc_info=exc)
        return self._door.refuse(Kind.INTERNAL, "the request couldn't be carried out")


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, ShardlibError):
        return from_library(error)
    return Problem(Kind.INTERNAL, "the request couldn't be carried out")
