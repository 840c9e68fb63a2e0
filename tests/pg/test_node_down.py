"""A node that is down: its keys fail fast, others notice nothing, and it heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from time import monotonic

import pytest

from shardlib.cluster import Cluster
from shardlib.deadlines import deadline
from shardlib.errors import DeadlineExceeded, NodeUnavailable, OutcomeUnknown, Overloaded, Retryable
from shardlib.observe import BreakerOpened
from shardlib.scatter import Partial
from shardlib.testing.plugin import OwnServers
from tests.chaos.load import Load, under_load
from tests.pg.links import pool_of
from tests.pg.stage import INSERT, KEYSPACE, RAISE, READ, Heard, Stage, keys_of
from tests.support.waiting import wait_for

FAST_SECONDS = 0.5  # far below any deadline here, far above what it takes


async def staged(own_servers: OwnServers, nodes: int = 2, replicas: int = 0) -> Stage:
    stage = Stage(own_servers(nodes=nodes, replicas=replicas))
    await stage.prepare()
    return stage


async def answers(cluster: Cluster, key: int) -> bool:
    try:
        await cluster.shard(key).fetchval(READ, key)
    except Retryable:
        return False
    return True


async def test_a_killed_node_fails_its_keys_fast_and_heals(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    server, heard = stage.servers("node1").primary, Heard()
    connected = stage.databases.connect(keyspace=KEYSPACE, call_seconds=3.0, observer=heard)
    async with connected as cluster, under_load(cluster, 4) as load:
        await wait_for(lambda: len(load.requests) > 100)
        killed = monotonic()
        server.kill()
        await wait_for(lambda: heard.of(BreakerOpened))
        opened = monotonic()
        await wait_for(lambda: sum(r.node == "node1" and r.began > opened for r in load.requests) > 50)
        again = monotonic()
        await asyncio.to_thread(server.start)
        await wait_for(lambda: sum(r.node == "node1" and r.began > again and not r.error for r in load.requests) > 50)
    of_dead = load.during(killed, opened, lambda request: request.node == "node1")
    assert set(of_dead.errors) <= {"NodeUnavailable", "OutcomeUnknown"}
    assert of_dead.errors.count("OutcomeUnknown") <= 4  # those that were under way, and no other
    assert of_dead.slowest < 3.5
    refused = load.during(opened, again, lambda request: request.node == "node1")
    assert set(refused.errors) == {"NodeUnavailable"}
    assert refused.milliseconds(50) < 1000 * FAST_SECONDS
    assert load.during(killed, monotonic(), lambda request: request.node == "node2").errors == []


async def test_a_refused_request_says_which_node_and_when_to_come_back(own_servers: OwnServers) -> None:
    stage = await staged(own_servers)
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        stage.servers("node1").primary.stop()
        await wait_for(lambda: not cluster.health().nodes[0].writable)
        with pytest.raises(NodeUnavailable, match="node1") as failure:
            await cluster.shard(key).fetchval(READ, key)
        assert failure.value.node == "node1"
        assert failure.value.retry_after > 0
        assert str(stage.servers("node1").primary.port) not in str(failure.value)
        with pytest.raises(NodeUnavailable):
            await cluster.shard(key).transaction().__aenter__()


async def test_reads_of_many_keys_leave_the_links_of_the_healthy_node_alone(own_servers: OwnServers) -> None:
    """A call that is cancelled costs its connection: the others are left to end by themselves."""
    stage = await staged(own_servers)
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        dead, well = keys_of(cluster, "node1")[0], keys_of(cluster, "node2")[0]
        assert await cluster.shard(well).execute(INSERT, well) == "INSERT 0 1"
        stage.servers("node1").primary.stop()
        await wait_for(lambda: not cluster.health().nodes[0].writable)
        sessions = {link.connection.get_server_pid() for link in pool_of(cluster, well).idle}
        for _ in range(10):
            with pytest.raises(NodeUnavailable, match="node1"):
                await cluster.fetch_many("SELECT id FROM items_numbers WHERE id = ANY($1)", [dead, well])
        assert {link.connection.get_server_pid() for link in pool_of(cluster, well).idle} == sessions


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_node_that_is_down_at_the_start_prevents_nothing(own_servers: OwnServers, replicas: int) -> None:
    stage = await staged(own_servers, replicas=replicas)
    server = stage.servers("node1").primary
    server.stop()
    began = monotonic()
    async with stage.databases.connect(keyspace=KEYSPACE, call_seconds=8.0) as cluster:
        assert monotonic() - began < 5.0
        key, other = keys_of(cluster, "node1")[0], keys_of(cluster, "node2")[0]
        assert await cluster.shard(other).execute(INSERT, other) == "INSERT 0 1"
        began = monotonic()
        with pytest.raises(NodeUnavailable):
            await cluster.shard(key).execute(INSERT, key)
        assert monotonic() - began < 4.0  # three looks, not the whole patience
        server.start()
        await wait_for(lambda: answers(cluster, key))
        assert await cluster.shard(key).execute(INSERT, key) == "INSERT 0 1"


async def test_its_replica_answers_who_takes_any_lag(own_servers: OwnServers) -> None:
    stage = await staged(own_servers, nodes=1, replicas=1)
    servers = stage.servers("node1")
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        home = cluster.shard(key)
        await home.execute(INSERT, key)
        servers.replica.wait_replayed()
        servers.primary.kill()
        await wait_for(lambda: not cluster.health().nodes[0].writable)
        for _ in range(20):
            assert await home.replica(max_lag=None).fetchval(READ, key) == 1
        await wait_for(lambda: refuses(cluster, key))
        token = await asyncio.gather(home.token(), return_exceptions=True)
        assert isinstance(token[0], NodeUnavailable)
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:  # which has never seen the primary
        assert await cluster.shard(key).replica(max_lag=None).fetchval(READ, key) == 1


async def refuses(cluster: Cluster, key: int) -> bool:
    """Tell whether a read that takes no lag is refused: the replica can't be known to be current any more."""
    try:
        await cluster.shard(key).replica(max_lag=0.5).fetchval(READ, key)
    except NodeUnavailable:
        return True
    return False


async def test_ended_sessions_cost_no_read_and_open_no_breaker(own_servers: OwnServers) -> None:
    """An administrator ends all sessions of a healthy node, again and again."""
    stage = await staged(own_servers, nodes=1)
    server, heard = stage.servers("node1").primary, Heard()
    end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'shardlib'"
    async with stage.databases.connect(keyspace=KEYSPACE, observer=heard) as cluster, under_load(cluster, 16) as load:
        await wait_for(lambda: len(load.requests) > 200)
        for _ in range(3):
            slow = [asyncio.ensure_future(slow_read(cluster, key)) for key in keys_of(cluster, "node1", 8)]
            await wait_for(lambda: cluster.health().nodes[0].endpoints[0].busy >= 8)
            await asyncio.to_thread(server.psql, end)  # more fail in a row than a breaker bears
            assert await asyncio.gather(*slow) == [1] * 8
            await goes_on(load)
    reads = load.during(0, monotonic(), lambda request: not request.wrote)
    writes = load.during(0, monotonic(), lambda request: request.wrote)
    assert (reads.errors, heard.of(BreakerOpened)) == ([], [])
    assert set(writes.errors) <= {"OutcomeUnknown"}


async def test_a_change_of_addresses_disturbs_no_request(own_servers: OwnServers) -> None:
    """Replicas come and go in the catalog, and the address is written otherwise: the node is the same."""
    stage = await staged(own_servers, nodes=1, replicas=1)
    url, replica = stage.databases.node_urls[0], stage.databases.replica_urls[0][0]
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster, under_load(cluster, 8) as load:
        await wait_for(lambda: len(load.requests) > 100)
        for replicas in ("{}", f"{{{replica}}}", "{}"):
            for address in (url.replace("127.0.0.1", "localhost"), url):
                slow = [asyncio.ensure_future(slow_write(cluster, key)) for key in keys_of(cluster, "node1", 4)]
                await wait_for(lambda: cluster.health().nodes[0].endpoints[0].busy >= 4)
                await stage.publish(f"UPDATE shardlib.node SET url = '{address}', replicas = '{replicas}'")
                await goes_on(load)
                assert await asyncio.gather(*slow) == ["UPDATE 1"] * 4
    assert load.during(0, monotonic()).errors == []


async def goes_on(load: Load) -> None:
    """Wait for more requests."""
    before = len(load.requests)
    await wait_for(lambda: len(load.requests) > before + 100)


def slow_read(cluster: Cluster, key: int) -> Awaitable[int]:
    return cluster.shard(key).fetchval("SELECT 1 FROM pg_sleep(0.3)")


def slow_write(cluster: Cluster, key: int) -> Awaitable[str]:
    return cluster.shard(key).execute(f"{RAISE} AND pg_sleep(0.3) IS NOT NULL", key)


async def test_a_write_that_was_under_way_is_unknown_and_one_that_waited_is_not(own_servers: OwnServers) -> None:
    stage = await staged(own_servers, nodes=1)
    async with stage.databases.connect(keyspace=KEYSPACE, pool_size=1, call_seconds=5.0) as cluster:
        key = keys_of(cluster, "node1")[0]
        home = cluster.shard(key)
        await home.execute(INSERT, key)
        under_way = asyncio.ensure_future(home.execute("UPDATE items_numbers SET note = pg_sleep(20)::text"))
        await wait_for(lambda: cluster.health().nodes[0].endpoints[0].busy == 1)
        waiting = asyncio.ensure_future(home.execute(RAISE, key))
        await wait_for(lambda: cluster.health().nodes[0].endpoints[0].waiting == 1)
        stage.servers("node1").primary.kill()
        with pytest.raises(OutcomeUnknown):
            await under_way
        with pytest.raises(NodeUnavailable):
            await waiting


# -- a fan-out that goes on without nodes which don't answer

EVERYTHING = "SELECT id FROM items_numbers WHERE /*mine*/"
fan_outs = pytest.mark.parametrize("limit", [None, 10])


async def everything(cluster: Cluster, limit: int | None) -> tuple[list[int], tuple[str, ...]]:
    """Return the keys that are found, and the nodes that are missing."""
    scatter = cluster.scatter(EVERYTHING, limit=limit, partial=Partial.SKIP)
    return [row["id"] async for row in scatter], scatter.missing


@fan_outs
async def test_a_fan_out_goes_on_without_a_node_that_is_out_of_time(own_servers: OwnServers, limit: int | None) -> None:
    stage = await staged(own_servers)
    server = stage.servers("node1").primary
    async with stage.databases.connect(keyspace=KEYSPACE, call_seconds=0.8) as cluster:
        key = keys_of(cluster, "node2")[0]
        await cluster.shard(key).execute(INSERT, key)
        assert await everything(cluster, limit) == ([key], ())
        server.freeze()
        try:
            assert await everything(cluster, limit) == ([key], ("node1",))
            with pytest.raises(Retryable):
                await cluster.scatter(EVERYTHING, limit=limit).fetch()
        finally:
            server.thaw()


@fan_outs
async def test_time_that_is_up_for_the_caller_is_no_partial_answer(own_servers: OwnServers, limit: int | None) -> None:
    stage = await staged(own_servers)
    server = stage.servers("node1").primary
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        assert await everything(cluster, limit) == ([], ())
        server.freeze()
        try:
            with pytest.raises(DeadlineExceeded):
                async with deadline(0.3):
                    await everything(cluster, limit)
        finally:
            server.thaw()


@fan_outs
async def test_a_fan_out_goes_on_without_a_node_that_too_many_wait_for(
    own_servers: OwnServers, limit: int | None
) -> None:
    stage = await staged(own_servers)
    async with stage.databases.connect(keyspace=KEYSPACE, pool_size=1, max_waiting=1) as cluster:
        one, other = keys_of(cluster, "node1")[0], keys_of(cluster, "node2")[0]
        await cluster.shard(other).execute(INSERT, other)
        async with cluster.shard(one).transaction() as tx:
            waiting = asyncio.ensure_future(cluster.shard(one).fetchval(READ, one))
            await wait_for(lambda: pool_of(cluster, one).waiting == 1)
            assert await everything(cluster, limit) == ([other], ("node1",))
            with pytest.raises(Overloaded):
                await cluster.scatter(EVERYTHING, limit=limit).fetch()
            await tx.execute(INSERT, one)
        assert await waiting == 1
