"""The snapshot that requests are routed on: who owns which bucket, as of one epoch.

DESIGN. A snapshot is immutable and replaced whole; a request uses one from first to last. Snapshots are ordered by
(incarnation, epoch): the incarnation is the catalog's timeline, so that a catalog which failed over and lost its last
changes can't give out an epoch twice. The order of ``nodes`` has no meaning; owners are names, not positions, so a
node can leave without renumbering the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from shardlib.errors import InvalidTopology, UnknownName

MAX_BUCKETS = 65_536  # a bucket number must fit the placement's and the catalog's smallint-free arithmetic: 16 bits
_EMPTY: Mapping[int, Since] = MappingProxyType({})
_NONE_MOVING: Mapping[int, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Node:
    """One Postgres primary and its streaming replicas. Addresses carry no passwords."""

    name: str
    url: str
    admin_url: str = ""  # direct, for migrations and moves; empty: as url
    replication_url: str = ""  # as the other nodes reach it; empty: as admin_url
    replicas: tuple[str, ...] = ()
    weight: float = 1.0
    region: str = ""
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Since:
    """From where on a bucket's present ownership counts: a replica must have replayed ``lsn`` on ``timeline``."""

    epoch: int
    node: str
    timeline: int
    lsn: int


@dataclass(frozen=True, slots=True)
class Keyspace:
    """A set of tables that share a key, cut into a fixed number of buckets."""

    name: str
    hash: str  # a name in core.keys.HASHES; it implies the key's type
    owners: tuple[str, ...]  # bucket -> node; its length is the number of buckets
    since: Mapping[int, Since] = field(default_factory=lambda: _EMPTY)  # only buckets that have ever moved
    moving: Mapping[int, str] = field(default_factory=lambda: _NONE_MOVING)  # bucket -> move, while flagged

    @property
    def buckets(self) -> int:
        return len(self.owners)

    @property
    def mask(self) -> int:
        return len(self.owners) - 1


@dataclass(frozen=True, slots=True)
class Topology:
    """All keyspaces and nodes at one epoch."""

    incarnation: int
    epoch: int
    nodes: Mapping[str, Node]
    keyspaces: Mapping[str, Keyspace]

    @property
    def version(self) -> tuple[int, int]:
        """What snapshots are ordered by."""
        return (self.incarnation, self.epoch)

    def keyspace(self, name: str | None = None) -> Keyspace:
        """Return the keyspace of that name, or the only one there is.

        Raises UnknownName, which lists the names that exist.
        """
        if name is None and len(self.keyspaces) == 1:
            return next(iter(self.keyspaces.values()))
        try:
            return self.keyspaces[name or ""]
        except KeyError:
            known = ", ".join(sorted(self.keyspaces)) or "none"
            wanted = f"no keyspace {name!r}" if name else "say which keyspace you mean"
            raise UnknownName(f"{wanted}; there are: {known}") from None

    def check(self) -> Topology:
        """Return self if it is consistent; raise InvalidTopology with the first contradiction otherwise."""
        if self.epoch < 0:
            raise InvalidTopology(f"epoch {self.epoch} is negative")
        for name, node in self.nodes.items():
            if node.name != name or not node.url:
                raise InvalidTopology(f"node {name!r} is filed under another name or has no url")
        for name, keyspace in self.keyspaces.items():
            _check_keyspace(name, keyspace, self)
        return self


def _check_keyspace(name: str, keyspace: Keyspace, topology: Topology) -> None:
    size = keyspace.buckets
    if keyspace.name != name:
        raise InvalidTopology(f"keyspace {keyspace.name!r} is filed as {name!r}")
    if size < 1 or size > MAX_BUCKETS or size & (size - 1):
        raise InvalidTopology(f"keyspace {name!r} has {size} buckets, not a power of two up to {MAX_BUCKETS}")
    if strangers := set(keyspace.owners) - topology.nodes.keys():
        raise InvalidTopology(f"keyspace {name!r} has buckets on unknown nodes: {sorted(strangers)}")
    for bucket in (*keyspace.since, *keyspace.moving):
        if not 0 <= bucket < size:
            raise InvalidTopology(f"keyspace {name!r} has no bucket {bucket}")
    for bucket, since in keyspace.since.items():
        if since.node != keyspace.owners[bucket] or since.epoch > topology.epoch:
            raise InvalidTopology(f"bucket {bucket} of {name!r}: since {since} contradicts its owner or the epoch")


def changed_nodes(before: Topology | None, after: Topology) -> set[str]:
    """Return the nodes of ``after`` that gained, lost or saw flagged a bucket, or weren't there before."""
    changed = set(after.nodes) if before is None else after.nodes.keys() - before.nodes.keys()
    known = {} if before is None else before.keyspaces
    for name, keyspace in after.keyspaces.items():
        was = known.get(name)
        if was is None:
            return set(after.nodes)
        if was.owners != keyspace.owners:
            pairs = zip(was.owners, keyspace.owners, strict=True)
            changed = changed.union(*({old, new} for old, new in pairs if old != new))
        changed = changed.union(keyspace.owners[bucket] for bucket in was.moving.keys() ^ keyspace.moving.keys())
    return set(changed) & after.nodes.keys()
