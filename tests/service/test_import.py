"""Imports and exports, run as an operator runs them, on real databases."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.app import open_service
from shardlib.testing.cluster import LocalCluster
from shardlib.testing.databases import Databases, TestCluster
from shardlib.testing.initial import environment
from tests.service.conftest import SETUPS, migrate, serve, settings_for
from tests.service.dying_import import BATCH_LINES, POINTS
from tests.service.importing import People, Ran, make_people, run, run_apart, run_dying

BATCH = 4  # in which an import dies: batches before it are done, it and one or two after it are under way
COUNT = "SELECT count(*) FROM"
FIELDS = ("email", "name", "username", "profile", "locale")


@pytest.fixture(scope="session")
def template(shardlib_servers: LocalCluster, shardlib_databases: Databases) -> str:
    """Make migrated databases to clone, with nothing in them."""
    return shardlib_databases.derive("import", lambda _cluster: migrate())


@pytest.fixture
def empty(template: str, shardlib_databases: Databases) -> Iterator[TestCluster]:
    """Hold fresh databases, three nodes."""
    cluster = shardlib_databases.create(template)
    with environment(cluster.environment):
        yield cluster
    shardlib_databases.drop(cluster)


@pytest.fixture
def empty_in_setup(
    setup: str, template: str, shardlib_servers: LocalCluster, shardlib_databases: Databases
) -> Iterator[TestCluster]:
    """Hold fresh databases in each set-up."""
    cluster = shardlib_databases.create(template)
    shardlib_servers.catalog.psql(f'\\connect "{cluster.database}"\n{SETUPS[setup]}')
    with environment(cluster.environment):
        yield cluster
    shardlib_databases.drop(cluster)


def do_import(cluster: TestCluster, people: People, *options: str) -> Ran:
    return run(cluster, settings_for(cluster), "import", people.path, "--json", *options)


def do_export(cluster: TestCluster, path: Path) -> list[dict[str, Any]]:
    done = run(cluster, settings_for(cluster), "export", "--out", path)
    assert done.code == 0, done.err
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def rejected_lines(people: People) -> list[int]:
    report = people.path.with_name(f"{people.path.name}.rejected.ndjson")
    return [json.loads(line)["line"] for line in report.read_bytes().splitlines()]


def by_email(users: list[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    return {user["email"]: tuple(user.get(name) for name in FIELDS) for user in users}


def count(cluster: TestCluster, what: str) -> int:
    """Count rows on all nodes, the index's home included."""
    databases = [f'\\connect "{cluster.database}"\n{COUNT} {what}' for _ in cluster.servers.nodes]
    answers = [node.primary.psql(sql) for node, sql in zip(cluster.servers.nodes, databases, strict=True)]
    return sum(int(answer.splitlines()[-1]) for answer in answers)


def test_everybody_comes_back_as_they_were(empty_in_setup: TestCluster, tmp_path: Path) -> None:
    people = make_people(tmp_path / "people.ndjson", 1500, bad=48)
    done = do_import(empty_in_setup, people)
    assert done.code == 1, done.err
    assert (done.json["created"], done.json["rejected"], done.json["lines"]) == (1500, 48, 1548)
    assert done.json["complete"]
    assert rejected_lines(people) == people.faulty
    exported = do_export(empty_in_setup, tmp_path / "out.ndjson")
    assert len(exported) == 1500
    assert by_email(exported) == by_email(people.good)
    own_ids = {user["email"]: user["id"] for user in people.good if "id" in user}
    assert {user["email"]: user["id"] for user in exported if user["email"] in own_ids} == own_ids
    asyncio.run(compare_over_http(empty_in_setup, exported[:40]))


async def compare_over_http(cluster: TestCluster, users: list[dict[str, Any]]) -> None:
    async with open_service(settings_for(cluster)) as service, serve(service) as api:
        for user in users:
            answer = await api.get(f"/v1/users/{user['id']}")
            assert by_email([answer.json]) == by_email([user])
        found = await api.call("POST", "/v1/users/lookup", body={"email": users[0]["email"].upper()})
        assert found.json["email"] == users[0]["email"]


def test_a_second_run_changes_nothing_and_says_so(empty: TestCluster, tmp_path: Path) -> None:
    people = make_people(tmp_path / "people.ndjson", 700, bad=32)
    assert do_import(empty, people).json["created"] == 700
    before = sorted(map(str, do_export(empty, tmp_path / "before.ndjson")))
    again = run(empty, settings_for(empty), "import", people.path)
    assert again.code == 1  # for the rejected lines
    assert "Nothing new: all 700 users were there already." in again.out
    assert rejected_lines(people) == people.faulty
    assert sorted(map(str, do_export(empty, tmp_path / "after.ndjson"))) == before
    assert count(empty, "users") == 700
    assert count(empty, "shardlib.identifier WHERE state = 'pending'") == 0


@pytest.mark.parametrize("when", list(POINTS))
def test_a_killed_import_goes_on(empty: TestCluster, tmp_path: Path, when: str) -> None:
    people = make_people(tmp_path / "people.ndjson", 700, bad=24)
    killed = run_dying(empty, settings_for(empty), when, BATCH, int(signal.SIGKILL), people.path)
    assert killed.code == -signal.SIGKILL, killed.err
    assert count(empty, "users") < 700
    resumed = do_import(empty, people)
    assert resumed.json["complete"], resumed.err
    assert (resumed.json["created"] + resumed.json["present"], resumed.json["rejected"]) == (700, 24)
    assert resumed.json["resumed_after_line"] in [BATCH_LINES * done for done in range(1, BATCH + 1)]
    assert rejected_lines(people) == people.faulty
    assert by_email(do_export(empty, tmp_path / "out.ndjson")) == by_email(people.good)
    values = sum(1 + ("username" in user) for user in people.good)
    assert count(empty, "shardlib.identifier") == values
    assert count(empty, "shardlib.identifier WHERE state = 'pending'") == 0
    assert not list(tmp_path.glob("*.checkpoint.json*"))


def test_an_interrupted_import_ends_in_order_and_goes_on(empty: TestCluster, tmp_path: Path) -> None:
    people = make_people(tmp_path / "people.ndjson", 1200)
    stopped = run_dying(empty, settings_for(empty), "after-checkpoint", 2, int(signal.SIGINT), people.path)
    assert stopped.code == 3, stopped.err
    assert "run the same command again" in stopped.err
    assert count(empty, "shardlib.identifier WHERE state = 'pending'") == 0
    there = count(empty, "users")
    assert 200 <= there < 1200
    resumed = do_import(empty, people)
    assert resumed.json["resumed_after_line"] == there
    assert resumed.json["created"] == 1200
    assert count(empty, "users") == 1200


def test_a_checkpoint_of_another_file_is_not_trusted(empty: TestCluster, tmp_path: Path) -> None:
    path = tmp_path / "people.ndjson"
    people = make_people(path, 500, seed=1)
    run_dying(empty, settings_for(empty), "after-checkpoint", 3, int(signal.SIGKILL), path)
    others = [{"email": f"other.{number}@example.com", "name": "x" * 190} for number in range(700)]
    path.write_text("".join(json.dumps(other) + "\n" for other in others))
    done = do_import(empty, people)
    assert done.json["note"] == "started over: the input differs from what was imported from it"
    assert done.json["resumed_after_line"] == 0
    emails = {user["email"] for user in do_export(empty, tmp_path / "out.ndjson")}
    assert {other["email"] for other in others} <= emails
    assert {user["email"] for user in people.good[:200]} <= emails


def test_a_checkpoint_of_another_cluster_is_not_trusted(
    empty: TestCluster, template: str, shardlib_databases: Databases, tmp_path: Path
) -> None:
    people = make_people(tmp_path / "people.ndjson", 500)
    run_dying(empty, settings_for(empty), "after-checkpoint", 3, int(signal.SIGKILL), people.path)
    other = shardlib_databases.create(template)
    done = do_import(other, people)
    assert done.json["note"] == "started over: the cluster doesn't have the users that were imported"
    assert done.json["created"] == 500
    shardlib_databases.drop(other)


def test_what_others_have_is_rejected_and_leaves_nothing_claimed(empty: TestCluster, tmp_path: Path) -> None:
    asyncio.run(create(empty, email="Ada@Example.com", username="ada"))
    rows = [
        {"email": "free@example.com", "username": "free"},
        {"email": "ADA@example.com", "username": "other"},
        {"email": "grace@example.com", "username": "ADA"},
        {"email": "alan@example.com", "username": "alan"},
    ]
    path = tmp_path / "rows.ndjson"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = do_import(empty, People(path, [], []))
    assert (done.json["created"], done.json["reasons"]) == (2, {"taken": 2})
    report = path.with_name("rows.ndjson.rejected.ndjson").read_bytes().splitlines()
    assert [(each["line"], each["field"]) for each in map(json.loads, report)] == [(2, "/email"), (3, "/username")]
    asyncio.run(create(empty, email="grace@example.com", username="other"))  # what line 2 and 3 had claimed is free


async def create(cluster: TestCluster, **fields: object) -> None:
    async with open_service(settings_for(cluster)) as service, serve(service) as api:
        await api.create(**fields)


def test_an_export_imports_into_another_cluster_as_it_was(
    empty: TestCluster, template: str, shardlib_databases: Databases, tmp_path: Path
) -> None:
    do_import(empty, make_people(tmp_path / "people.ndjson", 300))
    exported = do_export(empty, tmp_path / "first.ndjson")
    other = shardlib_databases.create(template)
    done = do_import(other, People(tmp_path / "first.ndjson", exported, []))
    assert (done.code, done.json["created"]) == (0, 300)
    again = do_export(other, tmp_path / "second.ndjson")
    assert sorted(map(str, again)) == sorted(map(str, exported))
    shardlib_databases.drop(other)


def test_standard_input_and_output(empty: TestCluster, tmp_path: Path) -> None:
    people = make_people(tmp_path / "people.ndjson", 50, bad=3)
    report = tmp_path / "report.ndjson"
    settings = settings_for(empty)
    arguments = ("service", "import", "-", "--json", "--rejected", report)
    done = run_apart(empty, settings, *arguments, stdin=people.path.read_bytes())
    assert (done.json["created"], done.json["rejected_file"]) == (50, str(report))
    assert len(report.read_bytes().splitlines()) == 3
    exported = run_apart(empty, settings, "service", "export", "--json")
    assert by_email([json.loads(line) for line in exported.out.splitlines()]) == by_email(people.good)
    assert json.loads(exported.err)["users"] == 50


def test_a_wrong_command_is_told_so(empty: TestCluster, tmp_path: Path) -> None:
    missing = run(empty, settings_for(empty), "import", tmp_path / "nobody.ndjson")
    assert (missing.code, "does not exist" in missing.err) == (2, True)
    people = make_people(tmp_path / "people.ndjson", 1)
    nowhere = settings_for(empty)
    environment_of_nobody = TestCluster(empty.servers, "no_such_database")
    done = run(environment_of_nobody, nowhere, "import", people.path)
    assert (done.code, "Traceback" in done.err) == (3, False)
    assert "catalog" in done.err
