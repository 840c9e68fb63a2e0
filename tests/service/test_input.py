"""What comes in broken, odd or hostile: refused with words that help, or kept byte for byte."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from bench.people.hostile import HOSTILE, LONG_TEXTS
from service.body import MAX_BODY_BYTES, MAX_DEPTH
from tests.service.client import Api, an_email

JSON = {"Content-Type": "application/json"}


def _nested(levels: int) -> bytes:
    return b'{"email": "a@b.c", "profile": ' + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


@pytest.mark.parametrize(
    "raw, kind, words",
    [
        (b"", "bad-json", "line 1"),
        (b"{", "bad-json", "line 1, column 2"),
        (b'{"email": "a@b.c",}', "bad-json", "line 1"),
        (b'{"email": "a@b.c"} x', "bad-json", "Extra data"),
        (b'{"email": "\xff@b.c"}', "bad-json", "byte 11"),
        (b'\xef\xbb\xbf{"email": "a@b.c"}', "bad-json", "BOM"),
        ('{"email": "a@b.c"}'.encode("utf-16"), "bad-json", "UTF-8"),
        (b'{"email": "a@b.c", "email": "d@e.f"}', "bad-json", "twice"),
        (b'{"email": "a@b.c", "profile": {"x": {"y": 1, "y": 2}}}', "bad-json", "twice"),
        (b'{"email": "a@b.c", "profile": {"x": NaN}}', "bad-json", "NaN"),
        (b'{"email": "a@b.c", "profile": {"x": -Infinity}}', "bad-json", "-Infinity"),
        (b'{"email": "a@b.c", "profile": {"x": 1e999}}', "bad-json", "too large"),
        (b'{"email": "a@b.c", "profile": {"x": ' + b"1" * 5000 + b"}}", "bad-json", "digits"),
        (b'{"email": "a@b.c", "name": "a\nb"}', "bad-json", "control character"),
        (b"[" * 60_000, "bad-json", "nesting"),
        (_nested(MAX_DEPTH + 1), "invalid", "nesting"),
        (b"{}", "invalid", "email"),
        (b"[]", "invalid", "object"),
        (b'"x"', "invalid", "object"),
    ],
)
async def test_a_broken_body_is_refused_with_words(api: Api, raw: bytes, kind: str, words: str) -> None:
    problem = await api.problem("POST", "/v1/users", kind, raw=raw, **JSON)
    assert words in json.dumps(problem, ensure_ascii=False)


@pytest.mark.parametrize(
    "fields, pointer",
    [
        ({"email": 5}, "/email"),
        ({"email": None}, "/email"),
        ({"email": "no at sign"}, "/email"),
        ({"email": "a@b@c"}, "/email"),
        ({"email": "a b@c.d"}, "/email"),
        ({"email": "a@b..c"}, "/email"),
        ({"email": "a@exa mple.com"}, "/email"),
        ({"email": "@b.c"}, "/email"),
        ({"email": "a\n@b.c"}, "/email"),
        ({"email": "a@b.c" + "c" * 300}, "/email"),
        ({"email": "a\u0000@b.c"}, "/email"),
        ({"name": "x" * 201}, "/name"),
        ({"name": "a\u0000b"}, "/name"),
        ({"name": "a\ud800b"}, "/name"),
        ({"name": ["x"]}, "/name"),
        ({"username": "a b"}, "/username"),
        ({"username": "a\n"}, "/username"),
        ({"username": ""}, "/username"),
        ({"locale": "english!"}, "/locale"),
        ({"locale": "en\n"}, "/locale"),
        ({"status": "god"}, "/status"),
        ({"is_admin": True}, "/is_admin"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"id": str(uuid4())}, "/id"),
        ({"profile": []}, "/profile"),
        ({"profile": "x"}, "/profile"),
        ({"profile": {"deep": [{"a\u0000": 1}]}}, "/profile/deep/0"),
        ({"profile": {"deep": [0, {"a": "\udfff"}]}}, "/profile/deep/1/a"),
        ({"profile": {"x": "y" * 17_000}}, "/profile"),
    ],
)
async def test_a_wrong_field_is_pointed_at(api: Api, fields: dict[str, Any], pointer: str) -> None:
    problem = await api.problem("POST", "/v1/users", "invalid", body={"email": an_email(), **fields})
    assert [flaw["pointer"] for flaw in problem["errors"]] == [pointer]


async def test_hostile_text_comes_back_byte_for_byte(api: Api) -> None:
    for text in HOSTILE:
        profile = {"text": text, text: [text, {"deep": text}], "long": LONG_TEXTS[0]}
        user = await api.create(name=text, profile=profile)
        found = (await api.get(f"/v1/users/{user['id']}")).json
        assert (found["name"], found["profile"]) == (text, profile)
        patched = await api.call("PATCH", f"/v1/users/{user['id']}", body={"profile": {"more": text}})
        assert patched.json["profile"] == {**profile, "more": text}


async def test_numbers_of_any_size_survive(api: Api) -> None:
    profile = {"big": 10**400, "small": -(2**63), "fraction": 0.1, "tiny": 1e-300, "whole": 3.0}
    user = await api.create(profile=profile)
    assert user["profile"] == profile
    patched = await api.call("PATCH", f"/v1/users/{user['id']}", body={"profile": {"new": 1}})
    assert patched.json["profile"] == {**profile, "new": 1}


@pytest.mark.parametrize("user_id", ["x", "1", "%00", "%ff", "%F0%9F%A6%86", "a" * 4000, "' OR 1=1--", "{}"])
async def test_a_bad_id_is_a_bad_parameter(api: Api, user_id: str) -> None:
    path = f"/v1/users/{user_id}".replace(" ", "%20")
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"name": "x"})):
        problem = await api.problem(method, path, "bad-parameter", body=body)
        assert problem["errors"][0]["parameter"] == "id"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/users/", "/v2/users", "/v1/users/a/b", "//", "/v1/../x", "/%"])
async def test_an_unknown_path_is_not_found(api: Api, path: str) -> None:
    await api.problem("GET", path, "not-found")


@pytest.mark.parametrize(
    "method, path, allowed",
    [
        ("PUT", "/v1/users", "GET, HEAD, POST"),
        ("DELETE", "/v1/users", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/users", "GET, HEAD, POST"),
        ("POST", f"/v1/users/{uuid4()}", "GET, HEAD, PATCH, DELETE"),
        ("GET", "/v1/users/lookup", "POST"),
        ("TRACE", "/openapi.json", "GET, HEAD"),
        ("PROPFIND", "/docs", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_says_which_are_right(api: Api, method: str, path: str, allowed: str) -> None:
    await api.problem(method, path, "method-not-allowed")
    assert {*api.transcript[-1].headers["Allow"].split(", ")} == {*allowed.split(", ")}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/merge-patch+json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_other_content_types_are_refused(api: Api, headers: dict[str, str]) -> None:
    await api.problem("POST", "/v1/users", "unsupported-media-type", raw=b'{"email": "a@b.c"}', **headers)
    user = {"Content-Type": "application/json"}
    await api.problem("PATCH", f"/v1/users/{uuid4()}", "unsupported-media-type", raw=b"{}", **user)
    assert api.transcript[-1].headers["Accept-Patch"] == "application/merge-patch+json"


async def test_a_content_type_may_name_its_charset(api: Api) -> None:
    raw = json.dumps({"email": an_email()}).encode()
    answer = await api.call("POST", "/v1/users", raw=raw, Content_Type="Application/JSON; charset=utf-8")
    assert answer.status == 201


async def test_an_oversize_body_is_refused_unread(api: Api) -> None:
    await api.problem("POST", "/v1/users", "too-large", raw=b" " * (MAX_BODY_BYTES + 1), **JSON)
    padded = json.dumps({"email": an_email()}).encode().ljust(MAX_BODY_BYTES)
    assert (await api.call("POST", "/v1/users", raw=padded, **JSON)).status == 201


async def test_a_query_that_nobody_asked_for_is_refused(api: Api) -> None:
    await api.problem("GET", f"/v1/users/{uuid4()}?x=1", "bad-parameter")
    await api.problem("POST", "/v1/users?dry=1", "bad-parameter", body={"email": an_email()})


@pytest.mark.parametrize(
    "name, value",
    [
        ("Consistency-Token", "!"),
        ("Consistency-Token", "AAAA"),
        ("Consistency-Token", "A" * 1000),
        ("Max-Lag", "soon"),
        ("Max-Lag", "-1"),
        ("Max-Lag", "nan"),
        ("If-None-Match", '"1'),
    ],
)
async def test_a_bad_header_is_refused(api: Api, name: str, value: str) -> None:
    user = await api.create()
    answer = await api.get(f"/v1/users/{user['id']}", **{name: value})
    assert answer.status == 400


@pytest.mark.parametrize("key", ["", "a b", "x" * 201, "é", '""'])
async def test_a_bad_idempotency_key_is_refused(api: Api, key: str) -> None:
    problem = await api.problem("POST", "/v1/users", "bad-parameter", body={"email": an_email()}, Idempotency_Key=key)
    assert problem["errors"][0]["parameter"] == "Idempotency-Key"


async def _raw(api: Api, data: bytes) -> bytes:
    port = int(api.base.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_a_problem_and_the_door(api: Api, data: bytes) -> None:
    answer = await _raw(api, data)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    problem = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert problem["type"] == "/problems/bad-request"


async def test_a_client_that_waits_to_be_told_is_told(api: Api) -> None:
    body = json.dumps({"email": an_email()}).encode()
    port = int(api.base.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.read()).startswith(b"HTTP/1.1 201 Created\r\n")
    writer.close()


async def test_old_and_parting_clients_are_understood(api: Api) -> None:
    user = await api.create()
    for version, header, kept in (("1.0", "", b"close"), ("1.1", "Connection: close\r\n", b"close")):
        request = f"GET /v1/users/{user['id']} HTTP/{version}\r\nHost: a\r\n{header}\r\n"
        answer = await _raw(api, request.encode())
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"\r\nConnection: " + kept in answer


async def test_a_request_id_is_kept_and_a_bad_one_replaced(api: Api) -> None:
    path = f"/v1/users/{uuid4()}"
    assert (await api.get(path, X_Request_Id="abc-123")).headers["X-Request-Id"] == "abc-123"
    assert (await api.get(path, X_Request_Id="a b")).headers["X-Request-Id"] != "a b"
