"""All users as NDJSON, each line importable again. Rows come from all nodes at once, in no order, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

from service.profiles.sql import SQL
from shardlib import Cluster
from shardlib.bulk import Bulk


async def export_users(cluster: Cluster, write: Callable[[bytes], object]) -> int:
    """Write every user; return how many. Each node's are of one moment.

    Raises Refused when buckets moved meanwhile: what was written is then incomplete.
    """
    users = 0
    async for chunk in Bulk(cluster, keyspace="users").copy_out(SQL["export"]):
        users += chunk.count(b"\n")
        write(chunk.replace(b"\\\\", b"\\"))  # the only one of COPY's escapes that JSON has a use for
    return users
