"""What the application's role may do to the bookkeeping, and nothing besides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from shardlib import admin
from shardlib.testing.databases import TestCluster
from shardlib.testing.secrets_file import ADMIN, APPLICATION

RIGHTS = """
SELECT privilege, array_agg(column_name ORDER BY column_name) FILTER (WHERE allowed)
  FROM (SELECT p.privilege, a.attname::text AS column_name,
               has_column_privilege($1, a.attrelid, a.attnum, p.privilege) AS allowed
          FROM pg_attribute a, (VALUES ('SELECT'), ('INSERT'), ('UPDATE')) AS p (privilege)
         WHERE a.attrelid = $2::text::regclass AND a.attnum > 0 AND NOT a.attisdropped) AS column_rights
 GROUP BY privilege
"""
REQUEST = {"keyspace", "bucket", "id", "fingerprint", "answer", "created_at"}
DECISION = {"keyspace", "bucket", "owner", "token", "outcome", "created_at"}


@asynccontextmanager
async def node_of(cluster: TestCluster, role: str = ADMIN) -> AsyncIterator[asyncpg.Connection]:
    """Connect to the first node."""
    url = cluster.node_admin_urls[0] if role == ADMIN else cluster.node_urls[0]
    connection = await asyncpg.connect(url, password=cluster.servers.secrets.password(role))
    try:
        yield connection
    finally:
        await connection.close()


async def rights(node: asyncpg.Connection, table: str) -> dict[str, Any]:
    """Return the columns that the application may read, insert and update, and whether it may delete or empty."""
    columns = {name: set(allowed or ()) for name, allowed in await node.fetch(RIGHTS, APPLICATION, table)}
    whole = {
        verb: await node.fetchval("SELECT has_table_privilege($1, $2::text, $3)", APPLICATION, table, verb)
        for verb in ("DELETE", "TRUNCATE")
    }
    return columns | whole


@pytest.mark.parametrize("upgraded", [False, True])
async def test_keys_of_the_bookkeeping_are_never_changed(shardlib_cluster: TestCluster, upgraded: bool) -> None:
    async with node_of(shardlib_cluster) as node:
        if upgraded:  # from a version that granted more
            await node.execute(f"GRANT UPDATE, TRUNCATE ON shardlib.request, shardlib.claim_decision TO {APPLICATION}")
            name = shardlib_cluster.node_names[0]
            await admin.add_node(shardlib_cluster.admin_url, shardlib_cluster.nodes[name])
        assert await rights(node, "shardlib.request") == {
            "SELECT": REQUEST,
            "INSERT": REQUEST,
            "UPDATE": {"answer", "created_at"},
            "DELETE": True,
            "TRUNCATE": False,
        }
        assert await rights(node, "shardlib.claim_decision") == {
            "SELECT": DECISION,
            "INSERT": DECISION,
            "UPDATE": set(),
            "DELETE": True,
            "TRUNCATE": False,
        }


async def test_functions_with_their_owners_rights_look_nothing_up_where_a_caller_could_put_it(
    shardlib_cluster: TestCluster,
) -> None:
    async with node_of(shardlib_cluster) as node:
        functions = await node.fetch(
            "SELECT proname, proconfig FROM pg_proc WHERE prosecdef AND pronamespace = 'shardlib'::regnamespace"
        )
        assert {row["proname"] for row in functions} == {"timeline", "note_branch"}
        assert [row["proconfig"] for row in functions] == [["search_path=pg_catalog, pg_temp"]] * 2


async def test_only_the_application_notes_where_a_timeline_began(shardlib_cluster: TestCluster) -> None:
    async with node_of(shardlib_cluster) as node:
        note = "has_function_privilege($1, 'shardlib.note_branch()', 'EXECUTE')"
        assert await node.fetchval(f"SELECT {note}", APPLICATION)
        public = await node.fetchval(
            "SELECT count(*) FROM pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS entry"
            " WHERE proname = 'note_branch' AND entry.grantee = 0"
        )
        assert public == 0
    async with node_of(shardlib_cluster, APPLICATION) as node:
        await node.execute("SELECT shardlib.note_branch()")
