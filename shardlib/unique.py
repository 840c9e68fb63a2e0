"""Unique values across all nodes: who holds this e-mail, decided by one row on one node.

A value is claimed in three steps::

    claim = await unique.claim("email", email, user_id)            # 1. pending, in the index (the value's home)
    async with cluster.shard(claim.owner).transaction() as tx:     # 2. at the owner's home, in one transaction:
        await unique.decide(tx, claim)                             #    the claim's decision ...
        await tx.execute("INSERT INTO users ...")                  #    ... and the row that carries the value
    await unique.confirm(claim)                                    # 3. committed, in the index

DESIGN. *The row that carries the value says who holds it; the index only says whom to ask.* What could still make that
row carry it is an undecided claim, so whoever meets a claim settles it first: he inserts "abort" under its token at its
owner's home and reads what stands there. One unique key on one node decides; the insert waits for a twin in flight, so
no clock, lock or time limit matters. Then, in a later statement, he looks at the owner's row. Invariant: of all tokens
ever written for a value, only the one that stands in the index may be undecided, for replacing and removing name a
settled token (compare-and-set). A token decides once; a second "commit" is refused. Each process may stop anywhere:
what it leaves is settled by whoever comes next, or by ``sweep``.

What doesn't work on Postgres: to look up, then lock the owner's row (a reader doesn't wait for an uncommitted insert),
and a reservation with a time limit (its holder may sleep past it and write).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from shardlib import sql
from shardlib.core.identifiers import Identifier, hide, token_at
from shardlib.core.keys import hash_named
from shardlib.errors import (
    ClaimLost,
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
    Rejected,
    Retryable,
    Taken,
    UnknownName,
)
from shardlib.scatter import Partial

if TYPE_CHECKING:
    from shardlib.cluster import Cluster, Shard
    from shardlib.transactions import Transaction

Owner = int | UUID | str
T = TypeVar("T")

MAX_ROUNDS = 20  # takeovers of one value that a claim loses before it gives up
PATIENCE_SECONDS = 0.25  # how long a claim in flight is left alone before it is settled by force: manners, not safety
POLL_SECONDS = 0.05
MAX_TRIES = 4  # of one idempotent step whose answer was lost

_SQL = sql.load("claims")
_OWNERS: Mapping[type, Callable[[str], Owner]] = {int: int, UUID: UUID, str: str}


@dataclass(frozen=True, slots=True)
class Claim:
    """A value that ``owner`` may make its own by ``Unique.decide``, unless somebody is faster."""

    identifier: Identifier
    owner: Owner
    token: UUID


@dataclass(frozen=True, slots=True)
class Entry:
    """What the index says of a value: whom to ask, not who holds it."""

    identifier: Identifier
    owner: Owner
    token: UUID
    committed: bool
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did to claims that nobody finished; ``left`` are those whose nodes couldn't be reached."""

    confirmed: int
    freed: int
    left: int = 0


class Unique:
    """The index of unique values of one keyspace of owners.

    ``held`` names the kinds of values and says where the truth is: a statement that is run at the owner's home with the
    owner as ``$1``, and gives in its first column the values of that kind that the owner has now, for example
    ``{"email": "SELECT email FROM users WHERE id = $1"}``. ``keys`` are the HMAC keys by id; values are claimed under
    ``current`` and found under any, so a new key is first added everywhere, then made current. The tables are attached
    to keyspace ``keyspace`` (str keys), the owners' rows live in keyspace ``home``.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        held: Mapping[str, str],
        keys: Mapping[int, bytes],
        current: int,
        keyspace: str = "identifiers",
        home: str = "users",
    ) -> None:
        if current not in keys:
            raise UnknownName(f"no HMAC key {current}; there are: {sorted(keys)}")
        self._cluster = cluster
        self._held = dict(held)
        self._keys = {current: keys[current], **keys}  # the current one comes first
        self._keyspace = keyspace
        self._home_keyspace = home

    async def claim(self, kind: str, value: str, owner: Owner, *, request_id: str | UUID | None = None) -> Claim:
        """Claim a value for an owner; what the claim needs next is ``decide``.

        With a ``request_id`` a repeated create meets its own claim: the owner that comes back is then the one that the
        first attempt chose, so go on with ``claim.owner``. Whoever knows a request id is trusted to be its author.
        Raises Taken when another owner has the value, Overloaded when too many want it at once.
        """
        self._home(owner)  # a key of the wrong type is said before anything is written
        request = None if request_id is None else str(request_id)
        identifier, *others = self._identifiers(kind, value)
        claim = await self._win(identifier, owner, request)
        for other in others:
            await self._yield_to(other, claim)
        return claim

    async def decide(self, tx: Transaction, claim: Claim) -> None:
        """Decide for a claim, in the transaction at the owner's home that makes its row carry the value.

        Raises ClaimLost when a contender was faster, when the claim was decided before, or when it is older than a day
        by the home's clock: leave the transaction and claim again. Raises Rejected in a transaction elsewhere.
        """
        decision = self._decision(claim.owner, claim.token)
        if not tx.is_home_of(*decision[:2]):
            raise Rejected("decide at the home of the claim's owner: cluster.shard(claim.owner).transaction()")
        if await tx.fetchval(_SQL["commit"], *decision) is not None:
            return
        outcome = await tx.fetchval(_SQL["outcome"], *decision)
        reasons = {"abort": "was taken over", "commit": "was decided before", None: "is older than a day"}
        raise ClaimLost(f"the claim of this {claim.identifier.kind} {reasons[outcome]}")

    async def confirm(self, claim: Claim) -> None:
        """Mark a decided claim in the index. It is safe to leave this out: whoever comes next does it."""
        await self._confirm(claim.identifier, claim.token)

    async def release(self, kind: str, value: str, token: UUID) -> None:
        """Free a value that its owner's row no longer carries, or a claim that won't be decided.

        Names the token of the claim, so that a late release can't free what was claimed again in the meantime; a value
        that the owner's row still carries stays.
        """
        for identifier in self._identifiers(kind, value):
            entry = await self._entry(identifier)
            if entry is not None and entry.token == token:
                await self._resolve(entry)

    async def find(self, kind: str, value: str) -> Owner | None:
        """Return who holds a value now, or None; the index and the owner's row agree on it."""
        for entry in await self.entries(kind, value):
            if await self._holds(entry):
                return entry.owner
        return None

    async def entries(self, kind: str, value: str) -> tuple[Entry, ...]:
        """Return what the index says of a value, one entry for each HMAC key under which there is one.

        For a caller who reads the owner's row anyway: he spares a read, and checks that the row carries the value.
        """
        found = [await self._entry(identifier) for identifier in self._identifiers(kind, value)]
        return tuple(entry for entry in found if entry is not None)

    async def sweep(self, *, older_than: float = 60.0, limit: int = 1000) -> Swept:
        """Settle up to ``limit`` claims that were left pending for ``older_than`` seconds.

        Kinds and HMAC keys that this index doesn't know are left alone. Any number of sweepers may run.
        """
        old = self._cluster.scatter(
            _SQL["forgotten"],
            older_than,
            limit,
            keyspace=self._keyspace,
            order_by=("claimed_at",),
            limit=limit,
            partial=Partial.SKIP,
        )
        entries = [self._read(Identifier.parse(row["value"]), row) async for row in old]
        known = [e for e in entries if e.identifier.kind in self._held and e.identifier.key_id in self._keys]
        kept = [await self._resolve_if_possible(entry) for entry in known]
        return Swept(confirmed=kept.count(True), freed=kept.count(False), left=kept.count(None))

    # -- the claim ------------------------------------------------------------------------------------------------

    async def _win(self, identifier: Identifier, owner: Owner, request: str | None) -> Claim:
        patience = PATIENCE_SECONDS
        for _ in range(MAX_ROUNDS):
            claim = Claim(identifier, owner, _new_token())
            entry = await self._insert(claim, request)
            if entry is None:
                continue
            if entry.token == claim.token:
                return claim
            if patience > 0 and not (entry.committed or _own(entry, owner, request)):
                await asyncio.sleep(POLL_SECONDS)
                patience -= POLL_SECONDS
            elif won := await self._take_over(entry, claim, request):
                return won
        raise Overloaded(f"too many claims of one {identifier.kind} at a time")

    async def _take_over(self, entry: Entry, claim: Claim, request: str | None) -> Claim | None:
        """Return the claim that now stands for ``claim.owner``, or None when somebody else was faster."""
        own = _own(entry, claim.owner, request)
        outcome = await self._settle(entry)
        holds = await self._holds(entry)
        if holds and not own:
            await self._confirm(entry.identifier, entry.token)
            raise Taken(f"this {entry.identifier.kind} belongs to another owner")
        if holds and outcome == "commit" and request is not None and entry.request_id == request:
            return Claim(entry.identifier, entry.owner, entry.token)  # the first attempt got through
        successor = Claim(claim.identifier, entry.owner if own else claim.owner, claim.token)
        return successor if await self._replace(entry, successor, request) else None

    async def _yield_to(self, identifier: Identifier, claim: Claim) -> None:
        """Give ``claim`` up if another owner holds the value under another HMAC key.

        Both sides insert under their own key before they look at the other's, so one of them sees the other.
        """
        entry = await self._entry(identifier)
        if entry is None or entry.owner == claim.owner or not await self._resolve(entry):
            return
        await self._resolve(Entry(claim.identifier, claim.owner, claim.token, committed=False, request_id=None))
        raise Taken(f"this {identifier.kind} belongs to another owner")

    async def _resolve(self, entry: Entry) -> bool:
        """Settle a claim; confirm it and return True if its owner's row carries the value, else free the value."""
        await self._settle(entry)
        holds = await self._holds(entry)
        if holds:
            await self._confirm(entry.identifier, entry.token)
        else:
            await self._remove(entry)
        return holds

    async def _resolve_if_possible(self, entry: Entry) -> bool | None:
        try:
            return await self._resolve(entry)
        except (Retryable, OutcomeUnknown):
            return None

    # -- at the owner's home --------------------------------------------------------------------------------------

    async def _settle(self, entry: Entry) -> str:
        """Return the outcome that stands for a claim; "abort" if there was none."""
        home, decision = self._home(entry.owner), self._decision(entry.owner, entry.token)
        if await _insist(lambda: home.fetchval(_SQL["abort"], *decision)) is not None:
            return "abort"
        return str(await _insist(lambda: home.fetchval(_SQL["outcome"], *decision)))

    async def _holds(self, entry: Entry) -> bool:
        """Return whether the owner's row carries the value now; asked after the claim was settled, it stays so."""
        kind, key_id = entry.identifier.kind, entry.identifier.key_id
        home = self._home(entry.owner)
        rows = await _insist(lambda: home.fetch(self._held[kind], entry.owner))
        values = [row[0] for row in rows if row[0] is not None]
        return any(hide(kind, value, key_id, self._keys[key_id]) == entry.identifier for value in values)

    def _home(self, owner: Owner) -> Shard:
        return self._cluster.shard(owner, keyspace=self._home_keyspace)

    def _decision(self, owner: Owner, token: UUID) -> tuple[str, int, str, UUID]:
        return self._home_keyspace, self._home(owner).bucket, str(owner), token

    # -- at the value's home --------------------------------------------------------------------------------------

    async def _insert(self, claim: Claim, request: str | None) -> Entry | None:
        """Return what stands after the attempt: the claim itself, another, or None if that one went away."""
        seat, text = self._seat(claim.identifier), str(claim.identifier)
        arguments = (text, str(claim.owner), claim.token, request)
        if await _insist(lambda: seat.fetchval(_SQL["insert"], *arguments)) is not None:
            return Entry(claim.identifier, claim.owner, claim.token, committed=False, request_id=request)
        return await self._entry(claim.identifier)

    async def _replace(self, entry: Entry, claim: Claim, request: str | None) -> bool:
        seat, text = self._seat(claim.identifier), str(claim.identifier)
        arguments = (text, entry.token, str(claim.owner), claim.token, request)
        if await _insist(lambda: seat.fetchval(_SQL["replace"], *arguments)) is not None:
            return True
        stands = await self._entry(claim.identifier)  # an attempt whose answer was lost may have put it there
        return stands is not None and stands.token == claim.token

    async def _entry(self, identifier: Identifier) -> Entry | None:
        seat = self._seat(identifier)
        row = await _insist(lambda: seat.fetchrow(_SQL["entry"], str(identifier)))
        return None if row is None else self._read(identifier, row)

    async def _confirm(self, identifier: Identifier, token: UUID) -> None:
        seat = self._seat(identifier)
        await _insist(lambda: seat.execute(_SQL["confirm"], str(identifier), token))

    async def _remove(self, entry: Entry) -> None:
        seat = self._seat(entry.identifier)
        await _insist(lambda: seat.execute(_SQL["remove"], str(entry.identifier), entry.token))

    def _seat(self, identifier: Identifier) -> Shard:
        return self._cluster.shard(str(identifier), keyspace=self._keyspace)

    def _identifiers(self, kind: str, value: str) -> list[Identifier]:
        if kind not in self._held:
            raise UnknownName(f"no kind {kind!r}; there are: {sorted(self._held)}")
        return [hide(kind, value, key_id, key) for key_id, key in self._keys.items()]

    def _read(self, identifier: Identifier, row: Mapping[str, Any]) -> Entry:
        keyspace = self._cluster.topology.keyspace(self._home_keyspace)
        owner = _OWNERS[hash_named(keyspace.hash).key_type](row["owner"])
        return Entry(identifier, owner, row["token"], row["state"] == "committed", row["request_id"])


def _own(entry: Entry, owner: Owner, request: str | None) -> bool:
    return entry.owner == owner or (request is not None and entry.request_id == request)


def _new_token() -> UUID:
    return token_at(time.time_ns() // 1_000_000, secrets.randbits(74))


async def _insist(step: Callable[[], Awaitable[T]]) -> T:
    """Repeat a step that may be done twice until its answer arrives, a few times; the deadline bounds it all."""
    for attempt in range(1, MAX_TRIES):
        try:
            return await step()
        except DeadlineExceeded:
            raise
        except (Retryable, OutcomeUnknown):
            await asyncio.sleep(POLL_SECONDS * attempt)
    return await step()
