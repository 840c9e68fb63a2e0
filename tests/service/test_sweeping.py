"""Claims that a dead process left behind are settled without anybody wanting the value."""

from __future__ import annotations

from uuid import uuid4

import msgspec

from service.app import Service, open_service
from shardlib.testing.databases import TestCluster
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
