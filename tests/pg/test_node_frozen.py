"""A frozen node takes nothing from the others, and costs its own callers their deadline once, then nothing."""

from __future__ import annotations

from shardlib.testing.plugin import OwnServers
from tests.chaos.node_frozen import CALL_SECONDS, HEAL_SECONDS, freeze
from tests.pg.stage import Stage

FROZEN_SECONDS = 6.0
STEADY_SECONDS = 2.0


async def test_others_go_on_while_a_node_is_frozen(own_servers: OwnServers) -> None:
    """Coarse bounds: other work shares this machine. The script of tests/chaos measures, and has the fine ones."""
    stage = Stage(own_servers(nodes=2, replicas=0))
    await stage.prepare()
    found = await freeze(stage, FROZEN_SECONDS, STEADY_SECONDS)
    assert found.during.errors == []
    assert found.rate_kept >= 0.5  # tests/chaos/node_frozen.py measures
    assert found.waiting.slowest <= CALL_SECONDS + 0.5
    assert found.opened_after <= CALL_SECONDS + 1.0
    assert len(found.refused) > 50
    assert set(found.refused.errors) == {"NodeUnavailable"}
    assert found.refused.milliseconds(50) <= 100
    assert found.healed_after < HEAL_SECONDS
