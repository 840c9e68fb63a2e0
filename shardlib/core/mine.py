"""The mark by which a statement for many keys keeps to the rows that its node owns.

DESIGN. Between copy and purge the rows of a bucket stand on two nodes, and one of them doesn't own it. A router can't
know a node's foreign buckets of this very moment, so the mark becomes a condition that asks the node's own lists *in
the statement's snapshot*: a row counts whose bucket isn't foreign here, and wasn't gained after the epoch by which the
nodes were asked. (A bucket that is switched between the answers of two nodes is on no foreign list by then; the one
that had it at that epoch answers for it.) While neither list says anything, which is nearly always, the first half is
true once for the whole statement (two InitPlans) and no row pays for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from shardlib.core.keys import hash_named
from shardlib.core.topology import Keyspace

_MARK = re.compile(r"/\*\s*mine\s*(?::\s*(?P<column>[A-Za-z_][\w.]*)\s*)?\*/")


def is_marked(query: str) -> bool:
    """Return whether the statement carries the mark."""
    return _MARK.search(query) is not None


def needs_column(query: str) -> bool:
    """Return whether a mark leaves open which column holds the key."""
    return any(match["column"] is None for match in _MARK.finditer(query))


def fill(query: str, keyspace: Keyspace, key_column: str, epoch: int) -> str:
    """Return the statement with each mark replaced by the condition; ``key_column`` is for those that name none.

    ``epoch`` is the one by which the nodes were chosen, the same for all of them.
    """
    return _MARK.sub(lambda match: condition(keyspace, match["column"] or key_column, epoch), query)


def condition(keyspace: Keyspace, key_column: str, epoch: int) -> str:
    """Return the condition, in parentheses, that a row with this key column is owned here, and was at ``epoch``."""
    bucket = hash_named(keyspace.hash).sql(key_column, keyspace.mask)
    name = keyspace.name.replace("'", "''")
    foreign = f"SELECT FROM shardlib.foreign_bucket f WHERE f.keyspace = '{name}'"
    gained = f"SELECT FROM shardlib.gained_bucket g WHERE g.keyspace = '{name}' AND g.epoch > {epoch}"
    neither = f"NOT EXISTS ({foreign}) AND NOT EXISTS ({gained})"
    not_this = f"NOT EXISTS ({foreign} AND f.bucket = {bucket}) AND NOT EXISTS ({gained} AND g.bucket = {bucket})"
    return f"({neither} OR {not_this})"


def moved_since(keyspace: Keyspace, buckets: Iterable[int], epoch: int) -> bool:
    """Return whether any of the buckets has changed hands after ``epoch``, as far as this later snapshot knows.

    One that left its node and came back is missing in an answer to a statement of that epoch.
    """
    since = keyspace.since
    return any(bucket in since and since[bucket].epoch > epoch for bucket in buckets)
