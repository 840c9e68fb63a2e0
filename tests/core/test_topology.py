"""The snapshot: what makes one consistent, and what changed between two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.topology import MAX_BUCKETS, Keyspace, Node, Since, Topology, changed_nodes
from shardlib.errors import InvalidTopology, UnknownName

NAMES = ("a", "b", "c")
NODES = {name: Node(name, f"postgresql://{name}/app") for name in NAMES}


def keyspace(owners: str = "abca", **facts: Any) -> Keyspace:
    return Keyspace("users", "uuid_tail", tuple(owners), **facts)


def topology(*keyspaces: Keyspace, epoch: int = 7) -> Topology:
    return Topology(1, epoch, NODES, {space.name: space for space in keyspaces})


def test_a_consistent_one_is_returned_as_it_is() -> None:
    whole = topology(keyspace(since={2: Since(7, "c", 1, 99)}, moving={0: "m"}), Keyspace("names", "str", ("b",)))
    assert whole.check() is whole
    empty = Topology(0, 0, {}, {})
    assert empty.check() is empty


SINCE = Since(5, "b", 1, 99)
BREAKS: dict[str, Callable[[], Topology]] = {
    "a negative epoch": lambda: topology(epoch=-1),
    "a node under another name": lambda: replace(topology(), nodes={"a": NODES["b"]}),
    "a node without an address": lambda: replace(topology(), nodes={"a": Node("a", "")}),
    "a keyspace under another name": lambda: replace(topology(), keyspaces={"other": keyspace()}),
    "no buckets": lambda: topology(keyspace("")),
    "buckets that are no power of two": lambda: topology(keyspace("abc")),
    "too many buckets": lambda: topology(keyspace("a" * 2 * MAX_BUCKETS)),
    "an unknown owner": lambda: topology(keyspace("abcx")),
    "a move of no bucket": lambda: topology(keyspace(moving={4: "m"})),
    "a move of a negative bucket": lambda: topology(keyspace(moving={-1: "m"})),
    "a history of no bucket": lambda: topology(keyspace(since={4: SINCE})),
    "a history of another owner": lambda: topology(keyspace(since={2: SINCE})),
    "a history of the future": lambda: topology(keyspace(since={1: replace(SINCE, epoch=8)})),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_contradiction_is_found(name: str) -> None:
    with pytest.raises(InvalidTopology):
        BREAKS[name]().check()


@pytest.mark.parametrize("buckets", [1, 2, 4096, MAX_BUCKETS])
def test_any_power_of_two_will_do(buckets: int) -> None:
    assert topology(keyspace("a" * buckets)).check().keyspaces["users"].mask == buckets - 1


def test_the_only_keyspace_needs_no_name() -> None:
    one = keyspace()
    assert topology(one).keyspace() is topology(one).keyspace("users")
    with pytest.raises(UnknownName, match="there are: users"):
        topology(one).keyspace("user")
    with pytest.raises(UnknownName, match="there are: names, users"):
        topology(one, Keyspace("names", "str", ("a",))).keyspace()
    with pytest.raises(UnknownName, match="there are: none"):
        topology().keyspace()


def test_a_newer_incarnation_is_newer_whatever_its_epoch() -> None:
    assert Topology(2, 1, {}, {}).version > Topology(1, 99, {}, {}).version


owners = st.text(alphabet=st.sampled_from(NAMES), min_size=8, max_size=8)
moving = st.dictionaries(st.integers(0, 7), st.just("m"), max_size=3)


@given(owners, owners, moving, moving)
def test_the_changed_nodes_are_those_whose_buckets_changed(
    before: str, after: str, was_moving: dict[int, str], is_moving: dict[int, str]
) -> None:
    old, new = topology(keyspace(before, moving=was_moving)), topology(keyspace(after, moving=is_moving))
    expected = set()
    for bucket in range(8):
        if before[bucket] != after[bucket]:
            expected |= {before[bucket], after[bucket]}
        if (bucket in was_moving) != (bucket in is_moving):
            expected.add(after[bucket])
    assert changed_nodes(old, new) == expected


def test_everything_has_changed_at_first_and_with_a_new_keyspace() -> None:
    assert changed_nodes(None, topology(keyspace())) == set(NAMES)
    assert changed_nodes(topology(), topology(keyspace())) == set(NAMES)
    assert changed_nodes(topology(keyspace()), topology(keyspace())) == set()


def test_a_new_node_has_changed_and_one_that_left_has_not() -> None:
    two = replace(topology(keyspace("abab")), nodes={name: NODES[name] for name in "ab"})
    three = topology(keyspace("abab"))
    assert changed_nodes(two, three) == {"c"}
    assert changed_nodes(three, two) == set()
