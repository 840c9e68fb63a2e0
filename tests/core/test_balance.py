"""Balancing, step by step on boards small enough to follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from shardlib.core.balance import Band, Board, Edge
from shardlib.core.ring import Ring
from shardlib.core.topology import Node


def board(
    held: Mapping[str, Sequence[int]],
    bands: Mapping[str, Band],
    sizes: Sequence[float],
    regions: Mapping[int, str] | None = None,
) -> Board:
    ring = Ring("users", [Node(name, url="postgresql://h/app") for name in bands])
    made = Board(ring, bands, sizes, regions or {})
    for node, buckets in held.items():
        for bucket in buckets:
            made.keep(bucket, node)
    return made


def _by_distance(bands: Mapping[str, Band], node: str, buckets: Sequence[int]) -> list[int]:
    ring = board({}, bands, []).ring
    return sorted(buckets, key=lambda bucket: next(ring.walk(bucket, {node})))


def test_a_band_has_three_edges_and_a_measure_of_pressure() -> None:
    band = Band(fair=100, slack=2)
    assert [band.above(edge) for edge in Edge] == pytest.approx([98, 100, 102])
    assert band.below(Edge.UPPER) < 102 < band.above(Edge.UPPER)
    assert [band.pressure(load) for load in (98, 100, 103)] == [-1, 0, 1.5]


def test_inside_the_bands_nothing_moves() -> None:
    made = board({"a": range(11), "b": range(11, 20)}, {"a": Band(10, 1), "b": Band(10, 1)}, [1] * 20)
    made.balance()
    assert made.load == {"a": 11, "b": 9}


def test_a_newcomer_is_filled_to_its_band_and_no_further() -> None:
    made = board({"a": range(10), "b": range(10, 20)}, {name: Band(20 / 3, 1) for name in "abc"}, [1] * 20)
    made.balance()
    assert made.load == {"a": 7, "b": 7, "c": 6}


def test_of_the_givers_buckets_the_nearest_to_the_taker_go() -> None:
    made = board({"a": range(100)}, {"a": Band(90, 2), "b": Band(10, 2)}, [1] * 100)
    made.balance()
    nearest = _by_distance(made.bands, "b", range(100))[:8]
    assert {bucket for bucket, node in made.home.items() if node == "b"} == set(nearest)


def test_the_last_bucket_may_carry_a_node_past_its_share() -> None:
    """Shares of 1.5: the one over its band gives to one below its share, though that ends half a bucket above."""
    made = board({"a": range(3), "b": [3]}, {"a": Band(1.75, 1), "b": Band(2.25, 1)}, [1] * 4)
    made.balance()
    assert made.load == {"a": 2, "b": 2}


def test_a_node_under_its_band_takes_from_those_inside_theirs() -> None:
    bands = {"a": Band(3.6, 1), "b": Band(3.6, 1), "c": Band(1.8, 1)}
    made = board({"a": range(4), "b": range(4, 8)}, bands, [1] * 9)
    made.balance()
    assert made.load == {"a": 3, "b": 4, "c": 1}


def test_the_fullest_gives_each_time() -> None:
    held = {"a": range(11), "z": range(11, 24), "c": range(24, 30)}
    made = board(held, dict.fromkeys(held, Band(10, 2)), [1] * 30)
    made.balance()
    assert made.load == {"a": 11, "c": 8, "z": 11}


@pytest.mark.parametrize(
    "small, taken, after",
    [(89, 79, {"a": 118, "b": 80}), (95, 85, {"a": 120, "b": 90})],
    ids=["the taker below its band", "the giver above its band"],
)
def test_nobody_is_carried_past_its_share_while_that_can_be_helped(
    small: int, taken: int, after: Mapping[str, float]
) -> None:
    """The bucket of 30 is the nearest and would leave both in their bands; some of size 1 serve, and carry less."""
    bands = dict.fromkeys("ab", Band(100, 20))
    large = _by_distance(bands, "b", range(small))[0]
    sizes = [1] * small + [30, taken]
    sizes[large], sizes[small] = sizes[small], sizes[large]
    made = board({"a": range(small + 1), "b": [small + 1]}, bands, sizes)
    made.balance()
    assert made.load == after
    assert made.home[large] == "a"


def test_what_moves_in_any_case_is_sent_on_before_what_could_stay() -> None:
    """The new bucket of 8 ends on b, beside three new ones of 1: those make room for it, not b's own, though nearer."""
    bands = dict.fromkeys("ab", Band(12.5, 1))
    near_a, near_b = (_by_distance(bands, name, range(300)) for name in "ab")
    own, new = near_a[:5], near_b[:3]
    sizes = [1] * 300 + [8]
    made = board({"a": near_a[50:59], "b": own}, bands, sizes)
    made.place([*new, 300])
    made.balance()
    assert made.load == {"a": 12, "b": 13}
    assert {made.home[bucket] for bucket in own} == {made.home[300]} == {"b"}
    assert {made.home[bucket] for bucket in new} == {"a"}


def test_a_fixed_bucket_and_an_empty_one_stay() -> None:
    made = board({"a": [1]}, {"a": Band(1, 1), "b": Band(5, 1)}, [6, 0])
    made.fix(0, "a")
    made.balance()
    assert made.home == {0: "a", 1: "a"}


def test_a_bucket_that_fits_nowhere_goes_where_it_weighs_least_and_isnt_chased() -> None:
    made = board({"a": [0]}, {"a": Band(50, 1), "b": Band(50, 1)}, [20, 80])
    made.place([1])
    made.balance()
    assert made.home == {0: "a", 1: "b"}


def test_regions_hold_while_placing_and_balancing() -> None:
    bands = {"a": Band(2, 1, "eu"), "b": Band(2, 1, "us")}
    made = board({"a": range(5)}, bands, [1] * 6, dict.fromkeys(range(6), "eu"))
    made.place([5])
    made.balance()
    assert made.load == {"a": 6, "b": 0}
    assert made.allows(0, "a")
    assert not made.allows(0, "b")
