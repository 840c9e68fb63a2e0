"""Nodes that are down, clients that go away: what others notice of it, which is nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import pytest

from service.app import Service, open_service
from service.profiles.users import Users
from shardlib import Shard, Token
from shardlib.deadlines import current_deadline
from shardlib.testing.cluster import NodeServers
from shardlib.testing.databases import TestCluster
from shardlib.testing.plugin import OwnServers
from tests.service.client import Answer, Api
from tests.service.conftest import migrate, serve, settings_for
from tests.service.process import PATIENCE_SECONDS, run
from tests.support.waiting import wait_for, wait_until

REQUEST_SECONDS = 2.0
WRITE_SECONDS = 0.5
SLACK_SECONDS = 8.0  # for a busy machine


@dataclass(frozen=True)
class Pair:
    """A service on two nodes, and a user on each."""

    cluster: TestCluster
    service: Service
    api: Api
    users: dict[str, dict[str, Any]]

    async def read(self, node: str, **headers: str) -> Answer:
        """Read the user who lives on a node."""
        return await self.api.get(f"/v1/users/{self.users[node]['id']}", **headers)

    def servers(self, name: str) -> NodeServers:
        """Return the servers of a node."""
        return next(node for node in self.cluster.servers.nodes if node.name == name)

    def writable(self, name: str) -> bool:
        """Return whether the service can use a node."""
        return next(node.writable for node in self.service.cluster.health().nodes if node.name == name)


@pytest.fixture
async def pair(own_servers: OwnServers) -> AsyncIterator[Pair]:
    """Run a service on two private nodes with a replica each."""
    cluster = own_servers(nodes=2, replicas=1)
    migrate()
    async with open_service(settings_for(cluster, request_seconds=REQUEST_SECONDS)) as service, serve(service) as api:
        users: dict[str, dict[str, Any]] = {}
        while len(users) < 2:
            user = await api.create()
            users[service.cluster.where(UUID(user["id"]), keyspace="users").node] = user
        yield Pair(cluster, service, api, users)


async def test_a_node_that_is_down_is_only_its_users_trouble(pair: Pair) -> None:
    servers = pair.servers("node2")
    servers.replica.wait_replayed()
    servers.primary.kill()
    started = perf_counter()
    answer = await pair.read("node2")
    assert answer.status == 503
    assert perf_counter() - started < REQUEST_SECONDS + SLACK_SECONDS
    await wait_for(lambda: not pair.writable("node2"), PATIENCE_SECONDS)

    answers = await asyncio.gather(*(pair.read("node2") for _ in range(30)), *(pair.read("node1") for _ in range(30)))
    assert {answer.status for answer in answers[:30]} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers[:30])
    assert {answer.status for answer in answers[30:]} == {200}
    listed = await pair.api.get("/v1/users")
    assert listed.status == 503
    path = f"/v1/users/{pair.users['node2']['id']}"
    assert (await pair.api.call("PATCH", path, body={"name": "x"})).status == 503
    assert (await pair.api.call("DELETE", path)).status == 503

    async def replica_answers() -> bool:
        """Its replica still serves those who allow it, once a connection to it is open."""
        near = await pair.read("node2", Max_Lag="3600")
        return near.status == 200 and near.json == pair.users["node2"]

    await wait_for(replica_answers, PATIENCE_SECONDS)

    servers.primary.start()
    await wait_for(lambda: pair.writable("node2"), PATIENCE_SECONDS)
    assert (await pair.read("node2")).json == pair.users["node2"]
    changed = await pair.api.call("PATCH", path, body={"name": "back"})
    assert (changed.status, changed.json["name"]) == (200, "back")


async def test_what_tidies_up_behind_a_write_cannot_fail_it(pair: Pair) -> None:
    made = [await pair.api.create() for _ in range(30)]
    where = pair.service.cluster.where
    mine = [user for user in made if where(UUID(user["id"]), keyspace="users").node == "node1"]
    primary = pair.servers("node2").primary
    primary.kill()  # and with it the index entries of half of the e-mails
    gone = await asyncio.gather(*(pair.api.call("DELETE", f"/v1/users/{user['id']}") for user in mine))
    assert {answer.status for answer in gone} == {204}
    primary.start()
    await wait_for(lambda: pair.writable("node2"), PATIENCE_SECONDS)
    for user in mine:
        await pair.api.create(email=user["email"])  # whoever comes next tidies up


async def test_a_frozen_node_holds_up_nobody_else(pair: Pair) -> None:
    primary = pair.servers("node2").primary
    primary.freeze()
    try:
        stuck = [asyncio.create_task(pair.read("node2")) for _ in range(40)]
        started = perf_counter()
        for _ in range(20):
            assert (await pair.read("node1")).status == 200
        assert perf_counter() - started < SLACK_SECONDS
        assert {answer.status for answer in await asyncio.gather(*stuck)} == {503}
        assert perf_counter() - started < REQUEST_SECONDS + SLACK_SECONDS
    finally:
        primary.thaw()
    await wait_for(lambda: pair.writable("node2"), PATIENCE_SECONDS)
    assert (await pair.read("node2")).json == pair.users["node2"]


async def test_it_starts_with_a_node_down_and_names_it(own_servers: OwnServers, tmp_path: Path) -> None:
    cluster = own_servers(nodes=2, replicas=0)
    migrate()
    primary = next(node.primary for node in cluster.servers.nodes if node.name == "node2")
    primary.kill()
    with run(cluster, tmp_path, workers=1) as running:
        wait_until(lambda: running.ready().get("status") == "degraded", PATIENCE_SECONDS)
        ready = running.ready()
        assert {name: node["status"] for name, node in ready["nodes"].items()} == {"node1": "up", "node2": "down"}
        assert ready["nodes"]["node2"]["endpoints"][0]["usable_by"] == 0
        assert running.ask("/readyz")[0] == 200
        assert 'shardlib_node_up{node="node2"} 0.0' in running.ask("/metrics")[1].decode()
        primary.start()
        wait_until(lambda: running.ready()["status"] == "ready", PATIENCE_SECONDS)
        cluster.servers.catalog.kill()
        wait_until(lambda: running.ready()["catalog"] == "down", PATIENCE_SECONDS)
        assert running.ask("/readyz")[0] == 200


@pytest.mark.parametrize("setup", ["full"], indirect=True)
async def test_clients_that_go_away_cost_no_connection(service: Service, api: Api) -> None:
    user = await api.create()
    port = int(api.base.rpartition(":")[2])
    path = f"/v1/users/{user['id']}"
    patch = b'{"name":"gone"}'
    kinds = "Content-Type: application/merge-patch+json"
    requests = [
        f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        f"PATCH {path} HTTP/1.1\r\nHost: a\r\n{kinds}\r\nContent-Length: {len(patch)}\r\n\r\n".encode() + patch,
        f"PATCH {path} HTTP/1.1\r\nHost: a\r\n{kinds}\r\nContent-Length: {len(patch)}\r\n\r\n".encode() + patch[:5],
        b"GET /v1/users HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    for number in range(200):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(requests[number % len(requests)])
        await asyncio.sleep(0)
        writer.transport.abort()
    await wait_for(lambda: service.counts.in_flight == 0, PATIENCE_SECONDS)
    endpoints = [endpoint for node in service.cluster.health().nodes for endpoint in node.endpoints]
    assert sum(endpoint.busy + endpoint.waiting for endpoint in endpoints) == 0
    assert (await api.get(path)).json["email"] == user["email"]


async def test_a_token_takes_no_more_than_what_the_write_left_of_the_time(
    stage: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    until: list[float] = []
    write = Users.delete

    async def slow(users: Users, user_id: UUID, if_match: str | None) -> bool:
        until.append(_until())
        await asyncio.sleep(WRITE_SECONDS)
        return await write(users, user_id, if_match)

    async def hang(_: Shard) -> Token:
        until.append(_until())
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    monkeypatch.setattr(Users, "delete", slow)
    monkeypatch.setattr(Shard, "token", hang)
    settings = settings_for(stage, request_seconds=REQUEST_SECONDS)
    async with open_service(settings) as service, serve(service) as api:
        path = f"/v1/users/{(await api.create())['id']}"
        async with asyncio.timeout(PATIENCE_SECONDS):
            answer = await api.call("DELETE", path, Prefer="consistency-token")
        assert answer.status == 204
        assert "Consistency-Token" not in answer.headers
    of_the_write, of_the_token = until
    assert of_the_token - of_the_write < WRITE_SECONDS / 2


def _until() -> float:
    around = current_deadline()
    return float("inf") if around is None else around.at
