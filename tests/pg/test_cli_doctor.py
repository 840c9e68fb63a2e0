"""``shardctl doctor`` finds what is broken on purpose, where it is broken, and nothing on a cluster that is well."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from shardlib.cli.checks import keyspaces, replicas, servers
from shardlib.cli.checks.keyspaces import sample
from shardlib.core.keys import HASHES, hash_named
from shardlib.core.topology import Keyspace, Node, Topology
from shardlib.testing.databases import TestCluster
from tests.pg.shardctl import shardctl

BROKEN = "node2"
# what is done to one node's database -> what is found there, part by part
FAULTS = {
    "GRANT TRUNCATE ON items_users TO shardlib": ["owns or may truncate public.items_users"],
    "GRANT UPDATE ON items_users TO shardlib": ["may change id of public.items_users"],
    "ALTER VIEW vista OWNER TO shardlib": ["owns or may truncate public.vista"],
    "UPDATE shardlib.node SET name = 'node9'": ["calls itself node9", "a database of node9"],
    "UPDATE shardlib.node SET format = 99": ["has format 99"],
    "UPDATE shardlib.node SET floor_epoch = 999": ["talks to epoch 999 or later"],
    "INSERT INTO shardlib.gained_bucket VALUES ('users', 1, 998)": ["has seen epoch 998"],
    "INSERT INTO shardlib.foreign_bucket VALUES ('users', 77, 'm', 1)": ["foreign list while nothing moves (users 77)"],
    "DROP SCHEMA shardlib CASCADE": ["no bookkeeping"],
    "DELETE FROM shardlib.keyspace k WHERE name = 'identifiers'": ["doesn't know identifiers"],
    "UPDATE shardlib.keyspace SET buckets = 8 WHERE name = 'users'": ["keyspace users is ('uuid_tail', 8)"],
    "UPDATE shardlib.keyspace SET bucket_sql = replace(bucket_sql, ', 0)', ', 1)') WHERE name = 'numbers'": [
        "sample keys of numbers are in another bucket"
    ],
    "UPDATE shardlib.keyspace SET bucket_sql = 'nix(%s)' WHERE name = 'numbers'": ["numbers can't be computed"],
    "DELETE FROM shardlib.attached_table WHERE keyspace = 'users'": ["items_users isn't attached here"],
    "DROP TABLE items_users": ["items_users is attached by its column id, and isn't there"],
    "ALTER TABLE items_users ADD COLUMN more integer": ["has column more integer"],
    "ALTER TABLE items_users DROP COLUMN note": ["lacks column note text not null"],
    "ALTER TABLE items_users SET UNLOGGED": ["items_users isn't logged"],
    "ALTER TABLE items_users DROP CONSTRAINT items_users_pkey": ["no unique index that contains", "lacks CREATE"],
    "ALTER TABLE items_users REPLICA IDENTITY NOTHING": ["replica identity of public.items_users lacks its key"],
    "CREATE UNIQUE INDEX loose ON items_users (note)": ["unique without the key", "has CREATE UNIQUE INDEX loose"],
    "CREATE TABLE parts (id bigint) PARTITION BY HASH (id);"
    "INSERT INTO shardlib.attached_table VALUES ('public.parts', 'numbers', 'id')": [
        "is partitioned", *["isn't attached"] * 2
    ],
    "CREATE TABLE odd (id text PRIMARY KEY); SELECT shardlib.attach('numbers', 'odd', 'id')": [
        "public.odd.id is text", *["isn't attached"] * 2
    ],
    "INSERT INTO shardlib.identifier (value, owner, token, state, claimed_at)"
    " VALUES ('x', 'y', gen_random_uuid(), 'pending', now() - interval '1 hour')": ["1 claims that nobody finished"],
}
SERVER = {
    "role": "shardlib", "superuser": False, "in_recovery": False, "version": 180_006, "encoding": "UTF8",
    "wal_level": "logical", "password_encryption": "scram-sha-256", "clock": 1000.0,
}
POSITION = 5_000_000
REPLICA = {
    "name": "node1", "in_recovery": True, "lsn": POSITION, "timeline": 1, "paused": False, "receiving": True,
}
TOPOLOGY = Topology(1, 5, {"node1": Node("node1", "u")}, {"k": Keyspace("k", "int", ("node1",) * 4)})


def diagnosis(*words: str) -> list[dict[str, str]]:
    """Return what the doctor finds, after a look at the document's form."""
    said = shardctl("doctor", "--json", *words)
    assert set(said.document) == {"well", "epoch", "nodes", "rows_counted", "findings"}
    assert said.code == (0 if said.document["well"] else 1)
    found: list[dict[str, str]] = said.document["findings"]
    assert said.document["well"] is not bool(found)
    for finding in found:
        assert set(finding) == {"level", "where", "what", "advice"}
        assert finding["level"] in ("error", "warning")
        assert finding["advice"]
    return found


def whats(*words: str) -> list[str]:
    """Return what is said of each finding."""
    return [finding["what"] for finding in diagnosis(*words)]


def on_a_node(cluster: TestCluster, sql: str, node: str = BROKEN) -> None:
    """Run statements in a node's database as its administrator, or what only a superuser may."""
    server = cluster.servers.nodes[cluster.node_names.index(node)].primary
    server.psql(sql, database=cluster.database)


def test_a_cluster_that_is_well(stocked: TestCluster) -> None:
    assert whats("--rows") == []
    said = shardctl("doctor")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("All is well: the catalog and 3 nodes")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_where_it_is(fault: str, stocked: TestCluster) -> None:
    if "vista" in fault:
        on_a_node(stocked, "CREATE VIEW vista AS SELECT 1 AS one")
    on_a_node(stocked, fault)
    found = diagnosis()
    assert len(found) >= len(FAULTS[fault]), found
    for expected in FAULTS[fault]:
        assert any(expected in finding["what"] for finding in found), found
    assert all(BROKEN in finding["where"] or "isn't attached" in finding["what"] for finding in found), found
    text = shardctl("doctor")
    assert text.code == 1
    assert f"{BROKEN}" in text.out


def test_a_superuser_is_found(stocked: TestCluster) -> None:
    on_a_node(stocked, "ALTER ROLE shardlib SUPERUSER")
    try:
        assert whats() == ["the application is shardlib, a superuser"]
    finally:
        on_a_node(stocked, "ALTER ROLE shardlib NOSUPERUSER")


def test_an_administrator_without_a_right_is_found(stocked: TestCluster) -> None:
    on_a_node(stocked, "REVOKE pg_create_subscription FROM shardlib_admin")
    try:
        [finding] = diagnosis()
    finally:
        on_a_node(stocked, "GRANT pg_create_subscription TO shardlib_admin")
    assert finding["advice"] == "GRANT pg_create_subscription TO shardlib_admin"


def test_a_replica_whose_replay_is_paused(stocked: TestCluster) -> None:
    replica = stocked.servers.nodes[1].replica
    replica.pause_replay()
    try:
        assert whats() == ["its replay is paused"]
    finally:
        replica.resume_replay()


def test_a_replica_that_is_stopped(stocked: TestCluster) -> None:
    replica = stocked.servers.nodes[1].replica
    replica.stop()
    try:
        [finding] = diagnosis()
    finally:
        replica.start()
    assert (finding["where"], finding["what"]) == (
        f"node2 replica 127.0.0.1:{replica.port}", "it can't be looked at: connection refused",
    )


def test_addresses_that_lead_elsewhere(stocked: TestCluster) -> None:
    wrong = stocked.nodes["node1"]
    assert shardctl("nodes", "set", BROKEN, "--admin-url", wrong.admin_url).code == 0
    assert any("lead to different databases" in what for what in whats())
    right = stocked.nodes[BROKEN]
    changes = ["--admin-url", right.admin_url, "--replica", wrong.replicas[0]]
    assert shardctl("nodes", "set", BROKEN, *changes).code == 0
    assert whats() == ["it is a database of node1"]


def test_rows_on_a_wrong_node_are_found_by_bucket(stocked: TestCluster) -> None:
    for node in stocked.node_names:
        on_a_node(stocked, "INSERT INTO items_numbers (id) VALUES (1)", node)
    [home] = shardctl("where", "1", "--json").document
    assert whats() == []
    found = diagnosis("--rows")
    assert {finding["where"] for finding in found} == set(stocked.node_names) - {home["node"]}
    listed = f"{home['bucket']} of {home['node']}"
    assert {finding["what"] for finding in found} == {
        f"1 rows of public.items_numbers are in buckets that it doesn't own: {listed}"
    }


def test_rows_of_a_foreign_bucket_are_where_they_may_be(stocked: TestCluster) -> None:
    [home] = shardctl("where", "1", "--json").document
    other = next(node for node in stocked.node_names if node != home["node"])
    on_a_node(stocked, "INSERT INTO items_numbers (id) VALUES (1)", other)
    on_a_node(stocked, f"INSERT INTO shardlib.foreign_bucket VALUES ('numbers', {home['bucket']}, 'm', 1)", other)
    assert [what for what in whats("--rows") if "rows of public" in what] == []


def test_keys_whose_tails_are_not_random(stocked: TestCluster) -> None:
    for node in stocked.node_names:
        on_a_node(stocked, "INSERT INTO items_users (id) SELECT gen_random_uuid() FROM generate_series(1, 3000)", node)
    assert whats() == []
    fixed = "(lpad(to_hex(n), 8, '0') || '-0000-1000-8000-000000000' || to_hex(256 + n % 16 * 16))::uuid"
    for node in stocked.node_names:
        on_a_node(stocked, f"INSERT INTO items_users (id) SELECT {fixed} FROM generate_series(1, 3000) AS n", node)
    found = whats()
    assert found
    assert all("keys of public.items_users aren't spread" in what for what in found)


def test_a_catalog_that_is_down_is_a_finding(stocked: TestCluster) -> None:
    said = shardctl("--catalog", "postgresql://shardlib@127.0.0.1:1/catalog", "doctor", "--json")
    assert said.code == 1
    assert (said.document["epoch"], said.document["nodes"]) == (None, [])
    assert all("connection refused" in finding["what"] for finding in said.document["findings"])
    assert len(said.document["findings"]) == 2


def test_a_wrong_password_of_one_role(stocked: TestCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("open sesame")
    monkeypatch.setenv("SHARDLIB_ADMIN_PASSWORD_FILE", str(wrong))
    found = diagnosis()
    assert [finding["where"] for finding in found] == ["catalog", *stocked.node_names]
    assert all("administrator can't" in finding["what"] for finding in found)
    assert all("password authentication failed" in finding["what"] for finding in found)


def test_an_empty_catalog_is_told_what_to_do_next(stocked: TestCluster) -> None:
    stocked.servers.catalog.psql(
        "DELETE FROM shardlib.bucket; DELETE FROM shardlib.keyspace; DELETE FROM shardlib.node",
        database=stocked.database,
    )
    assert whats() == ["there are no nodes"]


@pytest.mark.parametrize("hash_name", list(HASHES))
def test_samples_are_valid_keys(hash_name: str) -> None:
    hashing = hash_named(hash_name)
    keys = sample(hashing.key_type, random.Random(1))
    assert len({hashing.bucket(key, 4095) for key in keys}) > 50
    assert all(isinstance(key, int | str | UUID) for key in keys)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"in_recovery": True}, "standby"),
        ({"version": 160_004}, "too old"),
        ({"encoding": "LATIN1"}, "LATIN1"),
        ({"wal_level": "replica"}, "wal_level"),
        ({"password_encryption": "md5"}, "md5"),
        ({"clock": 1100.0}, "+100 s"),
    ],
)
def test_servers_are_judged(changed: dict[str, Any], expected: str | None) -> None:
    judged(servers.judge_server("node1", {**SERVER, **changed}, 1000.0), expected)


def test_roles_are_judged() -> None:
    root = {**SERVER, "superuser": True}
    judged(servers.judge_application("node1", SERVER, []), None)
    judged(servers.judge_application("node1", root, []), "superuser")
    judged(servers.judge_application("node1", SERVER, ["a", "b", "c", "d", "e", "f"]), "a, b, c, d, e, 1 more")
    may: dict[str, Any] = dict.fromkeys(
        ["replication", "create_subscription", "monitor", "signal_backend", "replication_role"], True
    )
    judged(servers.judge_administrator("node1", SERVER, may), None)
    judged(servers.judge_administrator("node1", root, may), "superuser")
    for right in may:
        judged(servers.judge_administrator("node1", SERVER, {**may, right: False}), "lacks rights")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, None),
        ({"slots": 1}, "free replication slots"),
        ({"senders": 0}, "free replication senders"),
        ({"lost_slots": 1}, "lost log"),
        ({"idle_seconds": 100.0}, "idle for 100 s"),
        ({"prepared": 2}, "2 prepared"),
    ],
)
def test_room_is_judged(changed: dict[str, Any], expected: str | None) -> None:
    room = {"slots": 10, "senders": 10, "lost_slots": 0, "idle_seconds": 0.0, "prepared": 0}
    judged(servers.judge_room("node1", {**room, **changed}), expected)


@pytest.mark.parametrize(
    ("changed", "behind", "expected"),
    [
        ({}, 0, None),
        ({"in_recovery": False}, 0, "takes writes"),
        ({"timeline": 2}, 0, "timeline 2"),
        ({"paused": True}, 0, "paused"),
        ({}, 1 << 20, "behind its primary by 1.0 MB"),
        ({"receiving": False}, 0, "doesn't stream"),
        ({"name": "node2"}, 0, "a database of node2"),
    ],
)
def test_replicas_are_judged(changed: dict[str, Any], behind: int, expected: str | None) -> None:
    judged(replicas.judge_replica("replica", "node1", {**REPLICA, **changed}, (1, POSITION + behind)), expected)


def test_a_keyspace_that_a_node_does_not_know_is_found() -> None:
    judged(keyspaces.judge_keyspaces("node1", {}, TOPOLOGY), "doesn't know k")


def judged(findings: Any, expected: str | None) -> None:
    found = [finding.what for finding in findings]
    assert (expected is None and not found) or (expected is not None and len(found) == 1 and expected in found[0]), (
        found
    )
