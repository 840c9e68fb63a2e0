"""The breaker: its states as a transcript, and that no request ever probes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.health import (
    CLOSE_AFTER,
    HEALTHY,
    MAX_RETRY_AFTER,
    MIN_RETRY_AFTER,
    OPEN_AFTER,
    Breaker,
    Outcome,
    State,
)

OK, FAIL, LOOK, MISS = Outcome.ANSWERED, Outcome.FAILED, Outcome.LOOKED, Outcome.LOOK_FAILED
OPEN = Breaker(State.OPEN, 0, 100.0, "connection refused")


def states(start: Breaker, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the state after each outcome, a second apart."""
    seen = []
    for second, outcome in enumerate(outcomes):
        start = start.after(outcome, 100.0 + second, "no answer")
        seen.append(start.state.value)
    return seen


@pytest.mark.parametrize(
    "start, outcomes, expected",
    [
        (HEALTHY, [FAIL, FAIL, FAIL], ["closed", "closed", "open"]),
        (HEALTHY, [MISS, FAIL, MISS], ["closed", "closed", "open"]),
        (HEALTHY, [FAIL, FAIL, OK, FAIL, FAIL, LOOK, FAIL], ["closed"] * 7),
        (OPEN, [OK, FAIL, OK], ["open"] * 3),
        (OPEN, [LOOK, LOOK], ["half open", "closed"]),
        (OPEN, [LOOK, MISS, LOOK, LOOK], ["half open", "open", "half open", "closed"]),
        (OPEN, [LOOK, FAIL, OK, LOOK], ["half open", "half open", "half open", "closed"]),
        (OPEN, [MISS, MISS], ["open", "open"]),
    ],
)
def test_transcript(start: Breaker, outcomes: list[Outcome], expected: list[str]) -> None:
    assert states(start, outcomes) == expected


def test_success_in_the_steady_state_is_recognised_by_identity() -> None:
    assert HEALTHY.after(OK, 1.0) is HEALTHY
    assert HEALTHY.after(FAIL, 1.0).after(OK, 2.0) is HEALTHY
    assert OPEN.after(LOOK, 1.0).after(LOOK, 2.0) is HEALTHY


def test_an_open_breaker_knows_why_and_since_when() -> None:
    opened = reduce(lambda breaker, second: breaker.after(FAIL, second, f"failure {second}"), range(1, 4), HEALTHY)
    assert opened == Breaker(State.OPEN, 0, 3, "failure 3")
    assert opened.after(LOOK, 8.0).after(MISS, 9.0, "again") == opened


def test_the_hint_is_as_long_as_the_outage_within_bounds() -> None:
    assert HEALTHY.retry_after(1e9) == 0
    assert OPEN.retry_after(100.0) == MIN_RETRY_AFTER
    assert OPEN.retry_after(103.0) == 3
    assert OPEN.after(LOOK, 103.0).retry_after(104.0) == 4
    assert OPEN.retry_after(1000.0) == MAX_RETRY_AFTER


@given(st.lists(st.sampled_from(Outcome), max_size=30))
def test_it_opens_and_closes_for_these_reasons_only(outcomes: list[Outcome]) -> None:
    """Against a dumb alternative that looks back over all of history."""
    breaker, history = HEALTHY, list[Outcome]()
    for second, outcome in enumerate(outcomes):
        was, breaker = breaker, breaker.after(outcome, float(second))
        history.append(outcome)
        if was.lets_through and not breaker.lets_through:
            assert all(each in (FAIL, MISS) for each in history[-OPEN_AFTER:])
            assert len(history) >= OPEN_AFTER
            history.clear()
        elif breaker.lets_through and not was.lets_through:
            assert [each for each in history if each in (LOOK, MISS)][-CLOSE_AFTER:] == [LOOK] * CLOSE_AFTER
            assert outcome is LOOK
            history.clear()
        elif was.lets_through:
            assert any(each in (OK, LOOK) for each in history[-OPEN_AFTER:]) or len(history) < OPEN_AFTER
