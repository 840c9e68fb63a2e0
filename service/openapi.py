"""The OpenAPI 3.1 document, made from the table of operations and the very types that validate requests."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from service import VERSION
from service.problem import MEDIA_TYPE, Kind, ProblemDetails
from service.route import Answer, Parameter, Route

Json = dict[str, Any]
_REFS = "#/components/schemas/{name}"
_ANYWHERE = (Kind.BAD_REQUEST, Kind.BAD_PARAMETER, Kind.OVERLOADED, Kind.INTERNAL)
_ABOUT = (
    "User accounts, spread over Postgres nodes by their ids. Errors are problem details (RFC 9457); a name that isn't "
    "known is refused, in bodies and queries alike. There is no authentication yet: it listens on loopback only."
)


def document(routes: Sequence[Route], extra: Mapping[str, Json]) -> Json:
    """Return the document of these operations; ``extra`` are schemas that no type can say."""
    types = [kind for route in routes for kind in _types(route)]
    _, schemas = msgspec.json.schema_components([*types, ProblemDetails], ref_template=_REFS)
    paths: dict[str, Json] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method.lower()] = operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Users", "version": VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": dict(paths),
        "components": {"schemas": {**_plain(schemas), **extra}, "headers": _HEADERS},
    }


def operation(route: Route) -> Json:
    """Return one operation."""
    parameters = [*_path_parameter(route), *_query_parameters(route), *map(_parameter, route.headers)]
    answers = {str(status): _answer(answer) for status, answer in route.answers.items()}
    found: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "responses": answers | _problems((*route.problems, *_ANYWHERE)),
    }
    if parameters:
        found["parameters"] = parameters
    if route.body is not None:
        content = {media_type: {"schema": _schema(route.body)} for media_type in route.media_types}
        found["requestBody"] = {"required": True, "content": content}
    return found


def _types(route: Route) -> Iterable[Any]:
    yield from (answer.type for answer in route.answers.values() if answer.type is not None)
    if route.body is not None:
        yield route.body


def _schema(wanted: Any) -> Json:
    (found,), _ = msgspec.json.schema_components([wanted], ref_template=_REFS)
    return dict(_plain(found))


def _plain(schema: Any) -> Any:
    """Shorten ``anyOf: [X, null]`` of simple types; tidy docstrings into one line."""
    if isinstance(schema, Mapping):
        return {name: _plain(value) for name, value in schema.items()}
    if isinstance(schema, list | tuple):
        return [_plain(value) for value in schema]
    return re.sub(r"\s+", " ", schema) if isinstance(schema, str) and "\n" in schema else schema


def _path_parameter(route: Route) -> list[Json]:
    return [] if route.path_parameter is None else [_parameter(route.path_parameter)]


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "description": parameter.about,
        "schema": _schema(parameter.type),
    }


def _query_parameters(route: Route) -> list[Json]:
    if route.query is None:
        return []
    (_,), schemas = msgspec.json.schema_components([route.query], ref_template=_REFS)
    schema = schemas[route.query.__name__]
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": _not_null(one)}
        for name, one in schema["properties"].items()
    ]


def _not_null(schema: Json) -> Json:
    """Drop the null of an optional parameter: in a query it can only be left out."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    outer = {name: value for name, value in schema.items() if name not in ("anyOf", "default") or value is not None}
    return outer if len(kinds) != 1 else {name: v for name, v in outer.items() if name != "anyOf"} | kinds[0]


def _answer(answer: Answer) -> Json:
    headers = {name: {"description": about, "schema": {"type": "string"}} for name, about in answer.headers.items()}
    found: Json = {"description": answer.about, "headers": headers | _REQUEST_ID}
    if answer.type is not None:
        found["content"] = {answer.media_type: {"schema": _schema(answer.type)}}
    if answer.links:
        same = {"id": "$response.body#/id"}
        found["links"] = {name: {"operationId": name, "parameters": same} for name in answer.links}
    return found


def _problems(kinds: Iterable[Kind]) -> Json:
    by_status: dict[int, list[Kind]] = defaultdict(list)
    for kind in sorted(set(kinds), key=lambda kind: (kind.status, kind.slug)):
        by_status[kind.status].append(kind)
    return {str(status): _problem(status, same) for status, same in by_status.items()}


def _problem(status: int, kinds: list[Kind]) -> Json:
    retry = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}} if status == 503 else {}
    return {
        "description": " ".join(f"{kind.title} (`{kind.uri}`)." for kind in kinds),
        "headers": _REQUEST_ID | retry,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
    }


_REQUEST_ID: Json = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_HEADERS: Json = {
    "X-Request-Id": {"description": "As sent, or made up; it stands in the logs.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
}
