"""Spread the users of a product over many Postgres nodes: no proxy, no extra hop, nothing to install but a package.

    async with shardlib.connect(catalog_url) as cluster:
        home = cluster.shard(user_id)
        row = await home.fetchrow("SELECT ... WHERE id = $1", user_id)

Errors are in ``shardlib.errors``; what tests need is in ``shardlib.testing``.
"""

from shardlib import bulk
from shardlib.cluster import Cluster, Location, Reader, Shard
from shardlib.connect import connect
from shardlib.core.tokens import Token
from shardlib.core.topology import Topology
from shardlib.deadlines import deadline
from shardlib.observe import Event, Observer
from shardlib.pg.errors import Record, UniqueViolation
from shardlib.scatter import Partial, Scatter
from shardlib.stats import ClusterHealth
from shardlib.transactions import Isolation, Transaction
from shardlib.unique import Claim, Unique

__all__ = [
    "Claim",
    "Cluster",
    "ClusterHealth",
    "Event",
    "Isolation",
    "Location",
    "Observer",
    "Partial",
    "Reader",
    "Record",
    "Scatter",
    "Shard",
    "Token",
    "Topology",
    "Transaction",
    "Unique",
    "UniqueViolation",
    "bulk",
    "connect",
    "deadline",
]

__version__ = "0.1.0"
