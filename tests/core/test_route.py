"""Which replica serves a read: never an unfit one, and of the fit ones evenly, away from the busy."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardlib.core.route import ReplicaView, Wish, choose, qualifies, wish_for
from shardlib.core.tokens import Token
from shardlib.core.topology import Since

NOW = 1000.0
views = st.builds(
    ReplicaView,
    usable=st.booleans(),
    timeline=st.integers(1, 2),
    replayed=st.integers(-1, 5),
    current_as_of=st.sampled_from([float("-inf"), NOW - 5.0, NOW - 1.0, NOW - 0.1, NOW]),
    outstanding=st.integers(0, 3),
)
wishes = st.builds(
    Wish, max_lag=st.none() | st.sampled_from([0.0, 0.5, 3.0]), timeline=st.integers(1, 2), position=st.integers(-1, 5)
)
chances = st.floats(0.0, 1.0, exclude_max=True)


def fit(view: ReplicaView, wish: Wish) -> bool:
    """The rule, said once more and otherwise: each reason for which a replica must not answer."""
    reasons = [
        not view.usable,
        view.timeline != wish.timeline,
        view.replayed < wish.position,
        wish.max_lag is not None and view.current_as_of < NOW - wish.max_lag,
    ]
    return not any(reasons)


@given(st.lists(views, max_size=6), wishes, chances)
def test_an_unfit_replica_is_never_chosen_and_a_fit_one_always(
    replicas: list[ReplicaView], wish: Wish, chance: float
) -> None:
    chosen = choose(replicas, wish, NOW, chance)
    candidates = [index for index, view in enumerate(replicas) if fit(view, wish)]
    assert chosen in candidates if candidates else chosen is None
    assert [qualifies(view, wish, NOW) for view in replicas] == [fit(view, wish) for view in replicas]


@given(st.lists(views, min_size=2, max_size=6), wishes, chances)
def test_the_busiest_of_several_is_never_chosen(replicas: list[ReplicaView], wish: Wish, chance: float) -> None:
    chosen = choose(replicas, wish, NOW, chance)
    candidates = [view.outstanding for view in replicas if fit(view, wish)]
    if chosen is not None and len(candidates) > 1 and candidates.count(max(candidates)) == 1:
        assert replicas[chosen].outstanding < max(candidates)


def shares(outstanding: list[int], draws: int = 60_000) -> list[float]:
    """Return how often each of some fit replicas is chosen over evenly spread chances."""
    replicas = [ReplicaView(True, 1, 9, NOW, 0.0, count) for count in outstanding]
    wish = Wish(1.0, 1, 0)
    chosen = Counter(choose(replicas, wish, NOW, (draw + 0.5) / draws) for draw in range(draws))
    return [chosen[index] / draws for index in range(len(replicas))]


@pytest.mark.parametrize("count", range(1, 8))
def test_equally_busy_replicas_get_equal_shares(count: int) -> None:
    assert shares([3] * count) == pytest.approx([1 / count] * count, abs=0.002)


@pytest.mark.parametrize("count", range(2, 8))
def test_each_pair_is_drawn_as_often_as_any_other(count: int) -> None:
    """Of n replicas, all busy to another degree, number r from the idlest wins against the n - 1 - r busier ones."""
    pairs = count * (count - 1) / 2
    assert shares(list(range(count))) == pytest.approx([(count - 1 - r) / pairs for r in range(count)], abs=0.002)


def token(epoch: int, node: str = "node1", timeline: int = 1, lsn: int = 70) -> Token:
    return Token("users", 3, epoch, node, timeline, lsn)


SINCE = Since(5, "node1", 1, 50)


@pytest.mark.parametrize(
    "since, known, expected",
    [
        (None, None, Wish(1.0, 1, -1)),
        (SINCE, None, Wish(1.0, 1, 50)),
        (None, token(0), Wish(1.0, 1, 70)),
        (SINCE, token(5), Wish(1.0, 1, 70)),
        (SINCE, token(5, lsn=20), Wish(1.0, 1, 50)),  # the bucket's arrival counts, whatever the token says
        (SINCE, token(4), Wish(1.0, 1, 70)),  # of another bucket, perhaps: its epoch says nothing about this one's
        (SINCE, token(0), Wish(1.0, 1, 70)),
        (SINCE, token(4, lsn=20), Wish(1.0, 1, 50)),  # an older ownership: its writes came with the bucket
        (SINCE, token(4, node="node2", lsn=999), Wish(1.0, 1, 50)),  # the same, from another log
        (SINCE, token(5, node="node2", lsn=999), Wish(1.0, 1, 50)),  # another log says nothing here
        (None, token(0, timeline=2), Wish(1.0, 2, 70)),  # no replica of the old timeline will do
        (None, token(0, timeline=0), Wish(1.0, 1, 70)),
    ],
)
def test_a_read_must_find_what_its_bucket_and_its_token_ask_for(
    since: Since | None, known: Token | None, expected: Wish
) -> None:
    assert wish_for(1.0, 1, "node1", since, known) == expected


def test_a_replica_of_which_nothing_is_known_serves_nobody() -> None:
    assert not qualifies(ReplicaView(), Wish(None, 0), NOW)
