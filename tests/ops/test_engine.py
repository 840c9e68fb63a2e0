"""The servers of ``shardlib.testing``: what a test does to them, and what is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardlib.testing import EngineError, LocalCluster, NodePorts, PostgresServer, TestCluster, places, ports, processes
from shardlib.testing.binaries import find_binaries
from shardlib.testing.plugin import OwnServers, describe_servers
from shardlib.testing.settings import FOR_TESTS
from tests.ops.people import REPOSITORY, nobody
from tests.support.waiting import wait_until


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give a place for servers that is cleared at the end."""
    with places.place() as made:
        yield made


@pytest.fixture
def servers(own_servers: OwnServers) -> LocalCluster:
    """Give a catalog and one node with a replica."""
    return own_servers(nodes=1, replicas=1).servers


# -- which Postgres


def fake_postgres(directory: Path, version: str) -> Path:
    for name in ("postgres", "initdb", "psql", "pg_basebackup", "pg_resetwal"):
        program = directory / name
        program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n", encoding="ascii")
        program.chmod(0o755)
    return directory


def test_an_old_postgres_is_refused_by_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_PG_BINDIR", str(fake_postgres(tmp_path, "16.3")))
    with pytest.raises(EngineError, match=r"is Postgres 16\.3, and at least 17 is needed"):
        find_binaries()


def test_another_postgres_is_taken_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_PG_BINDIR", str(fake_postgres(tmp_path, "17.2 (Debian 17.2-1)")))
    assert (find_binaries().directory, find_binaries().major) == (tmp_path, 17)


def test_a_directory_without_programs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_PG_BINDIR", str(tmp_path))
    with pytest.raises(EngineError, match="has no program postgres, initdb"):
        find_binaries()


# -- making


def test_each_primary_has_an_identity_of_its_own(shardlib_servers: LocalCluster) -> None:
    identities = [server.psql("SELECT system_identifier FROM pg_control_system()") for server in shardlib_servers]
    primaries = len(shardlib_servers.primaries)
    assert len(set(identities[:primaries])) == primaries
    assert identities[primaries:] == identities[1:primaries]  # each replica has its primary's


def test_clones_are_sound(shardlib_servers: LocalCluster) -> None:
    server = shardlib_servers.nodes[0].primary
    server.binaries.run("pg_controldata", "-D", str(server.data))
    assert server.psql("SELECT count(*) > 300 FROM pg_class") == "t"
    assert server.psql("SHOW data_checksums") == "on"
    assert server.psql("SELECT count(*) FROM pg_stat_database WHERE checksum_failures > 0") == "0"


def test_many_processes_make_one_template(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\nfrom shardlib.testing import binaries, template\n"
        f"print(template.template(binaries.find_binaries(), Path({str(tmp_path)!r})))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(REPOSITORY)}
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    answers = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1
    kept = sorted(path.name for path in (tmp_path / "cache" / "shardlib").iterdir())
    assert len(kept) == 2  # the template and its lock, nothing half-made


def test_a_lost_replica_is_made_again_from_the_running_primary(servers: LocalCluster) -> None:
    node = servers.nodes[0]
    node.replica.kill()
    node.replica.data.rename(node.replica.directory / "data.partial")  # as if the copy had been cut short
    servers.start()
    node.replica.wait_replayed()
    assert node.primary.psql("SELECT count(*) FROM pg_stat_replication") == "1"


# -- who may do what


@pytest.mark.parametrize("role", ["postgres", "shardlib_admin", "shardlib"])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_enters_without_the_password(shardlib_servers: LocalCluster, role: str, password: str) -> None:
    server = shardlib_servers.nodes[0].primary
    refused = subprocess.run(
        [server.binaries.path("psql"), "-Xwc", "SELECT 1", server.url("postgres", role)],
        env={"PGPASSWORD": password, "PGPASSFILE": "/dev/null", "LC_ALL": "C"}, capture_output=True, text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "password" in refused.stderr


def test_passwords_are_scram_and_replication_asks_for_one(shardlib_servers: LocalCluster) -> None:
    node = shardlib_servers.nodes[0]
    other = "SELECT count(*) FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'"
    assert node.primary.psql(other) == "0"
    methods = node.primary.psql("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert methods == "scram-sha-256"
    assert node.primary.psql("SELECT usename FROM pg_stat_replication") == "shardlib_admin"


def test_no_role_of_ours_is_a_superuser_and_the_mover_has_what_it_needs(shardlib_cluster: TestCluster) -> None:
    server, database = shardlib_cluster.servers.nodes[0].primary, shardlib_cluster.database
    assert server.psql("SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolsuper") == "postgres"
    answers = server.psql(
        "SET session_replication_role = replica;\n"
        "SELECT pg_replication_origin_create('mine') IS NOT NULL;\n"
        "SELECT pg_replication_origin_session_setup('mine');\n"
        "SELECT pg_replication_origin_session_is_setup();\n"
        "SELECT pg_replication_origin_session_reset();\n"
        "SELECT pg_replication_origin_drop('mine');\n"
        "SELECT pg_has_role('pg_create_subscription', 'member'), pg_has_role('pg_monitor', 'member');",
        database=database, role="shardlib_admin",
    )
    assert answers.split() == ["t", "t", "t|t"]


@pytest.mark.parametrize(
    "forbidden",
    ["CREATE TABLE mine (id int)", "SET session_replication_role = replica", "DROP SCHEMA shardlib CASCADE"],
)
def test_the_application_may_not(shardlib_cluster: TestCluster, forbidden: str) -> None:
    server, database = shardlib_cluster.servers.nodes[0].primary, shardlib_cluster.database
    with pytest.raises(EngineError, match=r"permission denied|must be owner"):
        server.psql(forbidden, database=database, role="shardlib")


# -- trouble


def test_kill_of_the_postmaster_alone_is_survived(servers: LocalCluster) -> None:
    server = servers.nodes[0].primary
    server.psql("CREATE TABLE kept AS SELECT 1 AS id")
    pid = server.pid
    assert pid is not None
    server.freeze()  # its children stay, and hold the shared memory
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not server.running)
    server.start()
    assert server.psql("SELECT id FROM kept") == "1"
    assert server.pid != pid


def test_a_pid_file_with_somebody_elses_pid_is_no_obstacle(servers: LocalCluster) -> None:
    server = servers.nodes[0].primary
    server.stop()
    somebody = subprocess.Popen(["/bin/sleep", "600"])
    try:
        (server.data / "postmaster.pid").write_text(f"{somebody.pid}\n{server.data}\n", encoding="ascii")
        assert not server.running
        server.start()
        assert somebody.poll() is None
    finally:
        somebody.kill()
        somebody.wait()
    assert server.psql("SELECT 1") == "1"


def test_a_frozen_server_answers_nobody_until_it_is_thawed(servers: LocalCluster) -> None:
    server = servers.nodes[0].primary
    asking = [server.binaries.path("psql"), "-Xc", "SELECT 1", server.url("postgres", "postgres")]
    environment = {"PGPASSFILE": str(server.secrets.passfile), "PGCONNECT_TIMEOUT": "2"}
    server.freeze()
    try:
        assert subprocess.run(asking, env=environment, capture_output=True, check=False).returncode != 0
    finally:
        server.thaw()
    assert subprocess.run(asking, env=environment, capture_output=True, check=False).returncode == 0


def test_paused_replay_lags_and_resumed_replay_catches_up(servers: LocalCluster) -> None:
    node = servers.nodes[0]
    node.replica.pause_replay()
    node.primary.psql("CREATE TABLE late (id int)")
    assert node.replica.psql("SELECT to_regclass('late') IS NULL") == "t"
    node.replica.resume_replay()
    node.replica.wait_replayed()
    assert node.replica.psql("SELECT to_regclass('late') IS NULL") == "f"


def test_a_promoted_replica_takes_writes(servers: LocalCluster) -> None:
    node = servers.nodes[0]
    node.primary.kill()
    node.replica.promote()
    node.replica.psql("CREATE TABLE here (id int)")
    assert node.replica.psql("SELECT timeline_id FROM pg_control_checkpoint()") >= "1"


def test_a_server_that_can_not_start_says_why(directory: Path) -> None:
    cluster = describe_servers(directory, nodes=0, replicas=0)
    cluster.start()
    cluster.stop()
    settings = cluster.catalog.data / "postgresql.auto.conf"
    settings.write_text("shared_buffers = 'nonsense'\n", encoding="ascii")
    with pytest.raises(EngineError, match=r"(?s)catalog on port .* ended at once.*nonsense"):
        cluster.start()


# -- what is left


SCRIPT = """
import sys, time
from pathlib import Path
from shardlib.testing import LocalCluster
from shardlib.testing.settings import FOR_TESTS
cluster = LocalCluster(Path(sys.argv[1]), int(sys.argv[2]), {}, FOR_TESTS, tied=sys.argv[3] == "tied")
cluster.start()
print("started", flush=True)
time.sleep(600)
"""


def parent_of_a_server(directory: Path, how: str) -> subprocess.Popen[str]:
    """Start another process that starts a server; return when that runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(directory / "servers"), str(ports.take(1)[0]), how], stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.stdout.close()
    return process


def test_tied_servers_die_with_a_parent_that_is_killed(directory: Path) -> None:
    parent = parent_of_a_server(directory, "tied")
    assert processes.working_below(directory / "servers")
    parent.kill()
    parent.wait()
    wait_until(lambda: not processes.working_below(directory / "servers"))


def test_other_servers_survive_their_parent(directory: Path) -> None:
    parent = parent_of_a_server(directory, "free")
    parent.kill()
    parent.wait()
    data = directory / "servers" / "catalog" / "data"
    assert (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[7].strip() == "ready"
    assert processes.working_in(data)


def test_the_next_run_clears_what_a_dead_one_left(directory: Path) -> None:
    left = directory / (places.PREFIX + "left")
    left.mkdir()
    (left / "owner").touch()
    sleeper = subprocess.Popen(["/bin/sleep", "600"], cwd=left)
    alive = directory / (places.PREFIX + "alive")
    alive.mkdir()
    holder = subprocess.Popen(["flock", str(alive / "owner"), "sleep", "600"])
    try:
        wait_until((alive / "owner").exists)
        places.sweep(directory)
        assert sleeper.wait(10) != 0
        assert not left.exists()
        assert alive.exists()
    finally:
        processes.send([holder.pid], signal.SIGTERM)
        holder.wait()


# -- who we are


def test_servers_run_as_nobody_where_namespaces_are_forbidden(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody(directory)  # skips where the programs aren't nobody's to run
    for user in ("engine", "template", "binaries"):
        monkeypatch.setattr(f"shardlib.testing.{user}.identity", lambda: "nobody")
    (port,) = ports.take(1)
    cluster = LocalCluster(directory / "servers", port, {"node1": NodePorts(*take_node())}, FOR_TESTS, tied=True)
    directory.chmod(0o755)
    try:
        cluster.start()
        pid = cluster.catalog.pid
        assert pid is not None
        assert os.stat(f"/proc/{pid}").st_uid == 65534
        cluster.nodes[0].replica.wait_replayed()
        restarted_after_kill(cluster.catalog)
    finally:
        cluster.stop()


def take_node() -> tuple[int, tuple[int, ...]]:
    primary, replica = ports.take(2)
    return primary, (replica,)


def restarted_after_kill(server: PostgresServer) -> None:
    server.kill()
    server.start()
    assert server.psql("SELECT 1") == "1"


def test_an_ordinary_user_starts_servers(directory: Path) -> None:
    user = nobody(directory)
    script = (
        "import sys; from pathlib import Path\n"
        "from shardlib.testing import plugin\n"
        "with plugin.private_servers(1, 1) as cluster:\n"
        "    print(cluster.servers.nodes[0].replica.psql('SELECT pg_is_in_recovery()'))\n"
    )
    answer = user.run("-c", script, environment={"SHARDLIB_TEST_DIR": str(directory)})
    assert (answer.stdout, answer.stderr) == ("t\n", "")
