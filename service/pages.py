"""What the service says about itself: the OpenAPI document, a page that shows it, and the kinds of problems.

The page is plain HTML made once at start: no script, nothing from elsewhere, so its Content-Security-Policy can forbid
everything but its own style sheet.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from enum import Enum
from html import escape
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from service import openapi
from service.problem import Kind
from service.reply import Reply, header_lines
from service.route import Answer, Call, Parameter, Route

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
h2{margin-top:2.5rem}code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f4f4f4;padding:.8rem;overflow:auto}
summary{cursor:pointer;padding:.5rem 0}summary b{display:inline-block;min-width:4.5rem}table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd}
details{border-bottom:1px solid #ddd}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#161616}pre{background:#222}a{color:#8ab4f8}}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_PAGE_LINES = header_lines(
    {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-cache",
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; frame-ancestors 'none'; "
        "base-uri 'none'; form-action 'none'",
    }
)

Slug = Enum("Slug", [(kind.name, kind.slug) for kind in Kind])  # type: ignore[misc]  # made from the table
_SLUGS = Annotated[str, Meta(extra_json_schema={"enum": [kind.slug for kind in Kind]})]


class ProblemType(Struct, frozen=True):
    """A kind of problem: what its type URI resolves to."""

    type: str
    title: str
    status: int
    advice: str


class Pages:
    """The handlers; ``describe`` has to be called with all operations before the first request."""

    def __init__(self) -> None:
        self._document = b""
        self._page = b""

    def describe(self, routes: Sequence[Route], extra: Mapping[str, openapi.Json]) -> None:
        """Make the document and the page; ``extra`` are schemas that no type can say."""
        document = openapi.document(routes, extra)
        self._document = msgspec.json.encode(document)
        self._page = page(document).encode()

    async def document(self, _: Call) -> Reply:
        """GET /openapi.json."""
        return Reply(200, self._document)

    async def page(self, _: Call) -> Reply:
        """GET /docs."""
        return Reply(200, self._page, _PAGE_LINES)

    async def problem(self, call: Call) -> Reply:
        """GET /problems/{name}."""
        return Reply(200, msgspec.json.encode(describe(_KINDS[call.path(Slug).value])))


def routes(pages: Pages) -> Sequence[Route]:
    """Return the operations that tell about the others."""
    name = Parameter("name", "path", _SLUGS, "The last part of a problem's type.", required=True)
    return (
        Route("GET", "/openapi.json", pages.document, "getDocument", "This document",
              {200: Answer("The document.", dict[str, Any])}),
        Route("GET", "/docs", pages.page, "getDocumentation", "This document as a page",
              {200: Answer("The page.", str, media_type="text/html")}),
        Route("GET", "/problems/{name}", pages.problem, "getProblem", "What a type of problem means",
              {200: Answer("It.", ProblemType)}, (Kind.BAD_PARAMETER,), name),
    )  # fmt: skip


def describe(kind: Kind) -> ProblemType:
    """Return what is said about a kind."""
    return ProblemType(kind.uri, kind.title, kind.status, kind.advice)


def page(document: openapi.Json) -> str:
    """Return the document as HTML."""
    info = document["info"]
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f"<details id='schema-{escape(name)}'><summary>{escape(name)}</summary>{_json(schema)}</details>"
        for name, schema in document["components"]["schemas"].items()
    )
    problems = "".join(
        f"<tr><td><a href='{kind.uri}'>{kind.slug}</a></td><td>{kind.status}</td><td>{_prose(kind.advice)}</td></tr>"
        for kind in Kind
    )
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{escape(info['title'])}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>"
        f"<p>The document itself: <a href='/openapi.json'>/openapi.json</a></p>"
        f"<h2>Operations</h2>{operations}<h2>Problems</h2><table><tr><th>type</th><th>status</th><th>what to do</th>"
        f"</tr>{problems}</table><h2>Schemas</h2>{schemas}</body></html>"
    )


def _operation(path: str, method: str, operation: openapi.Json) -> str:
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code></td><td>{escape(one['in'])}</td>"
        f"<td>{_prose(one.get('description') or one['schema'].get('description', ''))}</td></tr>"
        for one in operation.get("parameters", ())
    )
    answers = "".join(
        f"<tr><td>{status}</td><td>{_prose(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    body = operation.get("requestBody", {}).get("content", {})
    bodies = "".join(f"<p>Body: <code>{escape(kind)}</code></p>{_json(one['schema'])}" for kind, one in body.items())
    table = f"<table>{parameters}</table>" if parameters else ""
    return (
        f"<details id='{escape(operation['operationId'])}'><summary><b>{method.upper()}</b> "
        f"<code>{escape(path)}</code> {escape(operation['summary'])}</summary>{table}{bodies}"
        f"<table>{answers}</table></details>"
    )


def _prose(text: str) -> str:
    """Escape text, and show what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))


def _json(value: Any) -> str:
    return f"<pre>{escape(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())}</pre>"


_KINDS = {kind.slug: kind for kind in Kind}
