"""Attached tables: can each be sharded and moved, and are they the same on every node?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from shardlib.cli.checks.findings import Finding, Row, error, names, warning
from shardlib.core.keys import hash_named
from shardlib.core.topology import Topology

KINDS = {"p": "partitioned", "v": "a view", "m": "a materialized view", "f": "a foreign table"}
_TYPES = {
    "bigint": ("bigint", "integer", "smallint"),
    "text": ("text", "character varying"),
    "uuid": ("uuid",),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """How a table is attached, and what it is made of: columns, indexes, constraints as text."""

    keyspace: str
    key_column: str
    parts: frozenset[str]


def shapes(rows: Sequence[Row]) -> dict[str, Shape]:
    """Return the shape of each attached table; one that isn't there has no parts."""
    return {
        row["table_name"]: Shape(row["keyspace"], row["key_column"], frozenset(row["parts"] if row["there"] else ()))
        for row in rows
    }


def judge_attached(where: str, rows: Sequence[Row], topology: Topology) -> Iterator[Finding]:
    """Judge the attached tables of one node."""
    for row in rows:
        if row["there"]:
            yield from _judge_table(where, row, topology)
        else:
            advice = "apply the migrations there, or delete its row from shardlib.attached_table"
            what = f"{row['table_name']} is attached by its column {row['key_column']}, and isn't there"
            yield error(where, what, advice)


def _judge_table(where: str, row: Row, topology: Topology) -> Iterator[Finding]:
    table, key = row["table_name"], row["key_column"]
    if row["kind"] != "r":
        yield error(where, f"{table} is {KINDS.get(row['kind'], row['kind'])}", "keyspaces hold plain tables only")
        return
    if row["persistence"] != "p":
        yield error(where, f"{table} isn't logged: replicas and moves lose it", f"ALTER TABLE {table} SET LOGGED")
    space = topology.keyspaces.get(row["keyspace"])
    wanted = hash_named(space.hash).sql_type if space else ""
    if row["key_type"] not in _TYPES.get(wanted, (row["key_type"],)):
        advice = f"keys of {row['keyspace']} are {wanted}: change the column, or attach the table to another keyspace"
        yield error(where, f"{table}.{key} is {row['key_type']}", advice)
    if not row["deterministic"]:
        advice = f'ALTER TABLE {table} ALTER {key} TYPE text COLLATE "C"'
        yield error(where, f"{table}.{key} has a non-deterministic collation: equal keys differ in bucket", advice)
    yield from _judge_indexes(where, row)


def _judge_indexes(where: str, row: Row) -> Iterator[Finding]:
    table, key = row["table_name"], row["key_column"]
    if not row["unique_has_key"]:
        advice = f"make one over ({key}, ...), best as the primary key: moves compare and continue by it"
        yield error(where, f"{table} has no unique index that contains its key {key}", advice)
    elif not row["identity_has_key"]:
        advice = f"have {key} in the primary key, or ALTER TABLE {table} REPLICA IDENTITY USING INDEX ..."
        yield error(where, f"the replica identity of {table} lacks its key: updates would fail in a move", advice)
    if not row["key_not_null"]:
        advice = f"ALTER TABLE {table} ALTER {key} SET NOT NULL"
        yield warning(where, f"{table}.{key} may be NULL: such a row is in no bucket", advice)
    if row["loose_indexes"]:
        listed = ", ".join(names(row["loose_indexes"]))
        advice = f"values are unique on each node only: use shardlib.Unique, or put {key} into the index"
        yield warning(where, f"unique without the key of {table}: {listed}", advice)


def judge_rights(where: str, role: str, rows: Sequence[Row]) -> Iterator[Finding]:
    """Judge what the application may do to keys."""
    for row in rows:
        if row["may_change_key"]:
            table, key = row["table_name"], row["key_column"]
            advice = f"REVOKE UPDATE ON {table} FROM {role}, then GRANT UPDATE on its other columns"
            what = f"the application may change {key} of {table}: the row would be in another bucket, and be lost"
            yield error(where, what, advice)


def judge_alike(nodes: Mapping[str, Mapping[str, Shape]]) -> Iterator[Finding]:
    """Judge whether all nodes have the same tables: the model of each is what most nodes have."""
    for table in sorted({table for tables in nodes.values() for table in tables}):
        having = {node: tables[table] for node, tables in nodes.items() if table in tables}
        model = max(having.values(), key=list(having.values()).count)
        example = next(node for node, shape in having.items() if shape == model)
        advice = "apply the migrations to all nodes: python -m migrations status, python -m migrations drift"
        for node in sorted(nodes):
            if node not in having:
                yield error(node, f"{table} isn't attached here, as it is on {example}", advice)
            elif having[node] != model and having[node].parts:
                yield error(node, f"{table} isn't as on {example}: {_difference(having[node], model)}", advice)


def _difference(here: Shape, model: Shape) -> str:
    if (here.keyspace, here.key_column) != (model.keyspace, model.key_column):
        there = f"{model.keyspace} by {model.key_column}"
        return f"attached to {here.keyspace} by {here.key_column}, there to {there}"
    lacks = [f"lacks {part}" for part in sorted(model.parts - here.parts)]
    more = [f"has {part}" for part in sorted(here.parts - model.parts)]
    return "; ".join(names(lacks + more, most=4))
