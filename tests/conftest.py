"""What all tests share: no skip without a known reason, and the servers of ``shardlib.testing``."""

from __future__ import annotations

pytest_plugins = ["tests.support.skips", "pytester"]
