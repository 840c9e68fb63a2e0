"""Claims that a dead process left behind are settled without anybody wanting the value."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest

from service import logs
from service.app import Service, open_service
from shardlib import Unique
from shardlib.errors import NodeUnavailable
from shardlib.testing.databases import TestCluster
from shardlib.unique import Swept
from tests.service.conftest import settings_for
from tests.support.waiting import wait_for

AGE_ALL = "UPDATE shardlib.identifier SET claimed_at = claimed_at - interval '1 hour' WHERE state = 'pending'"


async def test_a_forgotten_claim_is_freed(stage: TestCluster, service: Service) -> None:
    email = f"{uuid4().hex}@example.org"
    await service.unique.claim("email", email, uuid4())
    assert await service.unique.entries("email", email)
    for node in stage.servers.nodes:
        node.primary.psql(AGE_ALL, database=stage.database)

    async def is_free() -> bool:
        return not await service.unique.entries("email", email)

    hurried = msgspec.structs.replace(settings_for(stage), sweep_seconds=0.05)
    async with open_service(hurried):
        await wait_for(is_free, 30)


async def test_a_sweep_that_fails_is_not_the_last(
    stage: TestCluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("info")  # onto the output that is captured here
    errors: list[Exception] = [ValueError("a bug"), NodeUnavailable("down", node="node1")]
    swept = []
    sweep = Unique.sweep

    async def failing(unique: Unique) -> Swept:
        if errors:
            raise errors.pop()
        swept.append(await sweep(unique))
        return swept[-1]

    monkeypatch.setattr(Unique, "sweep", failing)
    async with open_service(msgspec.structs.replace(settings_for(stage), sweep_seconds=0.01)):
        await wait_for(lambda: swept, 30)
    said = capsys.readouterr().out
    assert '"error":"ValueError"' in said
    assert '"error":"NodeUnavailable"' in said
