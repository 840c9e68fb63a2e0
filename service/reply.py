"""Answers, written to the wire in one piece.

DESIGN. aiohttp's Response builds a case-insensitive multi-dict per answer and serialises it again: a fifth of the time
that a small GET takes. Here what doesn't change from answer to answer is text already, the rest is one formatted
string, and head and body leave in one write, through aiohttp's own writer, so that its flow control applies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from time import time

from aiohttp import HttpVersion11, web
from aiohttp.abc import AbstractStreamWriter
from typing_extensions import override

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_WITHOUT_BODY = frozenset({204, 304})
_FORBIDDEN = re.compile(r"[^\t\x20-\x7e]")


def header_lines(headers: Mapping[str, str]) -> str:
    """Return headers as they stand on the wire; ValueError for one that would break out of its line."""
    for name, value in headers.items():
        if _FORBIDDEN.search(name) or _FORBIDDEN.search(value):
            raise ValueError(f"not a header: {name}: {value!r}")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


# No answer of this service belongs into anybody's frame, script or shared cache.
_SECURITY = header_lines(
    {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)
_LOCKED_DOWN = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
JSON_LINES = header_lines({"Content-Type": "application/json", "Cache-Control": "private, no-cache", **_LOCKED_DOWN})
NO_STORE_LINES = header_lines({"Cache-Control": "no-store", **_LOCKED_DOWN})


class Reply(web.StreamResponse):
    """A whole answer: a status, header lines as ``header_lines`` makes them, and a body.

    Nothing of StreamResponse is used but its place in aiohttp's life of a request, so it isn't initialised.
    """

    def __init__(self, status: int, body: bytes = b"", lines: str = JSON_LINES) -> None:
        self.code = status
        self.content = body
        self.lines = lines
        self.request_id = ""
        self.closing = False  # set it, and the connection ends with this answer

    @property
    @override
    def status(self) -> int:
        """The status code."""
        return self.code

    @property
    @override
    def keep_alive(self) -> bool:
        """Whether the connection is used again: known once the answer was sent."""
        return not self.closing

    @override
    def force_close(self) -> None:
        self.closing = True

    @override
    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Send everything; aiohttp calls this once, and then ``write_eof``."""
        if not request.keep_alive:
            self.closing = True
        body, code = self.content, self.code
        if self.closing:
            connection = "Connection: close\r\n"
        else:
            connection = "" if request.version >= HttpVersion11 else "Connection: keep-alive\r\n"
        length = "" if code in _WITHOUT_BODY else f"Content-Length: {len(body)}\r\n"
        head = (
            f"{_STATUS_LINES[code]}{self.lines}{_SECURITY}{length}X-Request-Id: {self.request_id}\r\n"
            f"Date: {_date()}\r\n{connection}\r\n"
        )
        writer = request.writer
        if code in _WITHOUT_BODY or request.method == "HEAD":
            body = b""
        await writer.write_eof(head.encode("ascii") + body)
        return writer

    @override
    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to be sent."""


class _Clock:
    """The Date header of this second."""

    second = 0
    text = ""


def _date() -> str:
    now = int(time())
    if now != _Clock.second:
        _Clock.second, _Clock.text = now, formatdate(now, usegmt=True)
    return _Clock.text
