"""Where the parts are put together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from shardlib.calls import Desk
from shardlib.cluster import Cluster
from shardlib.errors import Rejected
from shardlib.observe import Guarded, Observer, Silence
from shardlib.pg.catalog import PgCatalog
from shardlib.pg.link import Credentials
from shardlib.pg.nodes import PgNodes, Sessions
from shardlib.pg.pool import Limits
from shardlib.watch import Watcher

FIRST_LOOK_SECONDS = 1.5  # for the endpoints to answer before the first request; a node that is down can't hold up more


@asynccontextmanager
async def connect(  # noqa: PLR0913  # all but the first are limits with a default that is meant
    catalog_url: str | None = None,
    *,
    keyspace: str | None = None,
    call_seconds: float = 5.0,
    lease_seconds: float = 3.0,
    pool_size: int = 10,
    max_waiting: int = 1000,
    snapshot_file: str | Path | None = None,
    observer: Observer | None = None,
    application_name: str = "shardlib",
) -> AsyncIterator[Cluster]:
    """Open a cluster: ``async with shardlib.connect(catalog_url) as cluster: ...``.

    ``catalog_url`` is SHARDLIB_CATALOG_URL if not given; passwords come from SHARDLIB_PASSWORD, the file that
    SHARDLIB_PASSWORD_FILE names, PGPASSFILE, or the URL. ``keyspace`` is the one meant where none is named.
    ``call_seconds`` bounds each call without a ``deadline``; ``pool_size`` the connections per endpoint and process,
    ``max_waiting`` the calls that may wait for one. ``lease_seconds`` is how long an answer of the catalog is relied
    on: it must be the same for every process of the cluster. With a ``snapshot_file`` a process can start while the
    catalog is down. Nodes that are down don't prevent the start.

    Raises CatalogUnavailable when there is neither a catalog nor a snapshot, FormatMismatch for one of another version.
    """
    url = catalog_url or os.environ.get("SHARDLIB_CATALOG_URL")
    if not url:
        raise Rejected("no catalog: give catalog_url or set SHARDLIB_CATALOG_URL")
    credentials = Credentials.from_environment()
    watching = Guarded(observer) if observer is not None else Silence()
    nodes = PgNodes(Sessions(credentials, Limits(pool_size, max_waiting), application_name), watching)
    catalog = PgCatalog(url, credentials.application, application_name)
    watcher = Watcher(catalog, nodes, lease_seconds, Path(snapshot_file) if snapshot_file else None, watching)
    cluster = Cluster(Desk(watcher, nodes, watching, call_seconds), nodes, keyspace)
    try:
        await watcher.start()
        await nodes.first_look(FIRST_LOOK_SECONDS)
        yield cluster
    finally:
        await cluster.close()
