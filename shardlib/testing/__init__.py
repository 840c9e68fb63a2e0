"""Real Postgres servers for tests and for a local stack: no root, no Docker, nothing but wheels.

Users' tests get them by the pytest fixtures of ``shardlib.testing.plugin``, which pytest finds by itself. The parts
below are for those who want servers outside pytest.
"""

from shardlib.testing.cluster import LocalCluster, NodePorts, NodeServers
from shardlib.testing.databases import TestCluster
from shardlib.testing.engine import PostgresServer
from shardlib.testing.programs import EngineError

__all__ = ["EngineError", "LocalCluster", "NodePorts", "NodeServers", "PostgresServer", "TestCluster"]
