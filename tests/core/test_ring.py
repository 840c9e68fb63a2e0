"""The ring: uhashring's answers, whatever the order of the nodes, without its traps."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uhashring import HashRing

from shardlib.core.ring import MAX_POINTS, POINTS, Ring, point_of
from shardlib.core.topology import Node
from shardlib.errors import Rejected

BUCKETS = 4096


def nodes(*weights: float) -> list[Node]:
    return [Node(f"node{number}", url="postgresql://h/app", weight=weight) for number, weight in enumerate(weights, 1)]


def first_choices(ring: Ring) -> list[str]:
    return [next(ring.walk(bucket, ring.nodes))[1] for bucket in range(BUCKETS)]


def test_the_lists_are_those_that_uhashring_would_give() -> None:
    theirs = HashRing({"node1": {"vnodes": 160}, "node2": {"vnodes": 80}, "node3": {"vnodes": 320}}, hash_fn=point_of)
    ours = Ring("users", nodes(1, 0.5, 2))
    for bucket in range(200):
        assert ours.preference(bucket) == list(theirs.iterate_nodes(f"users:{bucket}"))
        assert ours.preference(bucket)[0] == theirs.get_node(f"users:{bucket}")


def test_the_lists_never_change() -> None:
    """What a running cluster was planned with must come out again, on each machine and after each upgrade."""
    ring = Ring("users", nodes(1, 1, 1, 1))
    lists = "\n".join(" ".join(ring.preference(bucket)) for bucket in range(BUCKETS))
    assert ring.preference(0) == ["node4", "node1", "node2", "node3"]
    assert hashlib.sha256(lists.encode()).hexdigest()[:16] == "71a68ea27287e270"


@settings(max_examples=30)
@given(st.permutations(nodes(1, 0.3, 2.5, 1)), st.integers(0, 65_535))
def test_the_order_of_the_nodes_has_no_meaning(shuffled: list[Node], bucket: int) -> None:
    assert Ring("users", shuffled).preference(bucket) == Ring("users", nodes(1, 0.3, 2.5, 1)).preference(bucket)


def test_of_nodes_on_one_point_it_is_always_the_same_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardlib.core.ring.point_of", lambda text: point_of(text) % 500)
    one, two = Ring("users", nodes(1, 1, 1)), Ring("users", reversed(nodes(1, 1, 1)))
    assert [one.preference(bucket) for bucket in range(50)] == [two.preference(bucket) for bucket in range(50)]


def test_a_walk_goes_around_once_and_away_from_the_bucket() -> None:
    ring = Ring("users", nodes(1, 2))
    steps = list(ring.walk(7, ring.nodes))
    assert len(steps) == 3 * POINTS
    assert list(ring.walk(7, {"node2"})) == [step for step in steps if step[1] == "node2"]
    assert all(0 <= near < far < 2**64 for (near, _), (far, _) in pairwise(steps))


def test_first_choices_follow_fractional_weights() -> None:
    counts = Counter(first_choices(Ring("users", nodes(1, 0.5, 1.5, 3))))
    for name, weight in (("node1", 1), ("node2", 0.5), ("node3", 1.5), ("node4", 3)):
        assert counts[name] == pytest.approx(BUCKETS * weight / 6, rel=0.4)


def test_another_weight_moves_first_choices_only_to_or_from_that_node() -> None:
    before = first_choices(Ring("users", nodes(1, 1, 1)))
    heavier = first_choices(Ring("users", nodes(1, 2, 1)))
    assert before != heavier
    assert {now for was, now in zip(before, heavier, strict=True) if was != now} == {"node2"}


def test_keyspaces_have_rings_of_their_own() -> None:
    assert first_choices(Ring("users", nodes(1, 1, 1))) != first_choices(Ring("identifiers", nodes(1, 1, 1)))


def test_a_node_named_like_a_bucket_is_no_trap() -> None:
    """uhashring hashes "name-0", "name-1": a bucket's text must not be one of these."""
    tricky = [Node("users:1", url="postgresql://h/app"), Node("users:1-1", url="postgresql://h/app")]
    assert sorted(Ring("users", tricky).preference(1)) == ["users:1", "users:1-1"]
    assert all(
        distance > 0
        for bucket in range(300)
        for distance, _ in Ring("users:1-1", tricky).walk(bucket, {"users:1", "users:1-1"})
    )


def test_nodes_without_weight_and_very_heavy_ones() -> None:
    assert Ring("users", nodes(1, 0)).preference(1) == ["node1"]
    assert Ring("users", nodes(0)).preference(1) == []
    assert Ring("users", []).preference(1) == []
    assert repr(Ring("users", nodes(1e9, 1e-9))) == f"<ring of users: 2 nodes, {MAX_POINTS + 1} points>"


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(Rejected, match=r"node1.*weight"):
        Ring("users", nodes(weight))


def test_two_nodes_of_one_name_are_refused() -> None:
    with pytest.raises(Rejected, match="two nodes named 'node1'"):
        Ring("users", [*nodes(1), replace(nodes(1)[0], weight=2)])
