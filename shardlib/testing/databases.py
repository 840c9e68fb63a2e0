"""Fresh databases for each test, in servers that all tests share: one clone of a template per server.

The template databases are initialised once per session. What they hold about themselves, the nodes' addresses in the
catalog, is put right after the copy. Each test has databases of its own names, so that nothing which an earlier
test left running can reach them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import shardlib
from shardlib.cluster import Cluster
from shardlib.core.topology import Node
from shardlib.testing.cluster import LocalCluster
from shardlib.testing.engine import PostgresServer
from shardlib.testing.initial import KEYSPACES, environment, initialise, run_apart
from shardlib.testing.secrets_file import ADMIN, APPLICATION

REPLAY_SECONDS = 20
TEMPLATE = "template_of_tests"

ADDRESSES = """
UPDATE shardlib.node SET url = regexp_replace(url, '[^/]*$', '{name}'),
       admin_url = regexp_replace(admin_url, '[^/]*$', '{name}'),
       replication_url = regexp_replace(replication_url, '[^/]*$', '{name}'),
       replicas = ARRAY(SELECT regexp_replace(url, '[^/]*$', '{name}') FROM unnest(replicas) AS url);
"""
CAUGHT_UP = """
DO $$
DECLARE until timestamptz := clock_timestamp() + interval '{seconds} s';
BEGIN
    WHILE pg_last_wal_replay_lsn() < '{position}' LOOP
        IF clock_timestamp() > until THEN RAISE 'the replica has not replayed {position}'; END IF;
        PERFORM pg_sleep(0.002);
    END LOOP;
END $$;
"""


@dataclass(frozen=True)
class TestCluster:
    """Fresh databases of one test: a catalog, and one database per node, all of the same name."""

    __test__ = False  # not a class of tests, whatever pytest thinks of its name

    servers: LocalCluster
    database: str

    @property
    def catalog_url(self) -> str:
        """The catalog, for the application."""
        return self.servers.catalog.url(self.database, APPLICATION)

    @property
    def admin_url(self) -> str:
        """The catalog, for the administrator."""
        return self.servers.catalog.url(self.database, ADMIN)

    @property
    def node_names(self) -> tuple[str, ...]:
        """The nodes' names, in the order of all the lists here."""
        return tuple(node.name for node in self.servers.nodes)

    @property
    def node_urls(self) -> tuple[str, ...]:
        """Each node's primary, for the application."""
        return tuple(node.primary.url(self.database, APPLICATION) for node in self.servers.nodes)

    @property
    def node_admin_urls(self) -> tuple[str, ...]:
        """Each node's primary, for the administrator."""
        return tuple(node.primary.url(self.database, ADMIN) for node in self.servers.nodes)

    @property
    def replica_urls(self) -> tuple[tuple[str, ...], ...]:
        """Each node's replicas, for the application."""
        return tuple(tuple(replica.url(self.database, APPLICATION) for replica in node.replicas)
                     for node in self.servers.nodes)

    @property
    def nodes(self) -> dict[str, Node]:
        """The nodes as the catalog knows them, by name."""
        facts = zip(self.node_names, self.node_urls, self.node_admin_urls, self.replica_urls, strict=True)
        return {
            name: Node(name=name, url=url, admin_url=admin_url, replication_url=admin_url, replicas=replicas)
            for name, url, admin_url, replicas in facts
        }

    def connect(self, **options: Any) -> AbstractAsyncContextManager[Cluster]:
        """Open the library's door to it: ``shardlib.connect``, with its options."""
        return shardlib.connect(self.catalog_url, **options)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to find and enter these databases."""
        return {**self.servers.environment, "SHARDLIB_CATALOG_URL": self.catalog_url}


class Databases:
    """Makes and drops the databases of tests in the servers of one cluster."""

    def __init__(self, servers: LocalCluster) -> None:
        """Take running servers."""
        self._servers = servers
        self._numbers = itertools.count(1)
        self._threads = ThreadPoolExecutor(len(servers.primaries), thread_name_prefix="databases")

    def create(self, template: str = TEMPLATE) -> TestCluster:
        """Clone a template; return when the replicas have the copies too."""
        return self._clone(template, f"test_{next(self._numbers)}")

    def create_initial(self, name: str = TEMPLATE) -> TestCluster:
        """Make databases that hold what the library needs, and nothing else: once per cluster of servers."""
        made = self._clone("template1", name)
        with environment(made.environment):
            run_apart(initialise(made.admin_url, made.nodes, KEYSPACES))
        return made

    def derive(self, name: str, prepare: Callable[[TestCluster], None]) -> str:
        """Make a template of one's own, which ``prepare`` has filled; return what to hand to ``create``."""
        made = self._clone(TEMPLATE, f"template_{name}")
        with environment(made.environment):
            prepare(made)
        return made.database

    def _clone(self, source: str, name: str) -> TestCluster:
        made = TestCluster(self._servers, name)
        jobs = [self._threads.submit(self._clone_on, server, source, name) for server in self._servers.primaries]
        for job in jobs:
            job.result()
        return made

    def _clone_on(self, server: PostgresServer, source: str, name: str) -> None:
        script = f'CREATE DATABASE "{name}" OWNER {ADMIN} TEMPLATE "{source}";\n'
        if server is self._servers.catalog and source != "template1":
            script += f'\\connect "{name}"\n{ADDRESSES.format(name=name)}'
        position = server.psql(script + "SELECT pg_current_wal_flush_lsn()")
        for replica in self._servers.replicas:
            if replica.follows is server:
                replica.psql(CAUGHT_UP.format(position=position, seconds=REPLAY_SECONDS))

    def drop(self, cluster: TestCluster) -> None:
        """Drop a test's databases, and end whatever is still connected to them."""
        script = f'DROP DATABASE IF EXISTS "{cluster.database}" WITH (FORCE)'
        jobs = [self._threads.submit(server.psql, script) for server in self._servers.primaries]
        for job in jobs:
            job.result()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
