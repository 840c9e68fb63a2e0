"""Reads on replicas: within the lag that was asked for, never older than the token, and none fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from shardlib.cluster import Cluster
from shardlib.errors import Rejected
from shardlib.stats import EndpointHealth
from shardlib.testing.engine import PostgresServer
from shardlib.testing.plugin import OwnServers
from tests.pg.links import stop_looking
from tests.pg.stage import INSERT, KEYSPACE, RAISE, READ, Stage, keys_of
from tests.support.proxy import FaultProxy
from tests.support.waiting import wait_for

WHERE = "SELECT current_setting('cluster_name')"
READ_AND_WHERE = "SELECT version, pg_is_in_recovery() FROM items_numbers WHERE id = $1"
BEHIND_SECONDS = 10.0  # that replay stays paused under load


async def answered_on(cluster: Cluster, key: int, max_lag: float | None = 1.0) -> str:
    """Return the name of the server that answers a read."""
    return str(await cluster.shard(key).replica(max_lag=max_lag).fetchval(WHERE))


def replicas_of(cluster: Cluster, node: str = "node1") -> list[EndpointHealth]:
    """Return what is known of a node's replicas."""
    found = next(health for health in cluster.health().nodes if health.name == node)
    return [endpoint for endpoint in found.endpoints if endpoint.role == "replica"]


@asynccontextmanager
async def resumed(replica: PostgresServer) -> AsyncIterator[None]:
    """Let a replica apply again at the end, whatever happens."""
    try:
        yield
    finally:
        replica.start()
        replica.resume_replay()


async def test_a_replica_answers_and_can_only_read(stage: Stage) -> None:
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        name = stage.servers("node1").replica.name
        await wait_for(lambda: is_now(cluster, key, name))
        reader = cluster.shard(key).replica()
        for statement in (RAISE, "BEGIN", f"WITH raised AS ({RAISE} RETURNING 1) SELECT * FROM raised"):
            with pytest.raises(Rejected):
                await reader.fetch(statement, key)
        assert await reader.fetch(READ, key) == []
        assert await reader.fetchrow(READ, key) is None


async def is_now(cluster: Cluster, key: int, name: str, max_lag: float | None = 1.0) -> bool:
    return await answered_on(cluster, key, max_lag) == name


async def test_a_replica_that_stopped_applying_leaves_when_its_lag_is_too_long(stage: Stage) -> None:
    servers = stage.servers("node1")
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster, resumed(servers.replica):
        key = keys_of(cluster, "node1")[0]
        await wait_for(lambda: is_now(cluster, key, servers.replica.name, 0.6))
        servers.replica.pause_replay()
        await cluster.shard(key).execute(INSERT, key)
        await wait_for(lambda: is_now(cluster, key, servers.primary.name, 0.6))
        assert await answered_on(cluster, key, None) == servers.replica.name
        assert await cluster.shard(key).replica(max_lag=None).fetchval(READ, key) is None
        assert await cluster.shard(key).replica(max_lag=0.6).fetchval(READ, key) == 1
        servers.replica.resume_replay()
        await wait_for(lambda: is_now(cluster, key, servers.replica.name, 0.6))


async def test_a_replica_that_was_cut_off_does_not_count_as_current(own_servers: OwnServers) -> None:
    """Its own clocks call it current: it has applied all that it was sent."""
    stage = Stage(own_servers())
    await stage.prepare()
    primary, replica = stage.servers("node1").primary, stage.servers("node1").replica
    async with FaultProxy(primary.port) as proxy, stage.databases.connect(keyspace=KEYSPACE) as cluster:
        upstream = replica.psql("SHOW primary_conninfo").replace(f"port={primary.port}", f"port={proxy.port}")
        replica.psql(f"ALTER SYSTEM SET primary_conninfo = '{upstream.replace(chr(39), chr(39) * 2)}'")
        await asyncio.to_thread(replica.psql, "SELECT pg_reload_conf()")
        streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = "
        await wait_for(lambda: asyncio.to_thread(lambda: replica.psql(f"{streams}{proxy.port}") == "1"))
        key = keys_of(cluster, "node1")[0]
        await wait_for(lambda: is_now(cluster, key, replica.name))
        proxy.stall()
        await cluster.shard(key).execute(INSERT, key)
        await wait_for(lambda: is_now(cluster, key, primary.name))
        token = await cluster.shard(key).token()
        assert await cluster.shard(key).replica(max_lag=None, after=token).fetchval(READ, key) == 1
        assert await cluster.shard(key).replica(max_lag=None).fetchval(READ, key) is None
        proxy.go_on()
        await wait_for(lambda: is_now(cluster, key, replica.name))
        assert await cluster.shard(key).replica(max_lag=None, after=token).fetchval(READ, key) == 1


async def test_an_idle_cluster_has_current_replicas(stage: Stage) -> None:
    """Nothing is written for longer than the lag asked for: the replica is current, for there is nothing to apply."""
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        await cluster.shard(key).execute(INSERT, key)
        token = await cluster.shard(key).token()
        name = stage.servers("node1").replica.name
        await wait_for(lambda: is_now(cluster, key, name, 0.5))
        seen = [replicas_of(cluster)[0].lag_seconds]
        while len(seen) < 20:
            await wait_for(lambda: replicas_of(cluster)[0].lag_seconds != seen[-1])
            seen.append(replicas_of(cluster)[0].lag_seconds)
            assert await cluster.shard(key).replica(after=token, max_lag=None).fetchval(WHERE) == name


async def test_two_replicas_share_the_reads_and_the_busier_one_gets_fewer(own_servers: OwnServers) -> None:
    stage = Stage(own_servers(replicas=2))
    await stage.prepare()
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        names = {replica.name for replica in stage.servers("node1").replicas}
        await wait_for(lambda: len(replicas_of(cluster)) == 2)
        await wait_for(lambda: is_a_replica(cluster, key, names))
        counts = Counter([await answered_on(cluster, key, None) for _ in range(100)])
        assert set(counts) == names
        assert min(counts.values()) >= 20
        slow = f"{WHERE}, pg_sleep(1)"
        busy = asyncio.ensure_future(cluster.shard(key).replica(max_lag=None).fetchval(slow))
        await wait_for(lambda: sum(replica.busy for replica in replicas_of(cluster)) == 1)
        while_busy = {await answered_on(cluster, key, None) for _ in range(20)}
        assert not busy.done()
        assert while_busy == names - {await busy}


async def is_a_replica(cluster: Cluster, key: int, names: set[str]) -> bool:
    return await answered_on(cluster, key) in names


async def test_a_replica_that_was_started_again_is_not_taken_for_what_it_was(
    own_servers: OwnServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come back behind what it had applied, and its monitor hasn't looked yet."""
    stage = Stage(own_servers())
    await stage.prepare()
    primary, replica = stage.servers("node1").primary, stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster:
        key = keys_of(cluster, "node1")[0]
        await cluster.shard(key).execute(INSERT, key)
        await wait_for(lambda: is_now(cluster, key, replica.name, 30.0))
        await stop_looking(cluster, monkeypatch)
        replica.kill()
        replica.start()
        await wait_for(lambda: is_now(cluster, key, replica.name, None))
        assert await answered_on(cluster, key, 30.0) == primary.name


# -- the loop: writes with a token, reads with that token, while the replica suffers


@dataclass
class Load:
    """Writers that count up a row each and read it back with their token, and what they saw."""

    cluster: Cluster
    keys: list[int]
    reads: int = 0
    by_replica: int = 0
    failures: list[BaseException] = field(default_factory=list)
    stale: list[tuple[int, int]] = field(default_factory=list)
    over: bool = False

    async def run(self, key: int) -> None:
        """Write, take the token, read twice with it; any max_lag."""
        home = self.cluster.shard(key)
        await home.execute(INSERT, key)
        written = 1
        while not self.over:
            try:
                await home.execute(RAISE, key)
                written += 1
                token = str(await home.token())
                for max_lag in (None, 1.0):
                    reader = home.replica(after=token, max_lag=max_lag)
                    [(version, on_replica)] = await reader.fetch(READ_AND_WHERE, key)
                    self.reads += 1
                    self.by_replica += on_replica
                    if version < written:
                        self.stale.append((version, written))
            except Exception as error:
                self.failures.append(error)


@asynccontextmanager
async def under_load(cluster: Cluster, tasks: int = 6) -> AsyncIterator[Load]:
    """Run the load; no read may be stale, none may fail."""
    load = Load(cluster, keys_of(cluster, "node1", tasks))
    running = [asyncio.ensure_future(load.run(key)) for key in load.keys]
    try:
        yield load
    finally:
        load.over = True
        await asyncio.gather(*running)
    assert (load.stale, load.failures) == ([], [])


async def goes_on(load: Load) -> None:
    """Wait for more reads, whoever answers them."""
    before = load.reads
    await wait_for(lambda: load.reads > before + 50)


async def served(load: Load) -> bool:
    """Wait for more answers of a replica."""
    before = load.by_replica
    with suppress(AssertionError):
        await wait_for(lambda: load.by_replica > before + 5, 0.5)
    return load.by_replica > before + 5


async def test_no_read_with_a_token_is_older_while_replay_stops_and_goes_on(stage: Stage) -> None:
    replica = stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster, resumed(replica), under_load(cluster) as load:
        for _ in range(3):
            await wait_for(lambda: served(load))
            await asyncio.to_thread(replica.pause_replay)
            await goes_on(load)
            await asyncio.to_thread(replica.resume_replay)
        await wait_for(lambda: served(load))


async def test_no_read_with_a_token_is_older_while_the_replica_stops_and_lags(own_servers: OwnServers) -> None:
    stage = Stage(own_servers())
    await stage.prepare()
    replica = stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster, under_load(cluster) as load:
        for end in (replica.stop, replica.kill):
            await wait_for(lambda: served(load))
            await asyncio.to_thread(end)
            await goes_on(load)
            await asyncio.to_thread(replica.start)
            await asyncio.to_thread(replica.pause_replay)
            await asyncio.sleep(BEHIND_SECONDS)
            await asyncio.to_thread(replica.resume_replay)
        await wait_for(lambda: served(load))


async def test_no_read_fails_while_the_replica_is_frozen(own_servers: OwnServers) -> None:
    stage = Stage(own_servers())
    await stage.prepare()
    replica = stage.servers("node1").replica
    async with stage.databases.connect(keyspace=KEYSPACE) as cluster, under_load(cluster, 3) as load:
        await wait_for(lambda: served(load))
        replica.freeze()
        try:
            await wait_for(lambda: broken(cluster), 15.0)
            await goes_on(load)
        finally:
            replica.thaw()
        await wait_for(lambda: served(load))


def broken(cluster: Cluster) -> bool:
    return any(endpoint.broken for endpoint in cluster.health().nodes[0].endpoints)
