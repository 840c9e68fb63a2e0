"""Delays grow, are capped, are drawn evenly, and end with the deadline."""

from __future__ import annotations

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.backoff import Backoff

BACKOFF = Backoff(base=0.05, cap=1.0)


def test_the_ceiling_doubles_with_each_failure_up_to_the_cap() -> None:
    assert [BACKOFF.ceiling(failures) for failures in range(1, 8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert BACKOFF.ceiling(0) == 0.05
    assert BACKOFF.ceiling(10**9) == 1.0


def test_without_a_chance_the_delay_is_the_ceiling() -> None:
    assert BACKOFF.delay(3) == BACKOFF.ceiling(3)


def test_delays_are_spread_over_the_whole_range() -> None:
    dice = random.Random(7)
    delays = [BACKOFF.delay(5, dice.random()) for _ in range(10_000)]
    assert statistics.mean(delays) == pytest.approx(0.4, rel=0.02)
    assert min(delays) < 0.01
    assert max(delays) > 0.79


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True), st.floats(0, 1e6), st.floats(0, 10))
def test_a_retry_is_always_before_the_deadline(failures: int, chance: float, now: float, left: float) -> None:
    delay = BACKOFF.delay_before(now + left, failures, now, chance)
    if delay is None:
        assert now + BACKOFF.delay(failures, chance) >= now + left
    else:
        assert 0 <= delay <= BACKOFF.cap
        assert now + delay < now + left


def test_past_the_deadline_it_gives_up() -> None:
    assert BACKOFF.delay_before(10.0, 1, 10.0, 0.0) is None
    assert BACKOFF.delay_before(10.0, 1, 9.97, 0.9) is None
    assert BACKOFF.delay_before(10.0, 1, 9.97, 0.5) == 0.025
