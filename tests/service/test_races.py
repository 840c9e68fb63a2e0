"""Interleavings that would give two users one e-mail, forced at the moment where they hurt."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from shardlib import Claim, Unique
from tests.service.client import Api, an_email

pytestmark = pytest.mark.parametrize("setup", ["full"], indirect=True)
Claiming = Any


def _after_first_claim(monkeypatch: pytest.MonkeyPatch, act: Any) -> None:
    """Let ``act(claim, arguments)`` happen between the first claim from now on and what follows it."""
    claim_really: Claiming = Unique.claim
    pending = [act]

    async def claim(self: Unique, kind: str, value: str, owner: UUID, **options: Any) -> Claim:
        made: Claim = await claim_really(self, kind, value, owner, **options)
        if pending:
            await pending.pop()(self, kind, value)
        return made

    monkeypatch.setattr(Unique, "claim", claim)


async def test_a_create_whose_claim_was_taken_over_claims_again(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    email = an_email()

    async def take_over(unique: Unique, kind: str, value: str) -> None:
        await unique.claim(kind, value, uuid4())  # and dies before it decides

    _after_first_claim(monkeypatch, take_over)
    user = await api.create(email=email)
    found = await api.call("POST", "/v1/users/lookup", body={"email": email})
    assert (found.status, found.json) == (200, user)
    await api.problem("POST", "/v1/users", "conflict", body={"email": email})


async def test_a_patch_that_meets_a_change_of_email_keeps_it_unique(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch repeats the user's e-mail, so it claims none; meanwhile the user leaves it to somebody else."""
    user = await api.create()
    path, first, second = f"/v1/users/{user['id']}", user["email"], an_email()
    others: list[dict[str, Any]] = []

    async def leave_it_to_another(_unique: Unique, _kind: str, _value: str) -> None:
        assert (await api.call("PATCH", path, body={"email": second})).status == 200
        others.append(await api.create(email=first))

    _after_first_claim(monkeypatch, leave_it_to_another)
    patch = {"email": first, "username": "u" + uuid4().hex}  # the username's claim opens the window
    await api.problem("PATCH", path, "conflict", body=patch)
    assert (await api.get(path)).json["email"] == second
    (other,) = others
    assert (await api.call("POST", "/v1/users/lookup", body={"email": first})).json == other
