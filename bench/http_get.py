"""``GET /v1/users/{id}``, 64 connections, one worker: our service against a bare aiohttp handler on asyncpg's pool.

The two servers take turns on a core of their own; load and Postgres have the other one. Both read the same rows.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

import asyncpg
from aiohttp import ClientError, ClientSession

import shardlib
from bench.harness import Goal, compared, report, setting, take_turns
from bench.stage import beside, migrate, new_keys, servers, version
from shardlib.testing import TestCluster, ports

USERS, CONNECTIONS = 5000, 64
ROUNDS, SECONDS = 20, 2.0
START_SECONDS = 30.0
COLUMNS = ["id", "email", "name", "username", "profile", "locale"]


@dataclass(slots=True)
class Contender:
    """A server under load, and the latencies that were seen."""

    port: int
    paths: str
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    async def measure(self) -> float:
        """Load it in a process of its own; return requests per second."""
        command = (sys.executable, "-m", "bench.load", str(self.port), str(CONNECTIONS), str(SECONDS))
        pipe = asyncio.subprocess.PIPE
        with beside():
            load = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        printed, _ = await load.communicate(self.paths.encode("ascii"))
        figures = json.loads(printed)
        if figures["failed"]:
            raise RuntimeError(f"{figures['failed']} requests were not answered with 200")
        self.p50_ms.append(figures["p50_ms"])
        self.p99_ms.append(figures["p99_ms"])
        return float(figures["requests"] / figures["seconds"])


def per_round(figures: Sequence[float]) -> list[float]:
    """Return the mean of each round's two measurements, without the warm-up round."""
    return [statistics.fmean(figures[at:at + 2]) for at in range(2, len(figures), 2)]


async def add_users(on: TestCluster) -> list[UUID]:
    """Put users on the first node; return their ids."""
    async with shardlib.connect() as cluster:
        ids = list(islice(new_keys(cluster, on.node_names[0]), USERS))
    profile = json.dumps({"city": "Zürich", "interests": ["rowing", "chess"], "newsletter": True})
    rows = [(each, f"{each.hex}@example.org", "Ada Müller", each.hex[:20], profile, "de-CH") for each in ids]
    connection = await asyncpg.connect(on.node_admin_urls[0])
    await connection.copy_records_to_table("users", records=rows, columns=COLUMNS)
    await connection.execute("VACUUM ANALYZE users")
    await connection.close()
    return ids


@asynccontextmanager
async def process(*arguments: str, **environment: str) -> AsyncIterator[None]:
    """Run a Python module; end it at the end."""
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, env={**os.environ, **environment}, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        made.terminate()
        await made.wait()


async def answers(port: int, paths: Sequence[str]) -> list[tuple[bytes, set[str]]]:
    """Return a server's bodies, as soon as it is there, and the names of its headers; each answer must be 200."""
    async with asyncio.timeout(START_SECONDS), ClientSession(f"http://127.0.0.1:{port}") as client:
        while True:
            try:
                async with client.get(paths[0]) as answer:
                    if answer.status == 200:
                        break
            except ClientError:
                pass
            await asyncio.sleep(0.05)
        found = []
        for path in paths:
            async with client.get(path, raise_for_status=True) as answer:
                found.append((await answer.read(), answer.headers.keys() - {"Server"}))
        return found


@asynccontextmanager
async def contenders(on: TestCluster) -> AsyncIterator[dict[str, Contender]]:
    """Start both; refuse to compare answers that differ."""
    paths = [f"/v1/users/{each}" for each in await add_users(on)]
    ours, internal, peer = ports.take(3)
    settings = {
        "SERVICE_LISTEN": f"127.0.0.1:{ours}", "SERVICE_INTERNAL": f"127.0.0.1:{internal}", "SERVICE_WORKERS": "1",
        "SERVICE_IDENTIFIER_KEYS": f"1:{secrets.token_hex(32)}", "SERVICE_CURSOR_KEY": secrets.token_hex(32),
    }
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(process("service", "api", **settings))
        url = on.node_urls[0]
        await stack.enter_async_context(process("bench.peers.bare_aiohttp", url, str(peer)))
        if await answers(ours, paths[:100]) != await answers(peer, paths[:100]):
            raise RuntimeError("the two don't answer the same")
        text = "\n".join(paths)
        yield {"ours": Contender(ours, text), "aiohttp": Contender(peer, text)}


async def main() -> None:
    """Run it and write the report."""
    with servers() as on:
        await migrate()
        async with contenders(on) as both:
            taken = await take_turns({name: each.measure for name, each in both.items()}, ROUNDS)
            ours, peer = both["ours"], both["aiohttp"]
            report("http_get", [
                compared("requests vs bare aiohttp", "/s", taken["ours"], taken["aiohttp"], Goal(1.4)),
                compared("p50 vs bare aiohttp", "ms", per_round(ours.p50_ms), per_round(peer.p50_ms)),
                compared("p99 vs bare aiohttp", "ms", per_round(ours.p99_ms), per_round(peer.p99_ms),
                         Goal(1.0, "at most")),
            ], setting(postgres=await version(on), users=USERS, connections=CONNECTIONS, workers=1, fsync="off"))
