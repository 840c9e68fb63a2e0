"""A catalog and three nodes with nothing but the library's bookkeeping."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from migrations.targets import Access
from shardlib.testing.databases import TestCluster
from tests.migrations.workbench import Bench


@pytest.fixture
def bench(shardlib_cluster: TestCluster, tmp_path: Path) -> Bench:
    """Give a catalog and three nodes that no migration has touched."""
    return Bench(Access.from_environment(os.environ), tmp_path)
