"""The table of operations: what is served, where, and everything that the OpenAPI document says about it.

DESIGN. A template is fixed text with at most one parameter, at its end, so a path is found with one or two look-ups in
a dict; aiohttp's resolver walks a list of regular expressions and costs as much as all the rest of a small request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from aiohttp import web
from msgspec import Struct

from service import body as bodies
from service.problem import Kind, Problem, bad_parameter
from service.reply import Reply

Handler = Callable[["Call"], Awaitable[Reply]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter that the document shows: ``where`` is path, query or header."""

    name: str
    where: str
    type: Any
    about: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One way in which an operation succeeds."""

    about: str
    type: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = bodies.JSON_TYPE
    links: tuple[str, ...] = ()  # operations on what the body's ``id`` names


@dataclass(frozen=True)
class Route:
    """One operation."""

    method: str
    path: str  # "/v1/users/{id}"
    handler: Handler
    name: str  # the operation's id
    summary: str
    answers: Mapping[int, Answer]
    problems: tuple[Kind, ...] = ()
    path_parameter: Parameter | None = None
    query: type[Struct] | None = None
    headers: tuple[Parameter, ...] = ()
    body: Any = None
    media_types: tuple[str, ...] = (bodies.JSON_TYPE,)
    tag: str = "service"

    @cached_property
    def label(self) -> str:
        """Its name in metrics and logs: never a path that somebody sent."""
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Call:
    """One request on its way to a handler."""

    request: web.BaseRequest
    route: Route
    argument: str  # the path's parameter, still percent-encoded
    query_text: str
    request_id: str
    body_seconds: float

    async def body(self, wanted: type[T]) -> T:
        """Return the body as a ``wanted``, or raise a Problem."""
        return bodies.parse(await self.raw_body(), wanted)

    async def raw_body(self) -> bytes:
        """Return the body's bytes, or raise a Problem."""
        return await bodies.read(self.request, self.route.media_types, self.body_seconds)

    def path(self, wanted: type[T]) -> T:
        """Return the path's parameter as a ``wanted``, or raise a Problem."""
        parameter = self.route.path_parameter
        name = parameter.name if parameter else "path"
        try:
            return msgspec.convert(unquote(self.argument, errors="strict"), wanted)
        except (msgspec.ValidationError, UnicodeDecodeError) as error:
            detail = bodies.locate(str(error))[1] if isinstance(error, msgspec.ValidationError) else "not UTF-8"
            raise bad_parameter(name, detail) from None

    def query(self, wanted: type[T]) -> T:
        """Return the query's parameters as a ``wanted``, or raise a Problem."""
        try:
            pairs = parse_qsl(self.query_text, keep_blank_values=True, errors="strict", max_num_fields=20)
        except ValueError:
            raise bad_parameter("query", "not readable: too many fields, or not UTF-8") from None
        given = dict(pairs)
        if len(given) != len(pairs):
            raise bad_parameter("query", "a parameter is given twice")
        try:
            return msgspec.convert(given, wanted, strict=False)
        except msgspec.ValidationError as error:
            pointer, detail = bodies.locate(str(error))
            raise bad_parameter(pointer.lstrip("/") or "query", detail) from None


class Routes:
    """All operations by path and method."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.all = tuple(routes)
        self._fixed: dict[str, dict[str, Route]] = {}
        self._under: dict[str, dict[str, Route]] = {}
        for route in self.all:
            self._add(route)

    def find(self, method: str, target: str) -> tuple[Route, str, str]:
        """Return (operation, its path parameter, its query) of a request target, or raise a Problem."""
        path, _, query = target.partition("?")
        argument = ""
        methods = self._fixed.get(path)
        if methods is None:
            prefix, _, argument = path.rpartition("/")
            methods = self._under.get(prefix) if argument else None
            if methods is None:
                raise Problem(Kind.NOT_FOUND, "no such path")
        route = methods.get(method)
        if route is None:
            raise Problem(
                Kind.METHOD_NOT_ALLOWED, f"{method[:20]} doesn't work here", headers={"Allow": ", ".join(methods)}
            )
        if query and route.query is None:
            raise bad_parameter("query", "this operation has no parameters in the query")
        return route, argument, query

    def _add(self, route: Route) -> None:
        fixed, brace, _ = route.path.partition("/{")
        methods = (self._under if brace else self._fixed).setdefault(fixed, {})
        if route.method in methods:
            raise ValueError(f"{route.label} is there twice")
        methods[route.method] = route
        if route.method == "GET":
            methods["HEAD"] = route
