"""Tokens: what one costs, what one proves, and what becomes of those that somebody made up."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardlib
from shardlib import Token
from shardlib.cluster import Cluster
from shardlib.errors import BadToken, DeadlineExceeded
from tests.pg.stage import INSERT, KEYSPACE, RAISE, READ, Stage, epoch_is, keys_of, turns
from tests.support.proxy import FaultProxy
from tests.support.waiting import wait_for

WHERE = "SELECT pg_is_in_recovery()"


async def replica_answers(cluster: Cluster, key: int, token: Token) -> bool:
    return bool(await cluster.shard(key).replica(after=token, max_lag=None).fetchval(WHERE))


async def test_many_who_ask_in_one_turn_cost_one_statement(stage: Stage) -> None:
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        keys = keys_of(cluster, "node1", 50)
        await cluster.shard(keys[0]).token()
        with stage.statements("node1") as asked:
            tokens = await asyncio.gather(*(cluster.shard(key).token() for key in keys))
        assert len(asked) == 1
        assert {(token.node, token.lsn) for token in tokens} == {("node1", tokens[0].lsn)}
        assert [token.bucket for token in tokens] == [cluster.where(key).bucket for key in keys]


async def test_who_asks_later_asks_anew(stage: Stage) -> None:
    """A position that was asked for before a write was acknowledged says nothing of it."""
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key, other = keys_of(cluster, "node1", 2)
        await cluster.shard(key).execute(INSERT, key)
        with stage.statements("node1") as asked:
            early = asyncio.ensure_future(cluster.shard(other).token())
            await turns(3)
            await cluster.shard(key).execute(RAISE, key)
            late = await cluster.shard(key).token()
        assert sum("flush" in statement for statement in asked) == 2
        assert (await early).lsn <= late.lsn


async def test_the_first_who_asks_does_not_set_the_deadline_of_the_others(stage: Stage) -> None:
    async with FaultProxy(stage.servers("node1").primary.port) as proxy:
        await stage.lead_through(proxy, "node1")
        async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
            key = keys_of(cluster, "node1")[0]
            await cluster.shard(key).token()
            proxy.stall()

            async def hasty() -> Token:
                async with shardlib.deadline(0.1):
                    return await cluster.shard(key).token()

            tasks = [asyncio.ensure_future(hasty()), asyncio.ensure_future(cluster.shard(key).token())]
            with pytest.raises(DeadlineExceeded):
                await tasks[0]
            proxy.go_on()
            assert (await tasks[1]).node == "node1"


async def test_a_token_of_a_write_is_met_by_the_replica_or_the_primary(stage: Stage) -> None:
    replica = stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        home = cluster.shard(key)
        await home.execute(INSERT, key)
        before = await home.token()
        await wait_for(lambda: replica_answers(cluster, key, before))
        replica.pause_replay()
        try:
            await home.execute(RAISE, key)
            after = await home.token()
            assert not await replica_answers(cluster, key, after)
            assert await home.replica(after=str(after), max_lag=None).fetchval(READ, key) == 2
            assert await replica_answers(cluster, key, before)
        finally:
            replica.resume_replay()
        await wait_for(lambda: replica_answers(cluster, key, after))


async def test_a_token_of_the_bucket_before_it_moved_is_covered(stage: Stage) -> None:
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        home = cluster.shard(key)
        await home.execute(INSERT, key)
        token = replace(await home.token(), lsn=2**62)  # far beyond anything on node2
        await stage.put("node2", key, 7)
        async with stage.admin("node2") as node:
            since = await node.fetchval("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
        await epoch_is(cluster, await stage.give(home.bucket, "node2", lsn=since))
        await wait_for(lambda: replica_answers(cluster, key, token))
        assert await home.replica(after=token).fetchval(READ, key) == 7
        now = await home.token()
        assert (now.node, now.epoch) == ("node2", cluster.topology.epoch)


async def test_a_token_of_a_later_epoch_has_the_snapshot_refreshed(stage: Stage) -> None:
    async with (
        stage.databases.connect(keyspace=KEYSPACE) as ahead,
        stage.databases.connect(keyspace=KEYSPACE, lease_seconds=60.0) as behind,
    ):
        key = keys_of(ahead, "node1")[0]
        await ahead.shard(key).execute(INSERT, key)
        await stage.put("node2", key, 7)
        bucket = ahead.where(key).bucket
        epoch = await stage.give(bucket, "node2", notify=False)
        await epoch_is(ahead, epoch)
        token = await ahead.shard(key).token()
        assert behind.topology.epoch < epoch
        assert await behind.shard(key).replica(after=str(token)).fetchval(READ, key) == 7


async def test_a_position_is_that_of_the_node_which_the_token_names(stage: Stage) -> None:
    """The first who asks moves away meanwhile: those who asked with it aren't given another node's position."""
    async with FaultProxy(stage.servers("node1").primary.port) as proxy:
        await stage.lead_through(proxy, "node1")
        async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
            mover, stayer = keys_of(cluster, "node1", 2)
            for key in (mover, stayer):
                await cluster.shard(key).execute(INSERT, key)
            bucket = cluster.where(mover).bucket
            await epoch_is(cluster, await stage.flag(bucket))
            await cluster.shard(mover).fetchval(READ, mover)
            proxy.stall()
            asked = [asyncio.ensure_future(cluster.shard(key).token()) for key in (mover, stayer)]
            await asyncio.sleep(0.01)
            await stage.disown("node1", bucket)
            await epoch_is(cluster, await stage.give(bucket, "node2"))
            proxy.go_on()
            moved, stayed = await asyncio.gather(*asked)
            assert (moved.node, stayed.node) == ("node2", "node1")
            async with stage.admin("node1") as node:
                flushed = await node.fetchval("SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint")
            assert stayed.lsn >= flushed  # nothing was written since: it is this node's own position


# -- what somebody made up


@pytest.mark.parametrize(
    "text",
    [
        "",
        "?",
        "x" * 401,
        "é",
        str(Token("numbers", 1, 0, "node1", 1, 1))[:-6],
        str(Token("numbers", 1, 0, "node1", 1, 1)) + "AAAA",
        str(Token("numbers", -1, 0, "node1", 1, 1)),
        str(Token("numbers", 1, 2**63, "node1", 1, 1)),
        str(Token("numbers", 1, 0, "node1", 2**31, 1)),
        str(Token("numbers", 1, 0, "node1", 1, 2**63)),
        str(Token("numbers", 1, 0, "node1", 1, -1)),
    ],
)
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        Token.parse(text)


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    try:
        token = Token.parse(text)
    except BadToken:
        return
    assert Token.parse(str(token)) == token


@given(
    st.builds(
        Token,
        st.sampled_from(["users", "numbers"]),
        st.integers(0, 65_535),
        st.integers(0, 2**63 - 1),
        st.sampled_from(["node1", "node-2_b"]),
        st.integers(0, 2**31 - 1),
        st.integers(0, 2**63 - 1),
    )
)
def test_a_token_comes_back_from_its_text(token: Token) -> None:
    assert Token.parse(str(token)) == token
    for length in range(len(str(token))):
        with suppress(BadToken):
            assert Token.parse(str(token)[:length]).node == token.node  # digits of the position can go unnoticed


async def test_a_forged_token_is_refused_or_harmless(stage: Stage) -> None:
    async with stage.databases.connect(keyspace=KEYSPACE, call_seconds=2.0) as cluster:
        key = keys_of(cluster, "node1")[0]
        home = cluster.shard(key)
        await home.execute(INSERT, key)
        honest = await home.token()
        for forged in (
            replace(honest, keyspace="strangers"),
            replace(honest, bucket=4096),
            replace(honest, epoch=cluster.topology.epoch + 1),
            replace(honest, epoch=2**63 - 1),
        ):
            with pytest.raises(BadToken):
                await home.replica(after=str(forged)).fetchval(READ, key)
        for forged in (
            replace(honest, node="node9"),
            replace(honest, lsn=2**63 - 1),
            replace(honest, timeline=2**31 - 1),
            replace(honest, timeline=0, lsn=0),
            replace(honest, bucket=(honest.bucket + 1) % 4096),
        ):
            assert await home.replica(after=str(forged)).fetchval(READ, key) == 1
