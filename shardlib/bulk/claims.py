"""Unique values in large numbers: the steps of ``shardlib.Unique``, a batch of owners at a time.

    claims = BulkClaims(cluster, keys=keys, current=1)
    token = new_token()                                  # one for the batch: decisions are per owner and token
    won = await claims.claim(wanted, token)              # 1. in the index
    async def body(tx, users):                           # 2. at the owners' homes, one transaction per node:
        decided = await claims.decide(tx, ...)           #    their decisions ...
        await tx.copy_records_to_table("users", ...)     #    ... and the rows of those who are decided for

DESIGN. The rules are those of ``Unique``: the row that carries a value says who holds it, the index says whom to ask,
and one decision at the owner's home settles each claim. What isn't won here is contested, and a matter for
``Unique.claim``, one value at a time. A process may stop anywhere: what it leaves is settled by whoever comes next.

One step of ``Unique`` is left out. There, an entry is pending first and confirmed at last, which tells contenders to be
patient for a moment and ``sweep`` where to look. Here it is entered as committed: nobody trusts that word, an entry is
always checked with its owner's home, and to update every entry cost 18 of 49 us of the servers' time per user. In
return a contender doesn't wait, and what a run leaves that is never resumed is not swept but settled when somebody
wants the value.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from shardlib.bulk.rows import Bulk, Part
from shardlib.cluster import Cluster
from shardlib.core.identifiers import digest_of, hide, token_at
from shardlib.errors import OutcomeUnknown, UnknownName
from shardlib.sql import load
from shardlib.transactions import Transaction

T = TypeVar("T")

_SQL = load("bulk")
_SEPARATOR = "\x1f"  # in bulk.sql as well
_MAX_TRIES = 4  # of one step that may be done twice, whose answer was lost


class Seat(NamedTuple):
    """Where a hidden value stands in the index."""

    value: str
    bucket: int


class Wanted(NamedTuple):
    """A claim to make: ``others`` are the seats of the same value under other HMAC keys."""

    seat: Seat
    owner: str
    request_id: str | None = None
    others: tuple[Seat, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What the index says of a value: whom to ask."""

    owner: str
    token: UUID
    committed: bool
    request_id: str | None


def new_token() -> UUID:
    """Return a token for the claims of a batch, as old as now: decisions refuse one older than a day."""
    return token_at(time.time_ns() // 1_000_000, secrets.randbits(74))


class BulkClaims:
    """The index of unique values, in large numbers; arguments as for ``Unique``."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        keys: Mapping[int, bytes],
        current: int,
        keyspace: str = "identifiers",
        home: str = "users",
    ) -> None:
        if current not in keys:
            raise UnknownName(f"no HMAC key {current}; there are: {sorted(keys)}")
        self._index = Bulk(cluster, keyspace=keyspace)
        self._home = Bulk(cluster, keyspace=home)
        self._keys = dict(keys)
        self._current = current

    def hide(self, kind: str, value: str) -> str:
        """Return what stands for a value in the index, under the current key."""
        return f"{kind}:{self._current}:{digest_of(kind, value, self._keys[self._current])}"  # as Identifier's text

    def seats(self, hidden: Sequence[str]) -> list[Seat]:
        """Return where hidden values stand, in their order."""
        return list(map(Seat, hidden, self._index.buckets(hidden)))

    def others(self, values: Sequence[tuple[str, str]]) -> list[tuple[Seat, ...]]:
        """Return where each (kind, value) would stand under the other HMAC keys."""
        keys = [(key_id, key) for key_id, key in self._keys.items() if key_id != self._current]
        hidden = [str(hide(kind, value, key_id, key)) for key_id, key in keys for kind, value in values]
        seats = self.seats(hidden)
        return [tuple(seats[at :: len(values)]) for at in range(len(values))]

    async def claim(self, wanted: Sequence[Wanted], token: UUID) -> set[str]:
        """Claim what is free under one token; return the values that were won."""
        left = sorted(wanted, key=_value)  # everybody in the same order, so that two batches don't lock each other out
        won: set[str] = set()
        for _ in range(_MAX_TRIES):
            won_now, unknown = await self._try(left, token)
            won |= won_now
            if not unknown:
                return won - await self._contested(wanted)
            found = await self.standing(each.seat for each in unknown)
            won |= {value for value, standing in found.items() if standing.token == token}
            left = [each for each in unknown if each.seat.value not in found]
        raise OutcomeUnknown(f"no answer to {_MAX_TRIES} attempts to claim {len(left)} values")

    async def standing(self, seats: Iterable[Seat]) -> dict[str, Standing]:
        """Return what the index says of each value that stands in it."""

        async def body(tx: Transaction, part: Sequence[Seat]) -> dict[str, Standing]:
            await tx.execute(_SQL["plan_afresh"])
            rows = await tx.fetch(_SQL["standing"], _joined([seat.value for seat in part]))
            return {row["value"]: _standing(row) for row in rows}

        parts = await self._index.each_node(seats, _bucket, body)
        return {value: entry for part in parts for value, entry in _result(part).items()}

    async def decide(self, tx: Transaction, owners: Mapping[str, int], token: UUID) -> set[str]:
        """Decide for the claims of owners (with their buckets) in the transaction that writes their rows.

        Returns those whose rows may be written now; for the others somebody was faster, or the token is too old.
        """
        arguments = self._home.keyspace, _joined(list(map(str, owners.values()))), _joined(list(owners)), token
        return _parted(await tx.fetchval(_SQL["decide"], *arguments))

    async def _try(self, wanted: Sequence[Wanted], token: UUID) -> tuple[set[str], list[Wanted]]:
        """Return the values that were won, and the claims whose COMMIT got no answer."""

        async def body(tx: Transaction, part: Sequence[Wanted]) -> set[str]:
            columns = zip(*((each.seat.value, each.owner, each.request_id or "") for each in part), strict=True)
            return _parted(await tx.fetchval(_SQL["claim"], *map(_joined, columns), token))

        parts = await self._index.each_node(wanted, lambda each: each.seat.bucket, body)
        unknown = [part for part in parts if isinstance(part.error, OutcomeUnknown)]
        settled = [_result(part) for part in parts if part not in unknown]
        return {value for values in settled for value in values}, [each for part in unknown for each in part.items]

    async def _contested(self, wanted: Sequence[Wanted]) -> set[str]:
        """Return the values that also stand under another HMAC key: asked after they were claimed under this one."""
        found = await self.standing(seat for each in wanted for seat in each.others)
        return {each.seat.value for each in wanted if any(other.value in found for other in each.others)}


def _joined(texts: Sequence[str]) -> str:
    """Return many texts as one, to send: asyncpg looks at each element of an array in Python, which takes longer."""
    joined = _SEPARATOR.join(texts)
    if joined.count(_SEPARATOR) != len(texts) - 1:
        raise ValueError("an owner's key or a request id contains U+001F, which separates them here")
    return joined


def _parted(joined: str | None) -> set[str]:
    """Return the texts of one that came back; it is None when there is none."""
    return set() if joined is None else set(joined.split(_SEPARATOR))


def _value(wanted: Wanted) -> str:
    return wanted.seat.value


def _bucket(seat: Seat) -> int:
    return seat.bucket


def _result(part: Part[Any, T]) -> T:
    if part.error is not None or part.result is None:
        raise part.error or AssertionError("a part without an error has a result")
    return part.result


def _standing(row: Mapping[str, Any]) -> Standing:
    return Standing(row["owner"], row["token"], row["state"] == "committed", row["request_id"])
