"""A catalog and some nodes with their replicas, as one thing to start and stop."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shardlib.testing import template
from shardlib.testing.binaries import Binaries, find_binaries
from shardlib.testing.engine import PostgresServer
from shardlib.testing.programs import EngineError
from shardlib.testing.secrets_file import ADMIN, APPLICATION, Secrets
from shardlib.testing.settings import Settings

CATALOG_DATABASE, NODE_DATABASE = "catalog", "app"


@dataclass(frozen=True)
class NodePorts:
    """Where a node listens; no replica ports means no replicas."""

    primary: int
    replicas: tuple[int, ...] = ()


@dataclass(frozen=True)
class NodeServers:
    """The servers of one node."""

    name: str
    primary: PostgresServer
    replicas: tuple[PostgresServer, ...]

    @property
    def replica(self) -> PostgresServer:
        """The first replica; EngineError when the node has none."""
        if not self.replicas:
            raise EngineError(f"{self.name} has no replica")
        return self.replicas[0]


class LocalCluster:
    """Real servers below one directory: ``catalog``, and by each node's name N ``N`` and ``N_replica1``.

    Constructing does nothing; ``start`` makes what is missing and starts what isn't running, so it also repairs.
    """

    def __init__(
        self, root: Path, catalog_port: int, nodes: Mapping[str, NodePorts], settings: Settings, *, tied: bool
    ) -> None:
        """Describe a cluster; ``tied`` servers die with the process that started them."""
        self.root = root.absolute()
        self.settings = settings
        self.tied = tied
        self._catalog_port = catalog_port
        self._node_ports = dict(nodes)
        self._binaries: Binaries | None = None
        self._described: tuple[PostgresServer, tuple[NodeServers, ...]] | None = None

    @property
    def secrets(self) -> Secrets:
        """The passwords of all servers."""
        return Secrets(self.root / "secrets")

    @property
    def catalog(self) -> PostgresServer:
        """The catalog's server."""
        return self._describe()[0]

    @property
    def nodes(self) -> tuple[NodeServers, ...]:
        """The nodes, in the order of their names."""
        return self._describe()[1]

    def _describe(self) -> tuple[PostgresServer, tuple[NodeServers, ...]]:
        if self._described is None:
            secrets, binaries = self.secrets, find_binaries()
            catalog = self._server("catalog", self._catalog_port, binaries, secrets)
            nodes = tuple(self._node(name, ports, binaries, secrets) for name, ports in self._node_ports.items())
            self._described = catalog, nodes
        return self._described

    def _server(self, name: str, port: int, binaries: Binaries, secrets: Secrets) -> PostgresServer:
        return PostgresServer(name, self.root / name, port, binaries, secrets, self.settings, tied=self.tied)

    def _node(self, name: str, ports: NodePorts, binaries: Binaries, secrets: Secrets) -> NodeServers:
        plain = name.replace("-", "_")  # slots have no dash in their names
        primary = self._server(plain, ports.primary, binaries, secrets)
        replicas = []
        for number, port in enumerate(ports.replicas, start=1):
            replica = self._server(f"{plain}_replica{number}", port, binaries, secrets)
            replica.follows = primary
            replicas.append(replica)
        return NodeServers(name, primary, tuple(replicas))

    @property
    def primaries(self) -> list[PostgresServer]:
        """The catalog and each node's primary."""
        return [self.catalog, *(node.primary for node in self.nodes)]

    @property
    def replicas(self) -> list[PostgresServer]:
        """All replicas."""
        return [replica for node in self.nodes for replica in node.replicas]

    @property
    def servers(self) -> list[PostgresServer]:
        """All servers, primaries first."""
        return [*self.primaries, *self.replicas]

    def server(self, name: str) -> PostgresServer:
        """Return a server by its name."""
        for server in self.servers:
            if server.name == name:
                return server
        raise EngineError(f"no server {name} here, only {', '.join(server.name for server in self.servers)}")

    def start(self) -> None:
        """Make and start whatever isn't there; return when all take connections."""
        self.secrets.ensure()
        template.give_away(self.root)
        self._create_missing()
        for server in self.servers:
            server.launch()
        for primary in self.primaries:
            primary.wait_ready()
        for replica in self.replicas:
            if replica.follows is not None:
                replica.follows.ensure_slot(replica.name)
        for replica in self.replicas:
            replica.wait_ready()

    def _create_missing(self) -> None:
        source = None
        for server in self.primaries:
            if not server.exists:
                source = source or template.template(find_binaries(), self.root / "template")
                server.create(source)
        for replica in self.replicas:
            if replica.exists:
                continue
            if not self._is_new(replica) and replica.follows is not None:
                replica.follows.start()
            replica.create_replica()

    @staticmethod
    def _is_new(replica: PostgresServer) -> bool:
        """Tell whether the replica's primary has never run, so that its files may simply be copied."""
        return replica.follows is not None and not replica.follows.log.exists()

    def stop(self) -> None:
        """Shut all down in order, replicas and primaries at the same time."""
        for server in self.servers:
            server.ask_to_stop()
        for server in self.servers:
            server.wait_stopped()

    def kill(self) -> None:
        """Kill -9 everything."""
        for server in self.servers:
            server.kill()

    def remove(self) -> None:
        """Kill everything and remove the directory."""
        self.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def create_databases(self) -> None:
        """Make the databases ``catalog`` and, on each node, ``app``, both owned by the administrator."""
        create_database(self.catalog, CATALOG_DATABASE)
        for node in self.nodes:
            create_database(node.primary, NODE_DATABASE)

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs in its environment to find and enter this cluster."""
        return {
            "SHARDLIB_CATALOG_URL": self.catalog.url(CATALOG_DATABASE, APPLICATION),
            "SHARDLIB_PASSWORD_FILE": str(self.secrets.file(APPLICATION)),
            "SHARDLIB_ADMIN_PASSWORD_FILE": str(self.secrets.file(ADMIN)),
            "PGPASSFILE": str(self.secrets.passfile),
        }

    def __iter__(self) -> Iterator[PostgresServer]:
        """Walk over all servers."""
        return iter(self.servers)


def create_database(server: PostgresServer, name: str) -> None:
    """Make a database that the administrator owns, unless it exists."""
    if not server.psql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
        server.psql(f'CREATE DATABASE "{name}" OWNER {ADMIN}')
