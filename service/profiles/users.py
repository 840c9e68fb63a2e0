"""What can be done with users: each use case from its claim to its answer.

DESIGN. A change of a unique value has three steps (``shardlib.Unique``): claim it in the index, decide and write in one
transaction at the user's home, confirm. A process may die between any two of them: whoever meets what is left settles
it, so nothing here has to be undone to be right. Confirming and releasing only spare the next one a wait; they are done
after the answer, so that a write that was committed is never answered with an error.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

import msgspec

import shardlib
from service.afterwards import Afterwards
from service.problem import Flaw, Kind, Problem
from service.profiles import domain
from service.profiles.domain import Fields
from service.profiles.sql import SQL
from service.profiles.wire import Found, User, UserPatch, user
from shardlib import Claim, Cluster, Reader, Record, Shard, Transaction, Unique
from shardlib.errors import AnswerMismatch, ClaimLost, Overloaded, Taken

KEYSPACE = "users"
HELD: Mapping[str, str] = {"email": SQL["email_of"], "username": SQL["username_of"]}
MAX_ROUNDS = 10  # of one change that meets others of the same values, before it is called overload
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.02, 0.5  # between rounds, doubled each time, by full jitter
_FIRST = UUID(int=0)
_GET = SQL["get"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change:
    """A patch on its way, and the claims that were made for it: ``claimed`` are their values by kind."""

    user_id: UUID
    patch: UserPatch
    if_match: str | None
    claimed: Mapping[str, str]
    claims: list[Claim]


class Users:
    """All users, wherever they live."""

    def __init__(self, cluster: Cluster, unique: Unique, signing_key: bytes, afterwards: Afterwards) -> None:
        self._cluster = cluster
        self._unique = unique
        self._afterwards = afterwards
        self._signing_key = signing_key

    def home(self, user_id: UUID) -> Shard:
        """Return the home of a user."""
        return self._cluster.shard(user_id, keyspace=KEYSPACE)

    async def get(self, user_id: UUID, source: Shard | Reader) -> User | None:
        """Return a user as ``source`` (its home, or a replica of it) shows it."""
        row = await source.fetchrow(_GET, user_id)
        return None if row is None else user(row)

    async def find(self, email: str) -> User | None:
        """Return the user who has this e-mail, in whatever spelling."""
        owner = await self._unique.find("email", email)
        return await self.get(owner, self.home(owner)) if isinstance(owner, UUID) else None

    async def batch(self, ids: list[UUID]) -> Found:
        """Return the users with these ids: one query per node."""
        wanted = list(dict.fromkeys(ids))
        rows = await self._cluster.fetch_many(SQL["batch"], wanted, keyspace=KEYSPACE)
        found = {one.id: one for one in map(user, rows)}
        return Found([found[i] for i in wanted if i in found], [i for i in wanted if i not in found])

    async def page(self, after: UUID | None, limit: int) -> list[User]:
        """Return up to ``limit`` users after an id, in the order of ids, of all nodes."""
        start = _FIRST if after is None else after
        rows = self._cluster.scatter(SQL["page"], start, limit, keyspace=KEYSPACE, order_by=("id",), limit=limit)
        return [user(row) async for row in rows]

    async def create(self, fields: Fields, key: str | None) -> tuple[UUID, bytes]:
        """Create a user; return its id and its JSON.

        With an idempotency key, the answer of the first attempt that got through; Problem when that had another body.
        """
        return await _again_when_lost(lambda: self._create(fields, key))

    async def patch(self, user_id: UUID, patch: UserPatch, if_match: str | None) -> User | None:
        """Change a user; return it as it is now, or None if there is no such user."""
        return await _again_when_lost(lambda: self._patch(user_id, patch, if_match))

    async def delete(self, user_id: UUID, if_match: str | None) -> bool:
        """Forget a user and free its unique values; return whether there was one."""

        async def body(tx: Transaction) -> Fields | None:
            row = await tx.fetchrow(SQL["lock"], user_id)
            if row is None:
                return None
            domain.refuse_changed(if_match, row["version"])
            await tx.execute(SQL["delete"], user_id)
            return _fields(row)

        gone = await self.home(user_id).run(body)
        if gone is not None:
            self._release(user_id, _identifiers(gone))
        return gone is not None

    # -- steps ----------------------------------------------------------------------------------------------------

    async def _create(self, fields: Fields, key: str | None) -> tuple[UUID, bytes]:
        user_id = domain.new_id() if key is None else domain.repeated_id(self._signing_key, key)
        request = None if key is None else f"create:{key}"
        claims = await self._claim(user_id, _identifiers(fields), request)
        owner = claims[0].owner if claims and isinstance(claims[0].owner, UUID) else user_id

        async def body(tx: Transaction) -> bytes:
            for claim in claims:
                await self._unique.decide(tx, claim)
            return msgspec.json.encode(user((await tx.fetch(SQL["insert"], owner, *_columns(fields)))[0]))

        try:
            answer = await self.home(owner).run(body, request_id=request, fingerprint=domain.fingerprint(fields))
        except AnswerMismatch:
            self._release(owner, _identifiers(fields))
            raise Problem(Kind.KEY_REUSED, "this Idempotency-Key was sent with another body before") from None
        except shardlib.UniqueViolation:  # the answer was forgotten since
            raise Problem(Kind.KEY_REUSED, "this Idempotency-Key was used too long ago to be repeated") from None
        self._confirm(claims)
        return owner, answer

    async def _patch(self, user_id: UUID, patch: UserPatch, if_match: str | None) -> User | None:
        row = await self.home(user_id).fetchrow(_GET, user_id)
        if row is None:
            return None
        domain.refuse_changed(if_match, row["version"])
        before = _identifiers(_fields(row))
        wanted = _identifiers(domain.patched(_fields(row), patch))
        changed = {kind: value for kind, value in wanted.items() if before.get(kind) != value}
        claims = await self._claim(user_id, changed, None)

        async def body(tx: Transaction) -> Record | None:
            return await self._apply(tx, Change(user_id, patch, if_match, changed, claims))

        after = await self.home(user_id).run(body)
        self._confirm(claims)
        self._release(user_id, {kind: value for kind, value in before.items() if wanted.get(kind) != value})
        return None if after is None else user(after)

    async def _apply(self, tx: Transaction, change: Change) -> Record | None:
        """Write a change at the user's home; ClaimLost when the row now needs a claim that nobody made."""
        row = await tx.fetchrow(SQL["lock"], change.user_id)
        if row is None:
            return None
        domain.refuse_changed(change.if_match, row["version"])
        now = _fields(row)
        then = domain.patched(now, change.patch)
        has = _identifiers(now)
        if any(value not in (has.get(kind), change.claimed.get(kind)) for kind, value in _identifiers(then).items()):
            raise ClaimLost("the user was changed meanwhile")
        for claim in change.claims:
            await self._unique.decide(tx, claim)
        return row if then == now else await tx.fetchrow(SQL["update"], change.user_id, *_columns(then))

    async def _claim(self, user_id: UUID, values: Mapping[str, str], request: str | None) -> list[Claim]:
        """Claim values one after the other; Problem when somebody else has one."""
        claims: list[Claim] = []
        for kind, value in values.items():
            owner = claims[0].owner if claims else user_id
            try:
                claims.append(await self._unique.claim(kind, value, owner, request_id=request))
            except Taken:
                self._release(user_id, {mine: values[mine] for mine in list(values)[: len(claims)]})
                flaw = Flaw(f"this {kind} belongs to another user", pointer=f"/{kind}")
                raise Problem(Kind.CONFLICT, flaw.detail, (flaw,)) from None
        return claims

    def _confirm(self, claims: Iterable[Claim]) -> None:
        """Mark decided claims in the index."""
        for claim in claims:
            self._afterwards.do(partial(self._unique.confirm, claim))

    def _release(self, user_id: UUID, values: Mapping[str, str]) -> None:
        """Free values that the user's row doesn't carry (any more); what it carries stays."""
        for kind, value in values.items():
            self._afterwards.do(partial(self._release_one, user_id, kind, value))

    async def _release_one(self, user_id: UUID, kind: str, value: str) -> None:
        for entry in await self._unique.entries(kind, value):
            if entry.owner == user_id:
                await self._unique.release(kind, value, entry.token)


async def _again_when_lost(step: Callable[[], Awaitable[T]]) -> T:
    """Repeat a step while others take its claims over, after a pause by chance: attempts in step would never end."""
    for attempt in range(MAX_ROUNDS):
        try:
            return await step()
        except ClaimLost:
            await asyncio.sleep(random.random() * min(MAX_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt))
    raise Overloaded("too many changes of the same user at a time")


def _identifiers(fields: Fields) -> dict[str, str]:
    pairs = {"email": fields.email, "username": fields.username}
    return {kind: value for kind, value in pairs.items() if value is not None}


def _fields(row: Record) -> Fields:
    return Fields(row["email"], row["name"], row["username"], json.loads(row["profile"]), row["locale"], row["status"])


def _columns(fields: Fields) -> tuple[str | None, ...]:
    profile = domain.profile_text(fields.profile)
    return fields.email, fields.name, fields.username, profile, fields.locale, fields.status
