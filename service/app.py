"""The service as one thing: the cluster, the capabilities on it, and the door in front."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import shardlib
from service import pages
from service.afterwards import Afterwards
from service.door import Door, Limits, Server
from service.metrics import Counts
from service.profiles import routes as profiles
from service.profiles.cursors import Cursors
from service.profiles.users import HELD, KEYSPACE, Users
from service.profiles.wire import JSON_VALUE
from service.route import Routes
from service.settings import Settings
from service.sweeping import sweeping
from service.watching import Watching
from shardlib import Cluster, Unique

IDENTIFIERS = "identifiers"
SETTLE_SECONDS = 1.0  # for the steps behind answers, when all requests have ended and the process follows


@dataclass(frozen=True, slots=True)
class Service:
    """What one process serves."""

    cluster: Cluster
    routes: Routes
    counts: Counts
    door: Door
    server: Server
    afterwards: Afterwards
    unique: Unique


@asynccontextmanager
async def open_service(settings: Settings) -> AsyncIterator[Service]:
    """Connect to the cluster and yield the service; it needs a catalog or a snapshot, not all of its nodes."""
    connecting = shardlib.connect(
        settings.catalog_url,
        call_seconds=settings.request_seconds,
        pool_size=settings.pool_size,
        snapshot_file=settings.snapshot_file,
        observer=Watching(),
        application_name="service",
    )
    async with connecting as cluster:
        service = assemble(cluster, settings)
        async with sweeping(service.unique, settings.sweep_seconds):
            yield service
            await service.afterwards.settle(SETTLE_SECONDS)


def assemble(cluster: Cluster, settings: Settings) -> Service:
    """Return the service on a cluster: capabilities meet here and nowhere else."""
    unique = Unique(
        cluster, held=HELD, keys=settings.keys, current=settings.current_key, keyspace=IDENTIFIERS, home=KEYSPACE
    )
    afterwards = Afterwards(settings.request_seconds)
    users = Users(cluster, unique, settings.signing_key, afterwards)
    about = pages.Pages()
    routes = Routes(
        [*profiles.routes(users, Cursors(settings.signing_key), settings.request_seconds), *pages.routes(about)]
    )
    about.describe(routes.all, {"JsonValue": JSON_VALUE})
    counts = Counts()
    limits = Limits(
        in_flight=settings.max_in_flight,
        body_seconds=settings.body_seconds,
        slow_seconds=settings.slow_seconds,
        log_all=settings.log_requests == "all",
    )
    door = Door(routes, counts, limits)
    return Service(cluster, routes, counts, door, Server(door, idle_seconds=settings.idle_seconds), afterwards, unique)
