"""Fair shares: by weight, around pins and regions, as if poured drop by drop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.shares import Seat, fair_shares

DROPS = 2000


def test_equal_nodes_share_equally() -> None:
    assert fair_shares([Seat("a", 1), Seat("b", 1), Seat("c", 1), Seat("d", 1)], 4096, {}) == dict.fromkeys(
        "abcd", 1024
    )


def test_shares_follow_weights() -> None:
    assert fair_shares([Seat("a", 0.5), Seat("b", 1.5)], 100, {}) == {"a": 25, "b": 75}


def test_a_node_pinned_beyond_its_share_keeps_it_and_gets_no_more() -> None:
    assert fair_shares([Seat("a", 1, pinned=60), Seat("b", 1), Seat("c", 1, pinned=10)], 30, {}) == {
        "a": 60,
        "b": 20,
        "c": 20,
    }


def test_a_node_may_hold_nothing_but_pins() -> None:
    assert fair_shares([Seat("a", 1, pinned=10)], 0, {}) == {"a": 10}
    full = fair_shares([Seat("a", 3, pinned=0.1), Seat("b", 7, pinned=0.2)], 0, {})
    assert full == pytest.approx({"a": 0.1, "b": 0.2})


def test_a_region_with_much_of_its_own_gets_nothing_of_what_is_free() -> None:
    seats = [Seat("a", 1, "eu"), Seat("b", 1, "eu"), Seat("c", 1, "us")]
    assert fair_shares(seats, 30, {"eu": 90}) == {"a": 45, "b": 45, "c": 30}


def test_a_region_with_little_of_its_own_is_levelled_with_the_others() -> None:
    seats = [Seat("a", 1, "eu"), Seat("b", 1, "eu"), Seat("c", 1, "us")]
    assert fair_shares(seats, 60, {"eu": 30}) == {"a": 30, "b": 30, "c": 30}


_SEATS = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from(["eu", "us", "as"]), st.integers(0, 20)),
    min_size=1,
    max_size=6,
)


def _pour(seats: list[Seat], free: int, bound: dict[str, int]) -> dict[str, float]:
    """Do it the dumb way: drop by drop into the lowest node, what is bound to a region first."""
    height = {seat.name: seat.pinned for seat in seats}
    for region, load in [*bound.items(), (None, free)]:
        candidates = [seat for seat in seats if region in (None, seat.region)]
        for _ in range(DROPS):
            lowest = min(candidates, key=lambda seat: height[seat.name] / seat.weight)
            height[lowest.name] += load / DROPS
    return height


@given(_SEATS, st.integers(0, 100), st.data())
def test_it_is_what_pouring_drop_by_drop_gives(
    drawn: list[tuple[float, str, int]], free: int, data: st.DataObject
) -> None:
    seats = [Seat(f"n{number}", weight, region, pinned) for number, (weight, region, pinned) in enumerate(drawn)]
    bound = {region: data.draw(st.integers(0, 60)) for region in sorted({seat.region for seat in seats})}
    shares = fair_shares(data.draw(st.permutations(seats)), free, bound)
    total = free + sum(bound.values()) + sum(seat.pinned for seat in seats)
    assert sum(shares.values()) == pytest.approx(total)
    assert shares == pytest.approx(_pour(seats, free, bound), abs=0.5)
