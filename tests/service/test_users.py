"""Users over HTTP, as the reference says."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from tests.service.client import Api, an_email

FIELDS = ["id", "email", "name", "username", "profile", "locale", "status", "version", "created_at", "updated_at"]


async def test_a_created_user_can_be_read(api: Api) -> None:
    email = an_email()
    sent = {"email": email, "name": "Ada", "username": f"ada.{email.split('@')[0]}", "profile": {"a": [1, None, "x"]},
            "locale": "en-GB"}  # fmt: skip
    answer = await api.call("POST", "/v1/users", body=sent)
    assert answer.status == 201
    user = answer.json
    assert list(user) == FIELDS
    assert user | sent == user
    assert (user["status"], user["version"]) == ("active", 1)
    assert UUID(user["id"]).version == 7
    assert answer.headers["Location"] == f"/v1/users/{user['id']}"
    assert answer.headers["ETag"] == '"1"'
    for name in ("created_at", "updated_at"):
        assert user[name].endswith("Z")
        assert abs((datetime.now(UTC) - datetime.fromisoformat(user[name])).total_seconds()) < 60
    again = await api.get(answer.headers["Location"])
    assert (again.status, again.json, again.headers["ETag"]) == (200, user, '"1"')


async def test_the_least_user_has_only_an_email(api: Api) -> None:
    user = await api.create()
    assert [user[name] for name in ("name", "username", "profile", "locale")] == [None, None, {}, None]


async def test_nobody_is_not_found(api: Api) -> None:
    path = f"/v1/users/{uuid4()}"
    await api.problem("GET", path, "not-found")
    await api.problem("DELETE", path, "not-found")
    await api.problem("PATCH", path, "not-found", body={"name": "x"})
    await api.problem("POST", "/v1/users/lookup", "not-found", body={"email": an_email()})


async def test_a_reader_who_has_it_gets_nothing(api: Api) -> None:
    user = await api.create()
    path = f"/v1/users/{user['id']}"
    for tags in ('"1"', 'W/"1"', '"7", "1"', "*"):
        answer = await api.get(path, if_none_match=tags)
        assert (answer.status, answer.content, answer.headers["ETag"]) == (304, b"", '"1"')
    assert (await api.get(path, if_none_match='"2"')).status == 200
    await api.problem("GET", path, "bad-parameter", if_none_match="1")


async def test_head_is_get_without_a_body(api: Api) -> None:
    user = await api.create()
    get = await api.get(f"/v1/users/{user['id']}")
    head = await api.call("HEAD", f"/v1/users/{user['id']}")
    assert (head.status, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(get.content))


async def test_a_merge_patch_changes_what_it_names(api: Api) -> None:
    user = await api.create(name="Ada", profile={"a": {"b": 1, "c": 2}, "d": [1]}, locale="en")
    path = f"/v1/users/{user['id']}"
    patch = {"name": None, "profile": {"a": {"b": None, "e": 5}, "d": {"f": None}, "g": None}}
    answer = await api.call("PATCH", path, body=patch)
    assert answer.status == 200
    changed = answer.json
    assert changed["profile"] == {"a": {"c": 2, "e": 5}, "d": {}}
    assert (changed["name"], changed["locale"], changed["version"]) == (None, "en", 2)
    assert answer.headers["ETag"] == '"2"'
    assert changed["updated_at"] > user["updated_at"]
    assert changed["created_at"] == user["created_at"]
    assert (await api.get(path)).json == changed


async def test_a_patch_without_effect_keeps_the_version(api: Api) -> None:
    user = await api.create(name="Ada")
    answer = await api.call("PATCH", f"/v1/users/{user['id']}", body={"name": "Ada"})
    assert answer.json == user


@pytest.mark.parametrize("patch", [{"email": None}, {"status": None}, {"version": 5}, {"id": "x"}, [], "x", None])
async def test_what_cannot_be_patched_is_refused(api: Api, patch: object) -> None:
    user = await api.create()
    raw = None if patch is not None else b"null"
    headers = {"Content-Type": "application/merge-patch+json"}
    await api.problem("PATCH", f"/v1/users/{user['id']}", "invalid", body=patch, raw=raw, **headers)
    assert (await api.get(f"/v1/users/{user['id']}")).json == user


async def test_a_change_may_be_conditional(api: Api) -> None:
    user = await api.create()
    path = f"/v1/users/{user['id']}"
    assert (await api.call("PATCH", path, body={"name": "x"}, if_match='"1"')).status == 200
    refused = await api.call("PATCH", path, body={"name": "y"}, if_match='"1"')
    assert (refused.status, refused.headers["ETag"]) == (412, '"2"')
    await api.problem("PATCH", path, "precondition-failed", body={"name": "y"}, if_match='W/"2"')
    await api.problem("DELETE", path, "precondition-failed", if_match='"1"')
    await api.problem("DELETE", path, "bad-parameter", if_match="x")
    assert (await api.call("DELETE", path, if_match='"2"')).status == 204


async def test_two_conditional_changes_at_a_time_are_one(api: Api) -> None:
    user = await api.create()
    path = f"/v1/users/{user['id']}"
    changes = [api.call("PATCH", path, body={"name": f"n{i}"}, if_match='"1"') for i in range(8)]
    statuses = [answer.status for answer in await asyncio.gather(*changes)]
    assert sorted(statuses) == [200, *[412] * 7]


async def test_a_deleted_user_is_gone_and_frees_its_names(api: Api) -> None:
    user = await api.create(username="gone" + uuid4().hex[:8])
    path = f"/v1/users/{user['id']}"
    answer = await api.call("DELETE", path)
    assert (answer.status, answer.content) == (204, b"")
    await api.problem("GET", path, "not-found")
    await api.problem("POST", "/v1/users/lookup", "not-found", body={"email": user["email"]})
    again = await api.create(email=user["email"], username=user["username"])
    assert again["id"] != user["id"]


async def test_lookup_finds_any_spelling(api: Api) -> None:
    user = await api.create(email=f"  Jörg.{uuid4().hex[:8]}@Bücher.Example ")
    assert user["email"] == user["email"].strip()
    for spelling in (user["email"].upper(), user["email"].replace("Bücher", "xn--bcher-kva")):
        found = await api.call("POST", "/v1/users/lookup", body={"email": spelling})
        assert (found.status, found.json) == (200, user)


async def test_email_and_username_are_unique_everywhere(api: Api) -> None:
    user = await api.create(username="one" + uuid4().hex[:8])
    problem = await api.problem("POST", "/v1/users", "conflict", body={"email": user["email"].upper()})
    assert [flaw["pointer"] for flaw in problem["errors"]] == ["/email"]
    email = an_email()
    taken = {"email": email, "username": user["username"].upper()}
    problem = await api.problem("POST", "/v1/users", "conflict", body=taken)
    assert [flaw["pointer"] for flaw in problem["errors"]] == ["/username"]
    await api.create(email=email)  # what was refused holds nothing


async def test_many_who_want_one_email_are_one(api: Api) -> None:
    email = an_email()
    answers = await asyncio.gather(*(api.call("POST", "/v1/users", body={"email": email}) for _ in range(12)))
    assert sorted(answer.status for answer in answers) == [201, *[409] * 11]
    winner = next(answer.json for answer in answers if answer.status == 201)
    assert (await api.call("POST", "/v1/users/lookup", body={"email": email})).json == winner


async def test_a_new_email_replaces_the_old_one(api: Api) -> None:
    user, other = await api.create(), await api.create()
    path = f"/v1/users/{user['id']}"
    await api.problem("PATCH", path, "conflict", body={"email": other["email"]})
    old, new = user["email"], an_email()
    assert (await api.call("PATCH", path, body={"email": new, "username": "u" + uuid4().hex})).status == 200
    await api.problem("POST", "/v1/users/lookup", "not-found", body={"email": old})
    assert (await api.call("POST", "/v1/users/lookup", body={"email": new})).json["id"] == user["id"]
    await api.create(email=old)


async def test_back_and_forth_keeps_the_email(api: Api) -> None:
    user = await api.create()
    path, first, second = f"/v1/users/{user['id']}", user["email"], an_email()
    for email in (second, first, second, first):
        assert (await api.call("PATCH", path, body={"email": email})).status == 200
    await api.problem("POST", "/v1/users", "conflict", body={"email": first})
    await api.create(email=second)


async def test_changes_of_one_users_email_at_a_time_leave_one(api: Api) -> None:
    user = await api.create()
    path = f"/v1/users/{user['id']}"
    emails = [an_email() for _ in range(6)]
    answers = await asyncio.gather(*(api.call("PATCH", path, body={"email": email}) for email in emails))
    assert {answer.status for answer in answers} <= {200, 503}
    final = (await api.get(path)).json["email"]
    assert final in emails
    for email in {*emails, user["email"]} - {final}:
        await api.create(email=email)
    await api.problem("POST", "/v1/users", "conflict", body={"email": final})


async def test_a_batch_keeps_the_order_and_names_the_missing(api: Api) -> None:
    users = [await api.create() for _ in range(7)]
    nobody = str(uuid4())
    ids = [users[4]["id"], nobody, *(user["id"] for user in users), users[0]["id"].upper()]
    answer = await api.call("POST", "/v1/users/batch-get", body={"ids": ids})
    order = [4, 0, 1, 2, 3, 5, 6]
    assert answer.json == {"users": [users[i] for i in order], "missing": [nobody]}
    for wrong in ([], [nobody] * 101, ["x"], [1]):
        await api.problem("POST", "/v1/users/batch-get", "invalid", body={"ids": wrong})


async def test_pages_show_everybody_once_in_order(api: Api) -> None:
    mine = {(await api.create())["id"] for _ in range(12)}
    seen: list[str] = []
    path = "/v1/users?limit=5"
    while path:
        answer = await api.get(path)
        page = answer.json
        assert len(page["users"]) == 5 or page["next"] is None
        seen += [user["id"] for user in page["users"]]
        link = re.fullmatch(r'<(?P<path>[^>]+)>; rel="next"', answer.headers.get("Link", ""))
        assert (link is None) == (page["next"] is None)
        path = link["path"] if link else ""
    assert seen == sorted(set(seen))
    assert mine <= set(seen)


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=1&limit=2", "cursor=abc", "cursor=" + "A" * 38, "cursor=%ff", "page=2"],
)
async def test_a_bad_page_is_refused(api: Api, query: str) -> None:
    problem = await api.problem("GET", f"/v1/users?{query}", "bad-parameter")
    assert problem["errors"][0]["parameter"]


async def test_a_cursor_of_somebody_else_is_refused(api: Api) -> None:
    for _ in range(2):
        await api.create()
    cursor = (await api.get("/v1/users?limit=1")).json["next"]
    forged = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    await api.problem("GET", f"/v1/users?cursor={forged}", "bad-parameter")
