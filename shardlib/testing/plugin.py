"""The pytest plugin: real, sharded Postgres for tests, by asking for a fixture.

    async def test_a_user_is_found(shardlib_cluster):
        async with shardlib_cluster.connect() as cluster:
            ...

``shardlib_servers``  the session's servers: a catalog, three nodes, a replica each; started at the first use
``shardlib_cluster``  fresh databases in them for this test, ready to use
``own_servers``       a factory of private servers, for tests that kill, stop or freeze them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from shardlib.testing import ports
from shardlib.testing.cluster import LocalCluster, NodePorts
from shardlib.testing.databases import Databases, TestCluster
from shardlib.testing.places import place
from shardlib.testing.settings import FOR_TESTS

OwnServers = Callable[..., TestCluster]


def describe_servers(directory: Path, nodes: int, replicas: int) -> LocalCluster:
    """Describe servers for tests, on ports that are free."""
    node_ports = {
        f"node{number}": NodePorts(ports.take(1)[0], tuple(ports.take(replicas))) for number in range(1, nodes + 1)
    }
    return LocalCluster(directory, ports.take(1)[0], node_ports, FOR_TESTS, tied=True)


@contextmanager
def private_servers(nodes: int, replicas: int) -> Iterator[TestCluster]:
    """Run servers of their own with one set of databases; stop and remove them at the end."""
    with place() as directory:
        servers = describe_servers(directory, nodes, replicas)
        servers.start()
        databases = Databases(servers)
        try:
            yield databases.create_initial("app")
        finally:
            databases.close()
            servers.stop()


@pytest.fixture(scope="session")
def shardlib_servers() -> Iterator[LocalCluster]:
    """Run a catalog and three nodes with a replica each; nothing of them is left at the end."""
    with place() as directory:
        servers = describe_servers(directory, nodes=3, replicas=1)
        servers.start()
        yield servers
        servers.stop()


@pytest.fixture(scope="session")
def shardlib_databases(shardlib_servers: LocalCluster) -> Iterator[Databases]:
    """Hold the template databases that each test's are cloned from."""
    databases = Databases(shardlib_servers)
    databases.create_initial()
    yield databases
    databases.close()


@pytest.fixture
def shardlib_cluster(shardlib_databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestCluster]:
    """Give fresh databases, and set the environment so that programs and this process can enter them."""
    cluster = shardlib_databases.create()
    enter(cluster, monkeypatch)
    yield cluster
    shardlib_databases.drop(cluster)


@pytest.fixture
def own_servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[OwnServers]:
    """Start private servers: ``own_servers(nodes=1, replicas=1)``; what is done to them hurts nobody else."""
    with ExitStack() as stack:
        def start(*, nodes: int = 1, replicas: int = 1) -> TestCluster:
            cluster = stack.enter_context(private_servers(nodes, replicas))
            enter(cluster, monkeypatch)
            return cluster

        yield start


def enter(cluster: TestCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point this process's environment, passwords included, at a cluster."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
