"""Which replica serves a read: a chain of plain questions, then the power of two choices.

DESIGN. A read may go to any replica that is known to be new enough; among those, two are drawn and the one with fewer
outstanding requests is taken (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001): nearly as
even as asking all, and no herd runs to the one that looked idle a moment ago. When none qualifies the primary answers,
so a bound on lag is never paid for with an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardlib.core.tokens import Token
from shardlib.core.topology import Since


@dataclass(slots=True)
class ReplicaView:
    """What is known of one endpoint, kept up to date by its monitor and read at each choice.

    ``current_as_of`` is a point in time (seconds, any steady clock) whose primary position the endpoint had replayed
    when it was last asked; its lag is the time since then. ``instance`` names the start of the server that said so: a
    restarted replica may come back behind what it had replayed.
    """

    usable: bool = False  # answers, is in recovery, breaker closed
    timeline: int = 0
    replayed: int = -1
    current_as_of: float = float("-inf")
    instance: float = 0.0
    outstanding: int = 0
    asked_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a read accepts: at most ``max_lag`` seconds behind (None: any), and a log position on a timeline."""

    max_lag: float | None
    timeline: int  # the primary's; a replica on another one has a history of its own
    position: int = -1


def wish_for(max_lag: float | None, timeline: int, node: str, since: Since | None, token: Token | None) -> Wish:
    """Return what a read of a bucket on ``node`` must find replayed: the bucket's ``since``, and the token's write.

    A token of this node is compared by its position, whatever its epoch: it may be of another bucket, whose ownership
    counts by itself. (One of an older ownership of this bucket asks for nothing more: the log has grown past it until
    ``since``.) One of another node says nothing here: what it wrote of this bucket is covered by ``since``. Positions
    of older timelines hold on this one: what a failover lost has been found out before.
    """
    position = -1 if since is None else since.lsn
    if token is not None and token.node == node:
        position = max(position, token.lsn)
        timeline = max(timeline, token.timeline)
    return Wish(max_lag, timeline, position)


def qualifies(replica: ReplicaView, wish: Wish, now: float) -> bool:
    """Return whether the replica is known to serve the wish."""
    return (
        replica.usable
        and replica.timeline == wish.timeline
        and replica.replayed >= wish.position
        and (wish.max_lag is None or now - replica.current_as_of <= wish.max_lag)
    )


def choose(replicas: Sequence[ReplicaView], wish: Wish, now: float, chance: float) -> int | None:
    """Return the position of the replica to ask, or None for the primary; ``chance`` is uniform in [0, 1)."""
    fit = [index for index, replica in enumerate(replicas) if qualifies(replica, wish, now)]
    if len(fit) < 2:
        return fit[0] if fit else None
    first = int(chance * len(fit))
    second = (first + 1 + int(chance * len(fit) * (len(fit) - 1)) % (len(fit) - 1)) % len(fit)
    a, b = fit[first], fit[second]
    return a if replicas[a].outstanding <= replicas[b].outstanding else b
