"""A replica is promoted: writes follow, what was lost is told, and the old primary is left alone."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

import shardlib
from shardlib.cluster import Cluster
from shardlib.errors import OutcomeUnknown, Retryable, ShardlibError, WriteLost
from shardlib.observe import PrimaryChanged
from shardlib.testing.engine import PostgresServer
from shardlib.testing.plugin import OwnServers
from tests.pg.links import stop_looking
from tests.pg.stage import INSERT, KEYSPACE, RAISE, READ, Heard, Stage, keys_of
from tests.support.proxy import FaultProxy
from tests.support.waiting import wait_for

WHERE = "SELECT current_setting('cluster_name')"


async def staged(own_servers: OwnServers, nodes: int = 1) -> Stage:
    stage = Stage(own_servers(nodes=nodes, replicas=1))
    await stage.prepare()
    return stage


async def raise_once(cluster: Cluster, key: int) -> bool:
    """Raise a version; tell whether it is known to have happened."""
    try:
        await cluster.shard(key).execute(RAISE, key)
    except ShardlibError:
        return False
    return True


def address(server: PostgresServer) -> str:
    return f"127.0.0.1:{server.port}"


async def test_writes_follow_a_promotion_and_the_old_primary_is_left_alone(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    old, new = stage.servers("node1").primary, stage.servers("node1").replica
    heard = Heard()
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=0.5, observer=heard) as cluster:
        key = keys_of(cluster, "node1")[0]
        home = cluster.shard(key)
        await home.execute(INSERT, key)
        token = await home.token()
        new.wait_replayed()
        await wait_for(lambda: answered_by(cluster, key, token, new))
        old.kill()
        new.promote()
        await wait_for(lambda: raise_once(cluster, key))
        assert await home.fetchval(WHERE) == new.name
        assert await home.replica(after=token).fetchval(READ, key) == 2  # not lost: before the branch
        old.start()
        await wait_for(lambda: seen_again(cluster, old))
        for _ in range(20):
            assert await home.fetchval(WHERE) == new.name
            assert await home.replica(max_lag=None).fetchval(WHERE) == new.name
        assert [event.endpoint for event in heard.of(PrimaryChanged)] == [address(old), address(new)]
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        await wait_for(lambda: cluster.health().nodes[0].timeline == 2)
        assert await cluster.shard(key).fetchval(WHERE) == new.name


async def answered_by(cluster: Cluster, key: int, token: shardlib.Token, replica: PostgresServer) -> bool:
    return bool(await cluster.shard(key).replica(after=token).fetchval(WHERE) == replica.name)


def seen_again(cluster: Cluster, server: PostgresServer) -> bool:
    """Tell whether a server's monitor has an answer and its breaker is closed."""
    endpoints = cluster.health().nodes[0].endpoints
    return any(endpoint.address == address(server) and not endpoint.broken for endpoint in endpoints)


async def test_a_stale_primary_is_not_used_while_the_new_one_is_away(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    old, new = stage.servers("node1").primary, stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=0.5) as cluster:
        key = keys_of(cluster, "node1")[0]
        await cluster.shard(key).execute(INSERT, key)
        new.wait_replayed()
        old.kill()
        new.promote()
        await wait_for(lambda: raise_once(cluster, key))
        new.stop()
        (new.data / "standby.signal").touch()
        new.start()  # a standby now, of nobody
        await wait_for(lambda: not cluster.health().nodes[0].writable)
        old.start()
        await wait_for(lambda: seen_again(cluster, old) and seen_again(cluster, new))
        with pytest.raises(Retryable):
            async with shardlib.deadline(1.0):
                await cluster.shard(key).execute(RAISE, key)
        assert old.psql("SELECT version FROM items_numbers", database="app") == "1"


async def test_a_server_that_became_a_standby_is_not_read_as_a_primary(
    own_servers: OwnServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the same address, before its monitor has looked again: the greeting tells."""
    stage = await staged(own_servers)
    server = stage.servers("node1").primary
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=0.5, call_seconds=2.0) as cluster:
        key = keys_of(cluster, "node1")[0]
        await cluster.shard(key).execute(INSERT, key)
        await stop_looking(cluster, monkeypatch)
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        with pytest.raises(Retryable):
            await cluster.shard(key).fetchval(READ, key)


async def lose_a_write(stage: Stage, cluster: Cluster, key: int) -> tuple[shardlib.Token, shardlib.Token]:
    """Fail over so that a write is lost; return tokens of the last one that was kept, and of that one."""
    old, new = stage.servers("node1").primary, stage.servers("node1").replica
    home = cluster.shard(key)
    await home.execute(INSERT, key)
    kept = await home.token()
    lost = await write_behind_the_standby(stage, cluster, key)
    old.kill()
    new.promote()
    await wait_for(lambda: cluster.health().nodes[0].timeline == 2)
    return kept, lost


async def write_behind_the_standby(stage: Stage, cluster: Cluster, key: int) -> shardlib.Token:
    """Cut the standby off, then raise the key's version; return the token of that."""
    new = stage.servers("node1").replica
    new.wait_replayed()
    receiver = new.psql("SELECT pid FROM pg_stat_wal_receiver")
    new.psql("ALTER SYSTEM SET primary_conninfo = ''")
    new.psql("SELECT pg_reload_conf()")
    await wait_for(lambda: new.psql("SELECT pid FROM pg_stat_wal_receiver") != receiver)
    await cluster.shard(key).execute(RAISE, key)
    return await cluster.shard(key).token()


async def test_the_token_of_a_lost_write_says_so(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    new = stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=0.5) as cluster:
        key = keys_of(cluster, "node1")[0]
        kept, lost = await lose_a_write(stage, cluster, key)
        home = cluster.shard(key)
        with pytest.raises(WriteLost):
            await home.replica(after=lost).fetchval(READ, key)
        assert await home.replica(after=kept).fetchval(READ, key) == 1
        while (await home.token()).lsn <= lost.lsn + 100_000:  # the new history grows past what was lost
            await home.execute("UPDATE items_numbers SET note = repeat('x', 20000) WHERE id = $1", key)
        with pytest.raises(WriteLost):
            await home.replica(after=lost).fetchval(READ, key)
    new.stop()
    new.start()  # forgets where it began; the node's own table doesn't
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        home = cluster.shard(key)
        with pytest.raises(WriteLost):
            await home.replica(after=lost).fetchval(READ, key)
        assert await home.replica(after=str(kept)).fetchval(READ, key) == 1
        now = await home.token()
        assert (now.timeline, await home.replica(after=now).fetchval(READ, key)) == (2, 1)


async def test_after_a_change_of_timeline_only_a_snapshot_confirmed_later_may_write(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    new = stage.servers("node1").replica
    async with FaultProxy(stage.databases.servers.catalog.port) as proxy:
        url = proxy.url(stage.databases.catalog_url)
        async with shardlib.connect(url, keyspace=KEYSPACE, lease_seconds=0.5, call_seconds=20.0) as cluster:
            key = keys_of(cluster, "node1")[0]
            await cluster.shard(key).execute(INSERT, key)
            new.wait_replayed()
            proxy.stall()
            stage.servers("node1").primary.kill()
            new.promote()
            await wait_for(lambda: cluster.health().nodes[0].timeline == 2)
            write = asyncio.ensure_future(cluster.shard(key).execute(RAISE, key))
            with pytest.raises(Retryable):
                async with shardlib.deadline(0.5):
                    await cluster.shard(key).execute(RAISE, key)
            assert new.psql("SELECT version FROM items_numbers", database="app") == "1"
            proxy.go_on()
            assert await write == "UPDATE 1"


async def test_a_commit_that_stopped_waiting_for_its_standby_is_unknown(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    primary, replica = stage.servers("node1").primary, stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        home = cluster.shard(key)
        await home.execute(INSERT, key)
        primary.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{replica.name}'")
        primary.psql("SELECT pg_reload_conf()")
        replica.stop()

        async def cancelled(write: Any) -> None:
            task = asyncio.ensure_future(write)
            waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'shardlib'"
            await wait_for(lambda: primary.psql(f"SELECT count(*) {waiting}") == "1")
            primary.psql(f"SELECT pg_cancel_backend(pid) {waiting}")
            with pytest.raises(OutcomeUnknown):
                await task

        await cancelled(home.execute(RAISE, key))
        await cancelled(home.run(lambda tx: tx.execute(RAISE, key)))
        assert await home.fetchval(READ, key) == 3


async def test_no_row_is_lost_that_its_replica_has(own_servers: OwnServers) -> None:
    """Failing over with a synchronous standby under load: each acknowledged write is there, none twice."""
    stage = await staged(own_servers)
    old, new = stage.servers("node1").primary, stage.servers("node1").replica
    old.psql(f"ALTER SYSTEM SET synchronous_standby_names = '{new.name}'")
    old.psql("SELECT pg_reload_conf()")
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=0.5, call_seconds=20.0) as cluster:
        keys = keys_of(cluster, "node1", 4)
        for key in keys:
            await cluster.shard(key).execute(INSERT, key)
        acknowledged = dict.fromkeys(keys, 1)
        over = asyncio.Event()

        async def writer(key: int) -> None:
            while not over.is_set():
                request = f"{key}/{acknowledged[key]}"
                await cluster.shard(key).run(lambda tx: tx.execute(RAISE, key), request_id=request)
                acknowledged[key] += 1

        writers = [asyncio.ensure_future(writer(key)) for key in keys]
        await wait_for(lambda: min(acknowledged.values()) > 5)
        old.kill()
        new.psql("ALTER SYSTEM SET synchronous_standby_names = ''")
        new.promote()
        so_far = dict(acknowledged)
        await wait_for(lambda: all(acknowledged[key] > so_far[key] + 5 for key in keys), 20.0)
        over.set()
        await asyncio.gather(*writers)
        assert {key: await cluster.shard(key).fetchval(READ, key) for key in keys} == acknowledged


async def test_an_error_of_a_driver_is_kept_as_the_cause(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    async with stage.databases.connect(keyspace=KEYSPACE, call_seconds=1.0) as cluster:
        key = keys_of(cluster, "node1")[0]
        await cluster.shard(key).execute(INSERT, key)
        write = asyncio.ensure_future(cluster.shard(key).execute("UPDATE items_numbers SET note = pg_sleep(9)::text"))
        await asyncio.sleep(0)
        stage.servers("node1").primary.kill()
        with pytest.raises(OutcomeUnknown) as failure:
            await write
        assert isinstance(failure.value.__cause__, OSError | asyncpg.PostgresError)


async def test_no_reader_with_the_token_of_a_lost_write_is_answered_from_the_past(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    seen: set[object] = set()
    async with stage.databases.connect(keyspace=KEYSPACE, lease_seconds=0.5) as cluster:
        key = keys_of(cluster, "node1")[0]

        async def read_on(after: shardlib.Token) -> None:
            while WriteLost not in seen:
                try:
                    seen.add(await cluster.shard(key).replica(after=after).fetchval(READ, key))
                except ShardlibError as error:
                    seen.add(type(error))
                await asyncio.sleep(0.002)

        await cluster.shard(key).execute(INSERT, key)
        lost = await write_behind_the_standby(stage, cluster, key)
        readers = [asyncio.ensure_future(read_on(lost)) for _ in range(12)]
        await wait_for(lambda: 2 in seen)
        stage.servers("node1").primary.kill()
        stage.servers("node1").replica.promote()
        await asyncio.gather(*readers)
    assert WriteLost in seen
    assert {answer for answer in seen if isinstance(answer, int)} == {2}
