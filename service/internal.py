"""The internal port: health, metrics, version. Owned by the supervisor, reached by operators only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service import VERSION
from service.door import Door, Limits, Server
from service.exposition import exposition
from service.fleet import Fleet
from service.metrics import Counts
from service.reply import NO_STORE_LINES, Reply, header_lines
from service.route import Answer, Call, Route, Routes

_JSON_LINES = NO_STORE_LINES + header_lines({"Content-Type": "application/json"})
_TEXT_LINES = NO_STORE_LINES + header_lines({"Content-Type": CONTENT_TYPE_LATEST})
_LIMITS = Limits(in_flight=50, body_seconds=1.0, slow_seconds=5.0)
_IDLE_SECONDS = 75.0


class ReadyQuery(Struct, forbid_unknown_fields=True):
    """``?verbose`` shows every node and worker."""

    verbose: Annotated[str, Meta(max_length=5)] | None = None


class Internal:
    """The handlers. ``refresh`` brings the fleet up to date."""

    def __init__(self, fleet: Fleet, refresh: Callable[[], Awaitable[None]]) -> None:
        self._fleet = fleet
        self._refresh = refresh

    async def livez(self, _: Call) -> Reply:
        """GET /livez: this process runs."""
        return _json(200, {"status": "alive"})

    async def readyz(self, call: Call) -> Reply:
        """GET /readyz: requests can be served; 503 when none can, or the service drains."""
        readiness = self._fleet.readiness()
        found: dict[str, Any] = asdict(readiness)
        if call.query(ReadyQuery).verbose is not None:
            await self._refresh()
            readiness = self._fleet.readiness()
            found = {**asdict(readiness), **self._details()}
        return _json(200 if readiness.ready else 503, found)

    async def metrics(self, _: Call) -> Reply:
        """GET /metrics."""
        await self._refresh()
        return Reply(200, exposition(self._fleet), _TEXT_LINES)

    async def version(self, _: Call) -> Reply:
        """GET /version."""
        return _json(200, {"version": VERSION})

    def _details(self) -> dict[str, Any]:
        seen = [report.cluster for report in self._fleet.reports()]
        return {
            "epoch": min((one.epoch for one in seen), default=None),
            "snapshot_age_seconds": max((one.snapshot_age_seconds for one in seen), default=None),
            "catalog": "up" if seen and all(one.catalog_answers for one in seen) else "down",
            "nodes": {node.name: asdict(node) for node in self._fleet.nodes()},
            "workers": [asdict(view) for view in self._fleet.worker_views()],
        }


def internal_server(fleet: Fleet, refresh: Callable[[], Awaitable[None]]) -> Server:
    """Return the server of the internal port."""
    at = Internal(fleet, refresh)
    some = {200: Answer("It.", dict[str, Any])}
    routes = Routes(
        (
            Route("GET", "/livez", at.livez, "livez", "The process runs", some),
            Route("GET", "/readyz", at.readyz, "readyz", "Requests can be served", some, query=ReadyQuery),
            Route("GET", "/metrics", at.metrics, "metrics", "Metrics", some),
            Route("GET", "/version", at.version, "version", "Which version this is", some),
        )
    )
    return Server(Door(routes, Counts(), _LIMITS), idle_seconds=_IDLE_SECONDS)


def _json(status: int, value: Any) -> Reply:
    return Reply(status, msgspec.json.encode(value), _JSON_LINES)
