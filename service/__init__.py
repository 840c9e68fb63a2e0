"""The user service: accounts over HTTP, on the nodes that shardlib routes to."""

from __future__ import annotations

VERSION = "0.1.0"
