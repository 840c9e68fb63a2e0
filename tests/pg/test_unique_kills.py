"""No value has two owners while the servers that decide are killed, frozen and started again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

import shardlib
from shardlib.errors import ClaimLost, OutcomeUnknown, Retryable, Taken
from shardlib.testing.engine import PostgresServer
from shardlib.testing.plugin import OwnServers
from tests.pg.claimants import HOMES, Claimant, World, world

VALUES, CONTENDERS, OUTAGES = 60, 3, 6
PASSES = (Retryable, OutcomeUnknown, ClaimLost)


@pytest.mark.parametrize("home", HOMES)
async def test_servers_come_and_go_under_a_crowd(own_servers: OwnServers, home: str) -> None:
    databases = own_servers(nodes=3, replicas=0)
    troubles: Counter[str] = Counter()
    async with world(databases, home) as homes:
        over = asyncio.Event()
        nodes = [node.primary for node in databases.servers.nodes]
        outages = asyncio.create_task(_come_and_go(nodes, over))
        winners: dict[str, list[Any]] = {}
        async with asyncio.TaskGroup() as tasks:
            for number in range(VALUES * CONTENDERS):
                email = f"{number % VALUES}@example.org"
                tasks.create_task(_persist(homes, email, winners.setdefault(email, []), troubles))
        over.set()
        kills = await outages
        print(kills, dict(troubles))
        assert kills["killed"] > 0
        assert kills["frozen"] > 0
        assert troubles.total() > VALUES / 4, "the outages were met"
        for email, owners in winners.items():
            assert len(owners) == 1, f"{email}: {owners}"
            assert await homes.holders(email) == owners
            assert await homes.claimant().unique.find("email", email) == owners[0]


async def _persist(homes: World, email: str, winners: list[Any], troubles: Counter[str]) -> None:
    """Want a value until it is one's own or somebody else's, whatever happens to the servers."""
    somebody, owner = homes.claimant(), homes.new_owner()
    while True:
        try:
            await _once(somebody, owner, email)
        except PASSES as error:
            troubles[type(error).__name__] += 1
            await asyncio.sleep(0.05)
        except Taken:
            return
        else:
            winners.append(owner)
            return


async def _once(somebody: Claimant, owner: Any, email: str) -> None:
    async with shardlib.deadline(2.0):
        await somebody.make_own(owner, email)


async def _come_and_go(servers: list[PostgresServer], over: asyncio.Event) -> Counter[str]:
    """Kill or freeze one server after the other until the crowd is through, and a few of them at least."""
    done: Counter[str] = Counter()
    while done.total() < OUTAGES or not over.is_set():
        server = servers[done.total() % len(servers)]
        if done.total() % 2:
            await asyncio.to_thread(server.freeze)
            await asyncio.sleep(0.2)  # the length of the outage
            await asyncio.to_thread(server.thaw)
            done["frozen"] += 1
        else:
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            done["killed"] += 1
        await asyncio.sleep(0.1)
    return done
