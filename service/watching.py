"""What the library notices, as lines in the log: names of nodes and reasons that are its own words."""

from __future__ import annotations

from dataclasses import fields

import structlog

from shardlib import Event

_SERIOUS = frozenset({"BreakerOpened", "CatalogLost", "OutcomeLost"})


class Watching:
    """An Observer that logs."""

    def __init__(self) -> None:
        self._log = structlog.get_logger()

    def observe(self, event: Event, /) -> None:
        """Write one line."""
        values = {field.name: getattr(event, field.name) for field in fields(event)}
        name = type(event).__name__
        if name in _SERIOUS:
            self._log.warning("cluster", what=name, **values)
        else:
            self._log.info("cluster", what=name, **values)
