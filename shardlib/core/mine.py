"""The mark by which a statement for many keys keeps to the rows that its node owns.

DESIGN. Between copy and purge the rows of a bucket stand on two nodes, and one of them doesn't own it. A router can't
know a node's foreign buckets of this very moment, so the mark becomes a condition that asks the node's own list *in the
statement's snapshot*. While the list is empty, which is nearly always, the first half is true once for the whole
statement (an InitPlan) and no row pays for it.
"""

from __future__ import annotations

import re

from shardlib.core.keys import hash_named
from shardlib.core.topology import Keyspace

_MARK = re.compile(r"/\*\s*mine\s*(?::\s*(?P<column>[A-Za-z_][\w.]*)\s*)?\*/")


def is_marked(query: str) -> bool:
    """Return whether the statement carries the mark."""
    return _MARK.search(query) is not None


def needs_column(query: str) -> bool:
    """Return whether a mark leaves open which column holds the key."""
    return any(match["column"] is None for match in _MARK.finditer(query))


def fill(query: str, keyspace: Keyspace, key_column: str) -> str:
    """Return the statement with each mark replaced by the condition; ``key_column`` is for those that name none."""
    return _MARK.sub(lambda match: condition(keyspace, match["column"] or key_column), query)


def condition(keyspace: Keyspace, key_column: str) -> str:
    """Return the condition, in parentheses, that a row with this key column is owned here."""
    bucket = hash_named(keyspace.hash).sql(key_column, keyspace.mask)
    name = keyspace.name.replace("'", "''")
    foreign = f"SELECT FROM shardlib.foreign_bucket f WHERE f.keyspace = '{name}'"
    return f"(NOT EXISTS ({foreign}) OR NOT EXISTS ({foreign} AND f.bucket = {bucket}))"
