"""Requests that come again, and reads that must see what was written."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from tests.service.client import Api, an_email


async def test_a_repeated_create_gets_the_first_answer(api: Api) -> None:
    key, body = uuid4().hex, {"email": an_email(), "username": "r" + uuid4().hex, "profile": {"b": 1, "a": 2}}
    first = await api.call("POST", "/v1/users", body=body, Idempotency_Key=key)
    assert first.status == 201
    assert UUID(first.json["id"]).version == 8
    reordered = dict(reversed(body.items()))
    for spelling in (key, f'"{key}"'):
        again = await api.call("POST", "/v1/users", body=reordered, Idempotency_Key=spelling)
        assert (again.status, again.content) == (201, first.content)
        assert again.headers["Location"] == first.headers["Location"]


async def test_the_first_answer_stands_after_a_change(api: Api) -> None:
    key, body = uuid4().hex, {"email": an_email(), "name": "first"}
    first = await api.call("POST", "/v1/users", body=body, Idempotency_Key=key)
    await api.call("PATCH", first.headers["Location"], body={"name": "second"})
    again = await api.call("POST", "/v1/users", body=body, Idempotency_Key=key)
    assert again.content == first.content
    assert (await api.get(first.headers["Location"])).json["name"] == "second"


async def test_a_key_with_another_body_is_refused_and_holds_nothing(api: Api) -> None:
    key, email, other = uuid4().hex, an_email(), an_email()
    await api.call("POST", "/v1/users", body={"email": email}, Idempotency_Key=key)
    for body in ({"email": email, "name": "x"}, {"email": other}):
        await api.problem("POST", "/v1/users", "key-reused", body=body, Idempotency_Key=key)
    await api.create(email=other)
    await api.problem("POST", "/v1/users", "conflict", body={"email": email})


async def test_many_attempts_at_a_time_make_one_user(api: Api) -> None:
    key, body = uuid4().hex, {"email": an_email(), "username": "m" + uuid4().hex}
    attempts = [api.call("POST", "/v1/users", body=body, Idempotency_Key=key) for _ in range(10)]
    answers = await asyncio.gather(*attempts)
    created = {answer.content for answer in answers if answer.status == 201}
    assert len(created) == 1
    assert {answer.status for answer in answers} <= {201, 503}
    again = await api.call("POST", "/v1/users", body=body, Idempotency_Key=key)
    assert (again.status, {again.content}) == (201, created)


async def test_a_token_comes_only_to_those_who_ask(api: Api) -> None:
    answer = await api.call("POST", "/v1/users", body={"email": an_email()})
    assert "Consistency-Token" not in answer.headers
    asked = await api.call("PATCH", answer.headers["Location"], body={"name": "x"}, Prefer="consistency-token")
    assert asked.headers["Preference-Applied"] == "consistency-token"
    token = asked.headers["Consistency-Token"]
    assert (await api.get(answer.headers["Location"], Consistency_Token=token)).json == asked.json


async def test_a_read_with_a_token_always_sees_the_write(api: Api) -> None:
    user = await api.create()
    path = f"/v1/users/{user['id']}"
    for version in range(2, 40):
        written = await api.call("PATCH", path, body={"name": f"n{version}"}, Prefer="consistency-token")
        read = await api.get(path, Consistency_Token=written.headers["Consistency-Token"])
        assert read.json["version"] == version


async def test_a_read_may_be_content_with_a_replica(api: Api) -> None:
    user = await api.create()
    path = f"/v1/users/{user['id']}"
    answer = await api.get(path, Max_Lag="0")
    assert answer.json == user
    answer = await api.get(path, Max_Lag="3600")
    assert answer.status in {200, 404}  # a replica may not have it yet: that is what was asked for
