"""A write is sent twice only by ``run(request_id=)``: the wire is cut after each byte of a write and of its answer."""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from shardlib.errors import OutcomeUnknown
from shardlib.testing.databases import TestCluster
from shardlib.transactions import Transaction
from tests.pg.wire import ADD_ONE, TABLE, Wire, wire_to
from tests.support.proxy import DOWN, UP, Direction

COMMIT = b"Q\x00\x00\x00\x0cCOMMIT;\x00"
COMMITTED = b"C\x00\x00\x00\x0bCOMMIT\x00Z\x00\x00\x00\x05I"
UPDATED = b"C\x00\x00\x00\x0dUPDATE 1\x00Z\x00\x00\x00\x05I"
AT_COMMIT = [(UP, COMMIT, after) for after in range(len(COMMIT) + 1)] + [
    (DOWN, COMMITTED, after) for after in range(len(COMMITTED) + 1)
]


async def outcome(wire: Wire, write: Callable[[], Awaitable[Any]]) -> tuple[bool, int]:
    """Return whether the write was said to have happened, and how often it did."""
    before = await wire.version()
    try:
        await write()
    except OutcomeUnknown:
        said = False
    else:
        said = True
    return said, await wire.version() - before


def whole_request_arrives(direction: Direction, message: bytes, after: int) -> bool:
    return direction is DOWN or after == len(message)


async def test_a_transaction_at_each_byte_of_its_commit(stocked: TestCluster) -> None:
    async with wire_to(stocked) as wire:

        async def write() -> None:
            async with wire.home.transaction() as transaction:
                await transaction.execute(ADD_ONE, wire.key)
                wire.proxy.cut(*cut[:2], after=cut[2])

        for cut in AT_COMMIT:
            await wire.warm(ADD_ONE)
            said, happened = await outcome(wire, write)
            assert wire.proxy.was_cut.is_set()
            assert happened == whole_request_arrives(*cut), cut
            assert not said or cut == (DOWN, COMMITTED, len(COMMITTED))


async def test_a_request_with_an_id_at_each_byte_of_its_commit(stocked: TestCluster) -> None:
    async with wire_to(stocked) as wire:
        bodies = 0

        async def body(transaction: Transaction) -> Any:
            nonlocal bodies
            bodies += 1
            answer = await transaction.fetchval(f"{ADD_ONE} RETURNING version", wire.key)
            if bodies == 1:
                wire.proxy.cut(*cut[:2], after=cut[2])
            return answer

        for cut in AT_COMMIT:
            await wire.warm(ADD_ONE)
            before, bodies = await wire.version(), 0
            assert await wire.home.run(body, request_id=str(cut)) == before + 1
            assert wire.proxy.was_cut.is_set()
            assert await wire.version() == before + 1
            assert bodies == 1 if whole_request_arrives(*cut) else 2
            assert await wire.home.run(body, request_id=str(cut)) == before + 1
            assert await wire.version() == before + 1


async def test_a_body_without_an_id_is_not_run_again_after_a_lost_commit(stocked: TestCluster) -> None:
    async with wire_to(stocked) as wire:
        bodies = 0

        async def body(transaction: Transaction) -> None:
            nonlocal bodies
            bodies += 1
            await transaction.execute(ADD_ONE, wire.key)
            wire.proxy.cut(*cut[:2], after=cut[2])

        for cut in AT_COMMIT[:: len(COMMIT)]:
            await wire.warm(ADD_ONE)
            bodies = 0
            _, happened = await outcome(wire, lambda: wire.home.run(body))
            assert happened == whole_request_arrives(*cut), cut
            assert bodies == 1


def update_message(wire: Wire) -> bytes:
    """Return what asyncpg sends for the prepared statement: Bind, Execute, Sync."""
    [statement] = [
        entry for entry in wire.pool.idle[-1].connection._stmt_cache.iter_statements() if entry.query == ADD_ONE
    ]
    name: str = statement.name
    bind = b"\x00" + name.encode() + b"\x00" + struct.pack("!hhhiqhh", 1, 1, 1, 8, wire.key, 1, 1)
    execute = b"E" + struct.pack("!ixi", 9, 1)
    return b"B" + struct.pack("!i", len(bind) + 4) + bind + execute + b"S" + struct.pack("!i", 4)


async def test_an_update_outside_a_transaction_at_each_byte(stocked: TestCluster) -> None:
    async with wire_to(stocked) as wire:
        await wire.warm(ADD_ONE)
        for after in range(len(update_message(wire)) + 1):
            await wire.warm(ADD_ONE)
            message = update_message(wire)
            wire.proxy.cut(UP, message, after=after)
            said, happened = await outcome(wire, lambda: wire.home.fetchrow(ADD_ONE, wire.key))
            assert wire.proxy.was_cut.is_set()
            assert not said
            assert happened <= (after == len(message))


async def test_the_answer_to_an_update_outside_a_transaction_at_each_byte(stocked: TestCluster) -> None:
    async with wire_to(stocked) as wire:
        for after in range(len(UPDATED) + 1):
            await wire.warm(ADD_ONE)
            wire.proxy.cut(DOWN, UPDATED, after=after)
            said, happened = await outcome(wire, lambda: wire.home.execute(ADD_ONE, wire.key))
            assert wire.proxy.was_cut.is_set()
            assert happened == 1
            assert not said or after == len(UPDATED)


WRITES = {  # and how the answer to each begins
    f"UPDATE {TABLE} SET version = version + 1 WHERE id = $1": b"2\x00\x00\x00\x04C",
    f"WITH u AS ({ADD_ONE} RETURNING 1) SELECT * FROM u": b"2\x00\x00\x00\x04D\x00\x00\x00\x0e\x00\x01",
    "/* a comment */ -- another\n (SELECT add_one($1))": b"2\x00\x00\x00\x04D\x00\x00\x00\x0e\x00\x01",
}


@pytest.mark.parametrize("verb", ["fetch", "fetchrow", "fetchval", "execute"])
async def test_no_verb_sends_a_write_twice(stocked: TestCluster, verb: str) -> None:
    async with wire_to(stocked) as wire:
        await wire.direct.execute(
            "CREATE FUNCTION add_one(key bigint) RETURNS integer SECURITY DEFINER LANGUAGE sql"
            f" AS $$ UPDATE {TABLE} SET version = version + 1 WHERE id = key RETURNING 1 $$"
        )
        for statement, answer in WRITES.items():
            await wire.warm(statement)
            wire.proxy.cut(DOWN, answer)
            said, happened = await outcome(wire, partial(getattr(wire.home, verb), statement, wire.key))
            assert wire.proxy.was_cut.is_set()
            assert (said, happened) == (False, 1)
