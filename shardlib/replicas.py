"""A read on a replica, if one is new enough: by the clock, by the bucket's history and by the reader's token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from shardlib.calls import Call, Desk, Place
from shardlib.core.route import ReplicaView, Wish, choose, wish_for
from shardlib.core.statements import Kind, kind_of
from shardlib.core.tokens import Token
from shardlib.errors import BadToken, Rejected, Retryable, WriteLost
from shardlib.ports import Link, Node, Outcome, Pool
from shardlib.sql import load
from shardlib.watch import View, now

_SQL = load("owned")
CATCH_UP_SECONDS = 0.02  # how long a replica that is behind a token is waited for before the primary is asked
CATCHABLE_SECONDS = 1.0  # one that is further behind doesn't catch up in that time
LINK_SECONDS = 0.1  # for a free link, or a new one; the primary has some, too
Statement = Callable[[Link], Awaitable[Any]]
POLL_SECONDS = 0.0005  # a replica that streams is there after 0.5 ms in the median


class Reading:
    """One read; ``on_a_replica`` says whether it was answered there."""

    def __init__(self, desk: Desk, place: Place, max_lag: float | None, token: Token | None, until: float) -> None:
        self._desk = desk
        self._place = place
        self._max_lag = max_lag
        self._token = token
        self._until = until
        self._checked = 0  # the timeline that is known to have the token's write
        self._covered = False  # the token is of an older ownership of this very bucket: what it names came with it

    async def on_a_replica(
        self, verb: str, query: str, args: tuple[Any, ...], chance: Callable[[], float]
    ) -> tuple[bool, Any]:
        """Return (True, answer), or (False, None) when the primary must be asked."""
        if kind_of(query) is not Kind.READ:
            raise Rejected("a replica can only read")
        view = await self._view()
        node = view.spaces[self._place.keyspace].owners[self._place.buckets[0]]
        wish = await self._wish(view, node)
        pools = node.replicas()
        if not pools or not self._may_leave_primary(view):
            return False, None
        index = choose([pool.view for pool in pools], wish, monotonic(), chance())
        if index is None and self._token is not None:
            behind = Wish(min(CATCHABLE_SECONDS, self._max_lag or CATCHABLE_SECONDS), wish.timeline)
            index = choose([pool.view for pool in pools], behind, monotonic(), chance())
        if index is None:
            return False, None
        return await self._ask(pools[index], wish, view, lambda link: getattr(link.connection, verb)(query, *args))

    async def _view(self) -> View:
        token = self._token
        view = self._desk.watcher.view
        if token is None:
            return view
        if token.keyspace not in view.spaces or not 0 <= token.bucket < view.spaces[token.keyspace].keyspace.buckets:
            raise BadToken("the token is of another cluster")
        if token.epoch > view.epoch:
            view = await self._desk.watcher.confirmed_after(now(), self._until)
            if token.epoch > view.epoch:
                raise BadToken("the token is of an epoch that is yet to come")
        return view

    def _may_leave_primary(self, view: View) -> bool:
        moving = view.spaces[self._place.keyspace].moving
        return now() < view.fresh_until and self._place.buckets[0] not in moving

    async def _wish(self, view: View, node: Node) -> Wish:
        token = self._token
        bucket = self._place.buckets[0]
        since = view.topology.keyspaces[self._place.keyspace].since.get(bucket)
        timeline = node.timeline()
        if token is not None and (token.keyspace, token.bucket) != (self._place.keyspace, bucket):
            token = token if token.node == node.name else None
        if token is not None and since is not None and (token.keyspace, token.bucket) == (self._place.keyspace, bucket):
            self._covered = token.epoch < since.epoch
        await self.check_not_lost(node.name, timeline)
        return wish_for(self._max_lag, timeline, node.name, since, token)

    async def check_not_lost(self, node: str, timeline: int) -> None:
        """Raise WriteLost if that timeline of the node branched off before the token's position."""
        token = self._token
        if token is None or self._covered or token.node != node:
            return
        if timeline in (token.timeline, self._checked) or timeline < token.timeline:
            return
        position = (token.timeline, token.lsn)
        if await Call(self._desk, self._place, "fetchval", _SQL["write_lost"], position, self._until).run():
            raise WriteLost(f"{node} lost the write in a failover")
        self._checked = timeline

    async def _ask(self, pool: Pool, wish: Wish, view: View, statement: Statement) -> tuple[bool, Any]:
        try:
            link = await pool.take(min(self._until, monotonic() + LINK_SECONDS))
        except Retryable:
            return False, None
        pool.watch(link, self._until)
        try:
            if not await self._new_enough(link, pool.view, wish):
                pool.give(link)
                return False, None
            answer = await statement(link)
        except BaseException as error:
            self._settle(pool, link, error)
            return False, None
        pool.give(link)
        return (True, answer) if self._may_leave_primary(view) else (False, None)

    async def _new_enough(self, link: Link, seen: ReplicaView, wish: Wish) -> bool:
        if link.instance == seen.instance and link.opened_at > seen.asked_at:
            # its server may have recovered from a crash in between, which ends all links and starts no new instance
            return await _catches_up(link, max(wish.position, seen.replayed), self._until)
        if link.instance == seen.instance:
            return seen.replayed >= wish.position or await _catches_up(link, wish.position, self._until)
        # it was started again since it was looked at, and may have come back behind what it had replayed
        return wish.max_lag is None and await _catches_up(link, wish.position, self._until)

    def _settle(self, pool: Pool, link: Link, error: BaseException) -> None:
        if not isinstance(error, Exception):
            pool.drop(link)
            raise error
        outcome = self._desk.outcome_of(error)
        if outcome in (Outcome.LOST, Outcome.UNSENT):
            pool.lost(link)
            return
        pool.give(link)
        if outcome is Outcome.ANSWERED:
            raise error


async def _catches_up(link: Link, position: int, deadline: float) -> bool:
    until = min(deadline, monotonic() + CATCH_UP_SECONDS)
    while await link.connection.fetchval(_SQL["replay_position"]) < position:
        if monotonic() >= until:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True
