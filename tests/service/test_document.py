"""The OpenAPI document, the page, the problems: they tell what the service does, and Schemathesis holds it to that."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import jsonschema_rs
import pytest

from service.app import Service
from service.problem import Kind
from tests.service.client import Api
from tests.service.fuzz import fuzz

EXAMPLES = 8  # per operation here; the full run is tests/service/fuzz.py with its defaults
SEED = 1


async def test_the_document_names_every_operation(api: Api, service: Service) -> None:
    document = (await api.get("/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert told == {(route.method, route.path) for route in service.routes.all}
    names = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


async def test_the_document_is_closed_and_its_schemas_are_valid(api: Api) -> None:
    document = (await api.get("/openapi.json")).json
    for reference in set(re.findall(r'"\$ref":\s*"([^"]+)"', json.dumps(document))):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


async def test_answers_fit_the_document(api: Api) -> None:
    document = (await api.get("/openapi.json")).json
    schema = {"$ref": "#/components/schemas/User", "components": document["components"]}
    user = await api.create(profile={"a": [None, {"b": "x"}]}, username="fit" + "0" * 20)
    jsonschema_rs.validate(schema, user)


async def test_every_problem_has_a_page_and_a_place_in_the_document(api: Api) -> None:
    document = (await api.get("/openapi.json")).content.decode()
    for kind in Kind:
        found = (await api.get(kind.uri)).json
        assert (found["type"], found["status"]) == (kind.uri, kind.status)
        assert f"(`{kind.uri}`)" in document or kind is Kind.METHOD_NOT_ALLOWED
    await api.problem("GET", "/problems/unheard-of", "bad-parameter")


async def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
    answer = await api.get("/docs")
    page = answer.content.decode()
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=['"](?:https?:)?//""", page)
    for name in ("createUser", "patchUser", "key-reused", "JsonValue"):
        assert name in page


@pytest.mark.parametrize("setup", ["full"], indirect=True)
async def test_schemathesis_finds_nothing(api: Api, service: Service, tmp_path: Path) -> None:
    status, said = await asyncio.to_thread(fuzz, api.base, SEED, EXAMPLES, tmp_path)
    assert status == 0, said
    worked = {entry.operation for entry in service.counts.durations() if 200 <= entry.status < 300}
    assert worked == {route.label for route in service.routes.all}
    assert not [entry for entry in service.counts.durations() if entry.status >= 500]
