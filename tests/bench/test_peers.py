"""What is compared does the same work: the same bodies, byte for byte, and the same headers."""

from __future__ import annotations

import os

import pytest

from bench import http_get, stage
from shardlib.testing import TestCluster


async def test_the_bare_handler_answers_as_the_service_does(
    shardlib_cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_get, "USERS", 100)
    await stage.migrate()
    async with http_get.contenders(shardlib_cluster) as both:
        ours, peer = [await http_get.answers(each.port, each.paths.split()) for each in both.values()]
    assert len(ours) == 100
    assert ours == peer


async def test_pinning_is_undone() -> None:
    cores = os.sched_getaffinity(0)
    with stage.beside():
        pass
    assert os.sched_getaffinity(0) == cores
