"""A client that looks at every answer: its headers, its form, and that it says nothing that it shouldn't."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

_numbers = itertools.count(1)
_LEAKS = re.compile(r"asyncpg|psycopg|SELECT |INSERT |UPDATE |127\.0\.0\.1|localhost|Traceback|\.py\b|shardlib")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: CIMultiDictProxy[str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)


class Api:
    """The API of one service. ``transcript`` keeps every answer."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.transcript: list[Answer] = []

    async def __aenter__(self) -> Api:
        self._session = aiohttp.ClientSession(self.base, auto_decompress=False)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, *, body: object = None, raw: bytes | None = None, **headers: str
    ) -> Answer:
        """Send a request; ``body`` goes out as JSON, ``raw`` as it is; ``if_match="x"`` is the header If-Match: x."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = raw
        if body is not None:
            data = json.dumps(body).encode()
            kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
            sent.setdefault("Content-Type", kind)
        options: dict[str, Any] = {"data": data, "headers": sent, "skip_auto_headers": ["Content-Type"]}
        async with self._session.request(method, URL(path, encoded=True), **options) as got:
            answer = Answer(got.status, got.headers, await got.read())
        check(answer)
        self.transcript.append(answer)
        return answer

    async def get(self, path: str, **headers: str) -> Answer:
        """Read."""
        return await self.call("GET", path, body=None, raw=None, **headers)

    async def create(self, **fields: object) -> dict[str, Any]:
        """Create a user and return it."""
        answer = await self.call("POST", "/v1/users", body={"email": an_email(), **fields})
        assert answer.status == 201, answer
        found: dict[str, Any] = answer.json
        return found

    async def problem(self, method: str, path: str, kind: str, **options: Any) -> dict[str, Any]:
        """Send what must be refused as this kind of problem, and return the problem."""
        answer = await self.call(method, path, **options)
        found: dict[str, Any] = answer.json
        assert found["type"] == f"/problems/{kind}", answer
        return found


def an_email() -> str:
    """Return an e-mail that nobody has."""
    return f"somebody.{next(_numbers)}@example.com"


def check(answer: Answer) -> None:
    """Assert what holds for every answer."""
    headers = answer.headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Request-Id"]
    assert "Server" not in headers
    assert "no-" in headers["Cache-Control"]
    assert answer.status != 500, answer.content
    if answer.status >= 400 and answer.content:
        problem = answer.json
        assert headers["Content-Type"] == "application/problem+json"
        assert problem["status"] == answer.status
        assert problem["title"]
        assert problem["detail"]
        assert problem["request_id"] == headers["X-Request-Id"]
        assert not _LEAKS.search(problem["detail"] + problem["title"]), problem
        assert ("Retry-After" in headers) == (answer.status == 503)
