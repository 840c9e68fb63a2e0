"""The service in this process, on real databases, in each of the set-ups that it has to work in.

``full`` has three nodes with a replica each, ``no-replicas`` the same nodes alone, ``one-node`` a single one. Choose
one with ``-k``: ``pytest tests/service -k one-node``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from service import logs
from service.app import Service, open_service
from service.settings import Settings
from shardlib.testing.cluster import LocalCluster
from shardlib.testing.databases import Databases, TestCluster
from shardlib.testing.initial import environment
from tests.service.client import Api

_WITHOUT_REPLICAS = "UPDATE shardlib.node SET replicas = '{}'"
_ONE_NODE = "UPDATE shardlib.bucket SET node = 'node1'; DELETE FROM shardlib.node WHERE name <> 'node1'"
SETUPS = {"full": "SELECT 1", "no-replicas": _WITHOUT_REPLICAS, "one-node": f"{_WITHOUT_REPLICAS}; {_ONE_NODE}"}


@pytest.fixture(scope="session", params=list(SETUPS))
def setup(request: pytest.FixtureRequest) -> str:
    """Name the set-up."""
    return str(request.param)


@pytest.fixture(scope="session")
def stage(setup: str, shardlib_servers: LocalCluster, shardlib_databases: Databases) -> Iterator[TestCluster]:
    """Hold migrated databases for all tests of a set-up; each test makes users of its own."""

    def prepare(cluster: TestCluster) -> None:
        migrate()
        shardlib_servers.catalog.psql(f'\\connect "{cluster.database}"\n{SETUPS[setup]}')

    cluster = shardlib_databases.create(shardlib_databases.derive(f"service_{setup.replace('-', '_')}", prepare))
    with environment(cluster.environment):
        yield cluster
    shardlib_databases.drop(cluster)


@pytest.fixture(autouse=True)
def _logging() -> None:
    """Log as the service does."""
    logs.configure("info")


@pytest.fixture
async def service(stage: TestCluster) -> AsyncIterator[Service]:
    """Run the service on the stage."""
    async with open_service(settings_for(stage)) as running:
        yield running


@pytest.fixture
async def api(service: Service) -> AsyncIterator[Api]:
    """Talk to the service over HTTP."""
    async with serve(service) as client:
        yield client


@asynccontextmanager
async def serve(service: Service) -> AsyncIterator[Api]:
    """Put a service behind a port of its own, and a client in front."""
    runner = web.ServerRunner(service.server, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with Api(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
        yield client
    await runner.cleanup()


def settings_for(cluster: TestCluster, **changed: object) -> Settings:
    """Return settings that fit a cluster of tests."""
    plain: dict[str, object] = {
        "catalog_url": cluster.catalog_url,
        "identifier_keys": "1:" + "ab" * 32,
        "cursor_key": "a key for tests and for nothing else",
    }
    return Settings(**{**plain, **changed})  # type: ignore[arg-type]


def migrate() -> None:
    """Apply all migrations to the cluster that the environment names."""
    subprocess.run([sys.executable, "-m", "migrations", "apply"], check=True, env=os.environ, stdout=subprocess.DEVNULL)
