"""shardctl's verbs on real servers: what they print, their JSON, their exit codes, wrong input."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import asyncpg
import pytest

from shardlib.cli.group import VERBS
from shardlib.testing.binaries import find_binaries
from shardlib.testing.databases import TestCluster
from shardlib.testing.plugin import OwnServers
from shardlib.testing.secrets_file import ADMIN
from tests.pg.shardctl import shardctl

SPACES = ["identifiers", "names", "numbers", "users"]


def address(role: str, port: int, database: str) -> str:
    """Return an address on this machine."""
    return f"postgresql://{role}@127.0.0.1:{port}/{database}"


# -- help and usage


@pytest.mark.parametrize(
    "arguments", [[], *([verb] for verb in VERBS), *(["nodes", verb] for verb in ("list", "add", "set", "remove"))]
)
def test_help_is_there_without_any_cluster(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHARDLIB_CATALOG_URL", raising=False)
    said = shardctl(*arguments, "-h")
    assert said.code == 0
    assert said.out.startswith(" ".join(["Usage: shardctl", *arguments]))
    assert len(said.out.splitlines()) > 5


def test_help_loads_no_verb() -> None:
    script = (
        "import sys; from shardlib.cli import main; main(['-h'], standalone_mode=False);"
        "assert not {'shardlib.cli.doctor', 'shardlib.cli.where', 'shardlib.cli.status'} & set(sys.modules)"
    )
    assert "Verbs:" in subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("verb", [["nodes", "list"], ["status"], ["where", "5"], ["doctor"], ["init"]])
def test_without_a_catalog_it_says_what_to_set(verb: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SHARDLIB_CATALOG_URL", "SHARDLIB_CATALOG_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    said = shardctl(*verb)
    assert (said.code, said.out) == (2, "")
    assert "CATALOG" in said.err
    assert "URL" in said.err


@pytest.mark.parametrize(
    "url", ["bla", "http://host/x", "postgresql://h:99999/x", "postgresql:///x", "postgresql://u:secret@h:p/x"]
)
def test_what_is_no_address_is_refused_without_showing_a_password(url: str) -> None:
    said = shardctl("--catalog", url, "nodes", "list")
    assert said.code == 2
    assert "postgresql://role@host:port/database" in said.err or "not an address" in said.err
    assert "secret" not in said.err


# -- the catalog can't be reached


@pytest.mark.parametrize("verb", [["nodes", "list"], ["nodes", "remove", "node1"], ["status"], ["init"]])
def test_a_catalog_that_is_down_ends_with_3(verb: list[str], shardlib_cluster: TestCluster) -> None:
    said = shardctl("--catalog", "postgresql://shardlib@127.0.0.1:1/catalog", *verb)
    assert (said.code, said.out) == (3, "")
    assert "connection refused" in said.err
    assert "127.0.0.1:1/catalog" in said.err


def test_a_wrong_password_is_said_with_where_it_comes_from(
    shardlib_cluster: TestCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "password"
    wrong.write_text("open sesame\n")
    monkeypatch.setenv("SHARDLIB_PASSWORD_FILE", str(wrong))
    said = shardctl("status")
    assert said.code == 3
    assert "password authentication failed" in said.err
    assert "SHARDLIB_PASSWORD[_FILE]" in said.err
    assert "sesame" not in said.err
    wrong.unlink()
    said = shardctl("status")
    assert said.code == 4
    assert f"can't read {wrong}" in said.err


def test_a_database_that_is_no_catalog(shardlib_cluster: TestCluster) -> None:
    url = shardlib_cluster.servers.catalog.url("postgres", "shardlib")
    said = shardctl("--catalog", url, "nodes", "list")
    assert said.code == 3
    assert "does not exist" in said.err


# -- from an empty database to a cluster


def test_a_cluster_from_nothing(shardlib_cluster: TestCluster) -> None:
    servers, name = shardlib_cluster.servers, f"{shardlib_cluster.database}_new"
    ports = {"catalog": servers.catalog.port} | {node.name: node.primary.port for node in servers.nodes}
    for server in servers.primaries:
        server.psql(f'CREATE DATABASE "{name}" OWNER {ADMIN}')
    try:
        catalog = ["--catalog", address("shardlib", ports["catalog"], name)]
        made = shardctl(*catalog, "init", "--json")
        assert made.document == {
            "catalog": address(ADMIN, ports["catalog"], name), "epoch": 0, "nodes": [], "keyspaces": [],
        }
        assert "Next: shardctl nodes add" in shardctl(*catalog, "init").out
        assert "No nodes" in shardctl(*catalog, "nodes", "list").out
        assert "no nodes" in shardctl(*catalog, "status").out
        assert shardctl(*catalog, "create-keyspace", "users", "--hash", "uuid_tail").code == 4

        for node, weight in (("node1", "1"), ("node2", "3")):
            url = address("shardlib", ports[node], name)
            added = shardctl(*catalog, "nodes", "add", node, "--url", url, "--weight", weight, "--zone", "a", "--json")
            assert added.code == 0, added.err
        assert added.document == {
            "name": "node2", "url": url, "admin_url": address(ADMIN, ports["node2"], name), "replication_url": "",
            "replicas": [], "weight": 3.0, "region": "", "zone": "a", "buckets": {}, "epoch": 2,
        }
        created = shardctl(*catalog, "create-keyspace", "users", "--hash", "uuid_tail", "--buckets", "64", "--json")
        assert created.document == {
            "name": "users", "hash": "uuid_tail", "buckets": 64, "nodes": {"node1": 16, "node2": 48}, "epoch": 3,
        }
        again = shardctl(*catalog, "create-keyspace", "users", "--hash", "uuid_tail", "--buckets", "64")
        assert (again.code, again.out) == (0, "Keyspace users (uuid_tail) has 64 buckets: node1 16, node2 48\n")
        assert shardctl(*catalog, "create-keyspace", "users", "--hash", "uuid_hash", "--buckets", "64").code == 4
        assert shardctl(*catalog, "doctor", "--rows").out == "All is well: the catalog and 2 nodes, epoch 3.\n"
    finally:
        for server in servers.primaries:
            server.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


def test_init_by_a_role_that_may_not_is_explained(
    shardlib_cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDLIB_ADMIN_PASSWORD_FILE", os.environ["SHARDLIB_PASSWORD_FILE"])
    said = shardctl("--admin-catalog", shardlib_cluster.catalog_url, "init")
    assert said.code == 4
    assert "permission denied" in said.err


@pytest.mark.parametrize("name", ["Users", "9lives", "a" * 32, "", "über", "a;b"])
def test_names_that_the_catalog_would_refuse(name: str, shardlib_cluster: TestCluster) -> None:
    assert shardctl("create-keyspace", name, "--hash", "int").code == 2
    assert shardctl("nodes", "add", name, "--url", "postgresql://shardlib@127.0.0.1:1/app").code == 2


@pytest.mark.parametrize("buckets", ["0", "3", "131072"])
def test_a_number_of_buckets_that_cannot_be(buckets: str, shardlib_cluster: TestCluster) -> None:
    assert shardctl("create-keyspace", "odd", "--hash", "int", "--buckets", buckets).code in (2, 4)
    assert "odd" not in shardctl("status").out


# -- nodes


def test_nodes_list(shardlib_cluster: TestCluster) -> None:
    said = shardctl("nodes", "list", "--json").document
    assert [node["name"] for node in said["nodes"]] == list(shardlib_cluster.node_names)
    first = said["nodes"][0]
    assert set(first) == {
        "name", "url", "admin_url", "replication_url", "replicas", "weight", "region", "zone", "buckets",
    }
    assert sorted(first["buckets"]) == SPACES
    lines = shardctl("nodes", "list").out.splitlines()
    assert lines[0].split() == ["node", "buckets", "weight", "region", "zone", "url", "replicas"]
    assert lines[1].split()[0] == "node1"
    assert shardlib_cluster.node_urls[0] in lines[1]


def test_nodes_set_changes_what_is_given_and_nothing_else(shardlib_cluster: TestCluster) -> None:
    before = {node["name"]: node for node in shardctl("nodes", "list", "--json").document["nodes"]}
    changed = shardctl("nodes", "set", "node2", "--weight", "2.5", "--region", "eu", "--json")
    assert changed.code == 0
    after = {node["name"]: node for node in shardctl("nodes", "list", "--json").document["nodes"]}
    assert after == before | {"node2": before["node2"] | {"weight": 2.5, "region": "eu"}}
    two = ["--replica", "postgresql://shardlib@h1/app", "--replica", "postgresql://shardlib@h2/app"]
    assert len(shardctl("nodes", "set", "node2", *two, "--json").document["replicas"]) == 2
    assert shardctl("nodes", "set", "node2", "--no-replicas", "--json").document["replicas"] == []
    assert shardctl("nodes", "set", "node2", "--region", "", "--json").document["region"] == ""


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["set", "node2"], 2, "nothing to change"),
        (["set", "node2", "--no-replicas", "--replica", "postgresql://shardlib@h/app"], 2, "not both"),
        (["set", "node7", "--weight", "2"], 4, "no node node7"),
        (["set", "node2", "--weight", "-1"], 2, "--weight"),
        (["set", "node2", "--weight", "nan"], 2, "--weight"),
        (["set", "node2", "--url", "postgresql://shardlib:secret@h/app"], 2, "leave the password out"),
        (["set", "node2", "--url", "postgresql://shardlib@h/app?password=secret"], 2, "leave the password out"),
        (["remove", "node2"], 4, "still owns buckets"),
        (["remove", "node7"], 4, "no node node7"),
        (["add", "node2", "--url", "postgresql://shardlib@h/app"], 4, "nodes set changes them"),
        (["add", "node7", "--url", "postgresql://shardlib@127.0.0.1:1/app"], 3, "127.0.0.1:1/app: connection refused"),
        (["add", "node7"], 2, "--url"),
    ],
)
def test_nodes_say_why_not(arguments: list[str], code: int, says: str, shardlib_cluster: TestCluster) -> None:
    epoch = shardctl("nodes", "list", "--json").document["epoch"]
    said = shardctl("nodes", *arguments)
    assert (said.code, said.out) == (code, "")
    assert says in said.err
    assert "secret" not in said.err
    assert shardctl("nodes", "list", "--json").document["epoch"] == epoch


async def test_adding_a_node_again_repairs_its_bookkeeping(shardlib_cluster: TestCluster) -> None:
    url = shardlib_cluster.node_urls[1]
    node = await asyncpg.connect(
        shardlib_cluster.node_admin_urls[1], password=shardlib_cluster.servers.secrets.password(ADMIN)
    )
    await node.execute("UPDATE shardlib.keyspace SET bucket_sql = 'nix(%s)' WHERE name = 'numbers'")
    assert shardctl_apart("doctor").code == 1
    before = shardctl_apart("nodes", "list", "--json").document["nodes"]
    assert shardctl_apart("nodes", "add", "node2", "--url", url).code == 0
    assert shardctl_apart("nodes", "list", "--json").document["nodes"] == before
    assert shardctl_apart("doctor").out.startswith("All is well")
    await node.close()


def test_a_database_is_one_node_only(shardlib_cluster: TestCluster) -> None:
    said = shardctl("nodes", "add", "node7", "--url", shardlib_cluster.node_urls[0])
    assert said.code == 4
    assert "already" in said.err


# -- where

ONE_UUID = "6ba7b810-9dad-41d1-80b4-00c04fd43abc"


@pytest.mark.parametrize(
    ("key", "keyspace"),
    [("42", "numbers"), ("-42", "numbers"), (ONE_UUID, "users"), ("näme 🐘", "names"), ("--json", "names")],
)
async def test_where_says_what_the_library_does(key: str, keyspace: str, shardlib_cluster: TestCluster) -> None:
    typed = {"numbers": int, "users": uuid.UUID, "names": str}[keyspace](key)
    async with shardlib_cluster.connect() as cluster:
        home = cluster.where(typed, keyspace=keyspace)
    [said] = shardctl_apart("where", "--keyspace", keyspace, "--json", "--", key).document
    assert set(said) == {
        "keyspace", "key", "bucket", "buckets", "node", "url", "replicas", "moving", "epoch", "psql",
    }
    assert (said["bucket"], said["node"], said["url"]) == (home.bucket, home.node, home.url)
    assert (said["replicas"], said["moving"]) == (list(home.replicas), None)
    assert said["key"] == (typed if isinstance(typed, int) else key)


def test_where_goes_by_the_type_of_the_key(shardlib_cluster: TestCluster) -> None:
    assert [found["keyspace"] for found in shardctl("where", "-42", "--json").document] == ["numbers"]
    assert [found["keyspace"] for found in shardctl("where", ONE_UUID, "--json").document] == ["users"]
    assert [found["keyspace"] for found in shardctl("where", "x", "--json").document] == ["identifiers", "names"]
    text = shardctl("where", ONE_UUID).out
    assert "keyspace  users" in text
    assert f"bucket    {0xabc:,} of 4,096" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["where", "x", "--keyspace", "numbers"], "an integer"),
        (["where", "x", "--keyspace", "users"], "a UUID"),
        (["where", "x", "--keyspace", "nope"], "there are: identifiers"),
        (["where", str(2**63), "--keyspace", "numbers"], "no bigint"),
        (["where", "\udcff", "--keyspace", "names"], "surrogate"),
    ],
)
def test_where_refuses_a_key_that_cannot_be(arguments: list[str], says: str, shardlib_cluster: TestCluster) -> None:
    said = shardctl(*arguments)
    assert (said.code, said.out) == (4, "")
    assert says in said.err


@pytest.mark.parametrize("password", ["SHARDLIB_PASSWORD_FILE", "SHARDLIB_PASSWORD", "PGPASSFILE"])
def test_the_psql_line_connects_when_pasted(
    password: str, shardlib_cluster: TestCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = shardlib_cluster.servers.secrets.password("shardlib")
    kept = {password: secret if password == "SHARDLIB_PASSWORD" else os.environ[password]}
    for name in ("SHARDLIB_PASSWORD_FILE", "SHARDLIB_PASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SHARDLIB_CATALOG_URL", shardlib_cluster.catalog_url)
    monkeypatch.setenv(password, kept[password])
    [said] = shardctl("where", ONE_UUID, "--json").document
    assert secret not in said["psql"]
    shell = {"PATH": f"{find_binaries().directory}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    shell |= kept if password == "SHARDLIB_PASSWORD" else {}  # the files are named in the line
    line = f"{said['psql']} -XAtc 'SELECT name, current_user FROM shardlib.node'"
    done = subprocess.run(["bash", "-c", line], env=shell, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{said['node']}|shardlib"


def shardctl_apart(*arguments: str) -> Any:
    """Run a command line beside a running event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(shardctl, *arguments).result()


# -- status


def test_status_of_a_healthy_cluster(shardlib_cluster: TestCluster) -> None:
    said = shardctl("status", "--json")
    assert said.code == 0, said.out
    document = said.document
    assert set(document) == {"epoch", "incarnation", "nodes", "keyspaces", "well"}
    assert document["well"] is True
    assert [space["name"] for space in document["keyspaces"]] == SPACES
    assert set(document["keyspaces"][0]) == {"name", "hash", "buckets", "moving"}
    for node in document["nodes"]:
        assert set(node) == {"name", "writable", "timeline", "weight", "region", "zone", "buckets", "endpoints"}
        assert [end["role"] for end in node["endpoints"]] == ["primary", "replica"]
        assert all(set(end) == {"address", "role", "usable", "broken", "lag_seconds"} for end in node["endpoints"])
        assert 0 <= node["endpoints"][1]["lag_seconds"] < 5
    text = shardctl("status").out
    assert "All endpoints serve." in text
    assert "node2" in text


async def test_status_shows_what_moves(shardlib_cluster: TestCluster) -> None:
    password = shardlib_cluster.servers.secrets.password(ADMIN)
    catalog = await asyncpg.connect(shardlib_cluster.admin_url, password=password)
    await catalog.execute("UPDATE shardlib.bucket SET move = 'm1' WHERE keyspace = 'numbers' AND bucket < 3")
    await catalog.close()
    spaces = {space["name"]: space for space in shardctl_apart("status", "--json").document["keyspaces"]}
    assert (spaces["numbers"]["moving"], spaces["users"]["moving"]) == (3, 0)


def test_a_node_that_is_down_or_hangs_is_named_in_time(own_servers: OwnServers) -> None:
    cluster = own_servers(nodes=2, replicas=1)
    down, hanging = (node.primary for node in cluster.servers.nodes)
    down.stop()
    hanging.freeze()
    try:
        started = monotonic()
        said = shardctl("status", "--json")
        doctor = shardctl("doctor", "--json")
        assert monotonic() - started < 20
    finally:
        hanging.thaw()
    assert said.code == 1
    ends = {end["address"]: end for node in said.document["nodes"] for end in node["endpoints"]}
    assert [node["writable"] for node in said.document["nodes"]] == [False, False]
    assert "connection refused" in ends[f"127.0.0.1:{down.port}"]["broken"]
    assert not ends[f"127.0.0.1:{hanging.port}"]["usable"]
    assert doctor.code == 1
    whats = {(found["where"], found["what"].rpartition(": ")[2]) for found in doctor.document["findings"]}
    assert {("node1", "connection refused"), ("node2", "no answer in time")} <= whats
    text = shardctl("status").out
    assert f"node1 127.0.0.1:{down.port}" in text.rpartition("Not serving")[2]
