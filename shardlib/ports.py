"""What the shell is written against, where there is more than one implementation or a layer may not see the other.

Two kinds: *operations* (Catalog: named verbs, in Postgres and in memory) and *sessions* (Nodes, Node, Pool, Link: run
this SQL, in Postgres only, so that no fake ever re-implements SQL).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shardlib.core.route import ReplicaView
from shardlib.core.topology import Keyspace, Topology
from shardlib.core.topology import Node as NodeEntry

Record = Any  # asyncpg.Record: a mapping and a sequence; its class can't be subclassed by a Protocol


class Catalog(Protocol):
    """The home of the topology.

    A reader may see an epoch skipped or repeated, never one that goes back within an incarnation. Each verb raises
    CatalogUnavailable when the catalog doesn't answer.
    """

    async def version(self) -> tuple[int, int]:
        """Return (incarnation, epoch)."""

    async def read(self) -> Topology:
        """Return a consistent snapshot."""

    async def wait_for_notice(self, seconds: float) -> None:
        """Return when a change was announced, or after ``seconds``: a hint only, announcements may be lost."""

    async def create_keyspace(self, epoch: int, keyspace: Keyspace) -> int:
        """Add a keyspace if the epoch is still that; return the new epoch, raise StaleEpoch otherwise."""

    async def put_node(self, epoch: int, node: NodeEntry) -> int:
        """Add a node or replace its entry; as create_keyspace."""

    async def remove_node(self, epoch: int, name: str) -> int:
        """Forget a node that owns nothing (Rejected otherwise); as create_keyspace."""

    async def close(self) -> None:
        """End its connection."""


class Outcome(enum.Enum):
    """What is known after a statement raised."""

    ANSWERED = "answered"  # the server refused it: nothing happened, the session is fine
    AGAIN = "again"  # the server rolled it back for a reason that passes: serialisation, deadlock
    UNPLANNED = "unplanned"  # the server refused the plan, which a migration made invalid; it is forgotten
    UNSENT = "unsent"  # the connection was found closed before anything was written
    REFUSED = "refused"  # the fence: the bucket isn't here any more
    READ_ONLY = "read only"  # the server is a standby now: nothing happened
    LOST = "lost"  # no answer


@dataclass(slots=True)
class Counters:
    """What a pool has done since it was made."""

    opened: int = 0
    lost: int = 0
    overdue: int = 0
    waited: int = 0
    refused: int = 0


class Link(Protocol):
    """One open session, and what the node said when it was greeted."""

    connection: Any
    floor: int
    in_recovery: bool
    timeline: int
    instance: float
    opened_at: float
    greeted: int
    deadline: float
    overdue: bool
    dirty: bool
    sync_wait_cancelled: bool

    async def greet(self, epoch: int) -> None:
        """Ask the node for its floor and timeline."""

    async def reset(self) -> None:
        """Take back whatever the last user did to the session."""


class Pool(Protocol):
    """The bounded sessions of one endpoint, last in first out."""

    idle: list[Link]
    busy: set[Link]
    epoch: int
    view: ReplicaView
    name: str
    counters: Counters

    @property
    def broken(self) -> str:
        """Why requests are refused; empty: they aren't."""

    @property
    def waiting(self) -> int:
        """How many requests wait for a link."""

    def lend(self, link: Link, until: float) -> None:
        """Note that an idle link was taken off ``idle``; past ``until`` it is terminated."""

    def watch(self, link: Link, until: float) -> None:
        """Change the deadline of a lent link."""

    async def take(self, until: float) -> Link:
        """Return a link; raise NodeUnavailable, Overloaded or DeadlineExceeded."""

    def give(self, link: Link) -> None:
        """Take a link back."""

    def drop(self, link: Link) -> None:
        """Terminate a link whose state is unknown."""

    async def greet(self, link: Link) -> None:
        """Ask the node for its floor and timeline again."""

    def lost(self, link: Link) -> None:
        """Terminate a link that gave no answer; enough that hung open the breaker."""

    def demoted(self) -> None:
        """Note that a write met a read-only server."""


class Node(Protocol):
    """One node: the pool of its primary, and those of its replicas."""

    name: str
    not_before: float  # CLOCK_BOOTTIME seconds: only snapshots that were confirmed later may write here

    @property
    def primary(self) -> Pool:
        """Return the pool of the primary, an empty one while none is known."""

    def all_pools(self) -> Sequence[Pool]:
        """Return the pools of all its endpoints."""

    def replicas(self) -> Sequence[Pool]:
        """Return the pools that aren't the primary's."""

    def timeline(self) -> int:
        """Return the primary's timeline, 0 while none is known."""

    async def primary_pool(self, until: float) -> Pool:
        """Return the primary's pool, waiting for one to be found."""


class Nodes(Protocol):
    """The nodes of a topology."""

    def apply(self, topology: Topology) -> Mapping[str, Node]:
        """Open and close pools so that they fit the topology; return its nodes by name."""

    async def first_look(self, seconds: float) -> None:
        """Wait until each endpoint has answered once or failed, at most ``seconds``."""

    async def close(self) -> None:
        """End all sessions."""

    def outcome_of(self, error: BaseException) -> Outcome:
        """Say what is known after this error."""


class StaleEpoch(Exception):
    """Somebody else changed the catalog first; read again and decide again."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"the catalog isn't at epoch {expected} any more")
        self.expected = expected
